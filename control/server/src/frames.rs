//! Watch events on the wire: `{"type":"ADDED","object":...}`, one a line; in protobuf the same with its length before it.

use std::sync::Arc;

use serde_json::{Value, json};
use wherry_api::encode::{protobuf, wire};
use wherry_api::meta;
use wherry_api::resource::Resource;
use wherry_api::status::Status;
use wherry_store::Entry;

use crate::engine::Call;
use crate::negotiate::{Accepted, Format, View};
use crate::objects;
use crate::tables::{self, Include};

/// The annotation of the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Added,
    Modified,
    Deleted,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Added => "ADDED",
            Kind::Modified => "MODIFIED",
            Kind::Deleted => "DELETED",
        }
    }
}

/// Writes the events of one watch in the representation its client asked for.
pub(crate) struct Encoder {
    resource: Arc<Resource>,
    api_version: String,
    view: View,
    format: Format,
    include: Include,
    /// Whether a table's columns were sent: only the first table has them.
    columns_sent: bool,
}

impl Encoder {
    pub(crate) fn new(call: &Call, accepted: Accepted) -> Result<Self, Status> {
        Ok(Self {
            resource: Arc::clone(&call.resource),
            api_version: call.info.group_version(),
            view: accepted.view,
            format: accepted.format,
            include: Include::parse(&call.query())?,
            columns_sent: false,
        })
    }

    /// Appends an event about a stored object.
    pub(crate) fn event(&mut self, out: &mut Vec<u8>, kind: Kind, entry: &Entry) -> Result<(), Status> {
        match (self.view, self.format) {
            (View::Whole, Format::Protobuf) => {
                let message = objects::message(&self.resource, entry)?;
                wire::watch_frame(out, kind.name(), &self.api_version, &self.resource.kind, &message);
            }
            (View::Metadata { beta, .. }, Format::Protobuf) => {
                let message = objects::partial_message(entry)?;
                wire::watch_frame(out, kind.name(), objects::meta_version(beta), "PartialObjectMetadata", &message);
            }
            (View::Whole, _) => line(out, kind.name(), &objects::bytes(&self.resource, entry)?),
            (View::Metadata { beta, .. }, _) => line(out, kind.name(), objects::partial(entry, beta)?.as_bytes()),
            (View::Table { .. }, _) => self.tree(out, kind.name(), objects::tree(&self.resource, entry)?)?,
        }
        Ok(())
    }

    /// Appends the DELETED of an object that the selectors no longer match: as it was, at the revision of the change.
    pub(crate) fn left(&mut self, out: &mut Vec<u8>, previous: &Entry, revision: u64) -> Result<(), Status> {
        let mut object = objects::tree(&self.resource, previous)?;
        meta::set(&mut object, "resourceVersion", &revision.to_string());
        self.tree(out, Kind::Deleted.name(), object)
    }

    /// Appends a bookmark.
    pub(crate) fn bookmark(&mut self, out: &mut Vec<u8>, revision: u64, initial_end: bool) -> Result<(), Status> {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.view {
            View::Whole => {
                json!({"kind": self.resource.kind, "apiVersion": self.api_version, "metadata": metadata})
            }
            View::Metadata { beta, .. } => objects::partial_tree(&json!({"metadata": metadata}), beta),
            // A row would be printed as an object: the table says its revision and no more.
            View::Table { beta } => {
                json!({"kind": "Table", "apiVersion": objects::meta_version(beta), "metadata": metadata, "columnDefinitions": [], "rows": []})
            }
        };
        self.document(out, "BOOKMARK", &object)
    }

    /// Appends an ERROR event.
    pub(crate) fn error(&mut self, out: &mut Vec<u8>, status: &Status) -> Result<(), Status> {
        self.document(out, "ERROR", &status.to_value())
    }

    /// Appends an event about a whole object, shown as the client asked for.
    fn tree(&mut self, out: &mut Vec<u8>, event: &str, object: Value) -> Result<(), Status> {
        let shown = match self.view {
            View::Whole => object,
            View::Metadata { beta, .. } => objects::partial_tree(&object, beta),
            View::Table { beta } => {
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                tables::of_one(&self.resource, &object, self.include, beta, columns)
            }
        };
        self.document(out, event, &shown)
    }

    /// Appends an event that holds this very document.
    fn document(&self, out: &mut Vec<u8>, event: &str, document: &Value) -> Result<(), Status> {
        if self.format != Format::Protobuf {
            line(out, event, document.to_string().as_bytes());
            return Ok(());
        }
        let message = protobuf::message_of(document)
            .unwrap_or_else(|| Err(Status::internal("a document of a watch has no type in protobuf")))?;
        let text = |key: &str| document[key].as_str().unwrap_or_default();
        wire::watch_frame(out, event, text("apiVersion"), text("kind"), &message);
        Ok(())
    }
}

/// Appends an event in JSON.
fn line(out: &mut Vec<u8>, event: &str, object: &[u8]) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}
