//! LIST: the store's bytes, joined.
//!
//! ```text
//! options -> As (latest, not older than, exactly, a page) -> store.list -> selectors -> body
//! ```
//!
//! A JSON list is written item by item while it is sent, from bytes that all readers share; only tables and YAML
//! parse objects. The list's resource version is the revision at which it is true, and never 0.

use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};
use wherry_api::field::{FieldError, Path};
use wherry_api::status::Status;
use wherry_store::{At, Entry, List, StoreError};

use super::paging::Continue;
use super::selection::Selection;
use crate::engine::Call;
use crate::negotiate::{Format, View};
use crate::options::{Query, all_invalid};
use crate::{objects, respond, stream, tables};

/// How long a read waits for a revision that another server has shown to the client.
pub(crate) const FRESHNESS_WAIT: Duration = Duration::from_secs(3);

/// A page of objects with what its metadata says.
pub(crate) struct Page {
    pub(crate) revision: u64,
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) token: Option<Continue>,
    pub(crate) remaining: Option<usize>,
}

impl Page {
    /// `metadata` of the list.
    pub(crate) fn metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".to_owned(), self.revision.to_string().into());
        if let Some(token) = &self.token {
            metadata.insert("continue".to_owned(), token.encode().into());
        }
        if let Some(remaining) = self.remaining {
            metadata.insert("remainingItemCount".to_owned(), remaining.into());
        }
        metadata
    }
}

pub(crate) async fn run(call: &Call) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    if matches!(accepted.view, View::Metadata { list: false, .. }) {
        return Err(objects::is_a_list(call));
    }
    let query = call.query();
    let selection = Selection::parse(call, &query)?;
    let page = match page(call, &query, &selection).await? {
        Ok(page) => page,
        Err(expired) => return Ok(expired.response()),
    };
    match (accepted.view, accepted.format) {
        (view @ (View::Whole | View::Metadata { .. }), format @ (Format::Json | Format::Protobuf)) => {
            stream::list(call, view, format, page)
        }
        (View::Table { beta }, format) => {
            respond::value(StatusCode::OK, &tables::of_page(call, &page, beta)?, format, &call.headers)
        }
        (view, format) => respond::value(StatusCode::OK, &tree(call, view, &page)?, format, &call.headers),
    }
}

/// The list as a tree, for YAML.
fn tree(call: &Call, view: View, page: &Page) -> Result<Value, Status> {
    let items = page.entries.iter().map(|entry| match view {
        View::Metadata { beta, .. } => objects::tree(&call.resource, entry).map(|o| objects::partial_tree(&o, beta)),
        _ => objects::tree(&call.resource, entry),
    });
    let items = items.collect::<Result<Vec<Value>, Status>>()?;
    let (api_version, kind) = list_type(call, view);
    Ok(json!({"apiVersion": api_version, "kind": kind, "metadata": page.metadata(), "items": items}))
}

/// apiVersion and kind of the list.
pub(crate) fn list_type(call: &Call, view: View) -> (String, &str) {
    match view {
        View::Metadata { beta, .. } => (objects::meta_version(beta).to_owned(), "PartialObjectMetadataList"),
        _ => (call.info.group_version(), &call.resource.list_kind),
    }
}

/// A continue token that came too late, with one that leads on.
pub(crate) struct Expired(Continue);

impl Expired {
    pub(crate) fn response(&self) -> Response {
        let status = Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        );
        let mut value = status.to_value();
        value["metadata"]["continue"] = self.0.inconsistent().encode().into();
        respond::failure_document(&status, value)
    }
}

/// Reads the objects that `query` and `selection` name.
pub(crate) async fn page(
    call: &Call,
    query: &Query<'_>,
    selection: &Selection,
) -> Result<Result<Page, Expired>, Status> {
    let options = Options::parse(query)?;
    let limit = options.limit;
    // With selectors, how many objects make a page is not known before they are looked at.
    let fetched = if selection.is_everything() { limit } else { 0 };
    let mut range = selection.narrow(call, call.range()).limit(fetched);
    if let Some(token) = &options.token {
        let (namespace, name) = token.start();
        range = range.after(namespace, name);
    }
    let list = match read(call, &range, options.at).await {
        Ok(list) => list,
        Err(ReadError::Compacted) => match options.token {
            Some(token) => return Ok(Err(Expired(token))),
            None => {
                return Err(Status::expired("The resourceVersion for the provided list is too old."));
            }
        },
        Err(ReadError::Status(status)) => return Err(status),
    };
    let List { revision, mut entries, count } = list;
    let mut more = selection.is_everything() && limit > 0 && count > entries.len();
    if !selection.is_everything() {
        entries.retain(|entry| selection.matches(entry));
        if limit > 0 && entries.len() > limit {
            entries.truncate(limit);
            more = true;
        }
    }
    // What follows a page that was taken from the newest state is consistent with it.
    let at = i64::try_from(revision).unwrap_or(i64::MAX);
    let token = if more { entries.last().map(|last| Continue::after(last, at)) } else { None };
    let remaining = (more && selection.is_everything()).then(|| count - entries.len());
    Ok(Ok(Page { revision, entries, token, remaining }))
}

