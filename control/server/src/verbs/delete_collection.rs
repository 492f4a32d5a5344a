//! DELETE of a collection: of what the selectors name, one by one.

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt as _;
use http::StatusCode;
use serde_json::{Value, json};
use wherry_api::meta;
use wherry_api::status::Status;

use super::delete::{self, Options};
use super::list;
use super::selection::Selection;
use crate::engine::Call;
use crate::{objects, respond};

/// Deletes under way at the same time, so that they share syncs of the log.
const AT_ONCE: usize = 64;

pub(crate) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    if call.resource.namespaced && call.info.namespace.is_none() {
        return Err(call.not_supported());
    }
    let options = Options::read(call, body).await?;
    let query = call.query();
    let selection = Selection::parse(call, &query)?;
    let page = match list::page(call, &query, &selection).await? {
        Ok(page) => page,
        Err(expired) => return Ok(expired.response()),
    };
    let metadata = page.metadata();
    let names: Vec<_> = page.entries.iter().map(|e| e.key.name.clone()).collect();
    let mut deletes = futures::stream::iter(names)
        .map(|name| {
            let options = &options;
            async move { delete::delete(call, &name, options).await }
        })
        .buffered(AT_ONCE);
    while let Some(result) = deletes.next().await {
        match result {
            Ok(_) => {}
            // Somebody else deleted it meanwhile: as asked.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    // The answer is what was there, as upstream's.
    let items: Vec<Value> =
        page.entries.iter().map(|entry| objects::tree(&call.resource, entry)).collect::<Result<_, _>>()?;
    tracing::debug!(resource = %call.resource.plural, count = items.len(), first = items.first().map(meta::name), "deleted a collection");
    let list = json!({
        "kind": call.resource.list_kind, "apiVersion": call.info.group_version(), "metadata": metadata, "items": items,
    });
    respond::value(StatusCode::OK, &list, accepted.format, &call.headers)
}