enum ReadError {
    Compacted,
    Status(Status),
}

async fn read(call: &Call, range: &wherry_store::Range, at: At) -> Result<List, ReadError> {
    let store = &call.engine.store;
    if matches!(at, At::Exact(revision) if !call.engine.history.holds(revision)) {
        return Err(ReadError::Compacted);
    }
    match store.list(range, at) {
        Err(StoreError::Future { .. }) => {}
        result => return result.map_err(|e| read_error(&e)),
    }
    let (At::Exact(wanted) | At::NotOlderThan(wanted)) = at else {
        return Err(ReadError::Status(Status::internal("the newest revision is ahead of itself")));
    };
    wait(call, wanted).await.map_err(ReadError::Status)?;
    store.list(range, at).map_err(|e| read_error(&e))
}

/// Waits until the store has reached `revision`; 504 if it does not within [`FRESHNESS_WAIT`].
pub(crate) async fn wait(call: &Call, revision: u64) -> Result<(), Status> {
    match call.engine.store.wait_for(revision, FRESHNESS_WAIT).await {
        Ok(()) => Ok(()),
        Err(StoreError::Future { current }) => Err(Status::resource_version_too_large(revision, current)),
        Err(error) => Err(objects::store_status(&error)),
    }
}

fn read_error(error: &StoreError) -> ReadError {
    match error {
        StoreError::Compacted { .. } => ReadError::Compacted,
        other => ReadError::Status(objects::store_status(other)),
    }
}

/// limit, continue, resourceVersion and resourceVersionMatch, resolved.
struct Options {
    at: At,
    limit: usize,
    token: Option<Continue>,
}

impl Options {
    fn parse(query: &Query<'_>) -> Result<Self, Status> {
        let limit = query.integer("limit")?.unwrap_or_default();
        let limit = usize::try_from(limit).unwrap_or(0);
        let version = query.get("resourceVersion");
        let matching = query.get("resourceVersionMatch");
        let token = query.get("continue");
        check(version, matching, token.is_some(), query.boolean("sendInitialEvents").is_some())?;
        if let Some(token) = token {
            let token = Continue::decode(token)?;
            if version.is_some_and(|version| version != "0") {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            let at = u64::try_from(token.rv).map_or(At::Latest, At::Exact);
            return Ok(Self { at, limit, token: Some(token) });
        }
        let revision = version.map(parse_revision).transpose();
        let revision =
            revision.map_err(|error| Status::bad_request(format!("invalid resource version: {}", error.message)))?;
        let at = match (revision, matching) {
            // Reads at 0 may be answered from any state; ours is the newest.
            (None | Some(0), _) => At::Latest,
            (Some(revision), Some("Exact")) => At::Exact(revision),
            (Some(revision), Some(_)) => At::NotOlderThan(revision),
            // Upstream's legacy: a limited list at N without a match is exact.
            (Some(revision), None) if limit > 0 => At::Exact(revision),
            (Some(revision), None) => At::NotOlderThan(revision),
        };
        // What any state will do for comes whole.
        let limit = if version == Some("0") { 0 } else { limit };
        Ok(Self { at, limit, token: None })
    }
}

/// A resource version; 400 if it is no number.
pub(crate) fn parse_revision(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let error = FieldError::invalid(
            &Path::new("resourceVersion"),
            text,
            format!("strconv.ParseUint: parsing {text:?}: invalid syntax"),
        );
        Status::bad_request(error.to_string())
    })
}

/// Everything that is wrong with the combination of options.
fn check(version: Option<&str>, matching: Option<&str>, paged: bool, initial_events: bool) -> Result<(), Status> {
    let path = Path::new("resourceVersionMatch");
    let mut errors = Vec::new();
    if let Some(matching) = matching {
        if version.is_none() {
            let detail = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(FieldError::forbidden(&path, detail));
        }
        if paged {
            errors.push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errors.push(FieldError::not_supported(&path, matching, &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && version == Some("0") {
            let detail = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(&path, detail));
        }
    }
    if initial_events {
        let path = Path::new("sendInitialEvents");
        errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    all_invalid("ListOptions", &errors)
}
