//! `metrics.k8s.io`: what nodes and Pods use.

use std::collections::HashMap;
use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use wherry_api::status::{GroupResource, Status};
use wherry_store::{At, Entry, Key, Range};

use super::{OfNode, Told, USAGE, ask};
use crate::engine::Call;
use crate::layers::info::Verb;
use crate::negotiate::View;
use crate::verbs::selection::Selection;
use crate::{objects, respond, tables};

/// The group's name.
pub(crate) const GROUP: &str = "metrics.k8s.io";

/// Answers get and list of both kinds.
pub(crate) async fn run(call: &Call) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let query = call.query();
    let selection = Selection::parse(call, &query)?;
    let nodes = call.resource.kind == "NodeMetrics";
    let source = if nodes { "nodes" } else { "pods" };
    let listed = call.info.verb == Verb::List;
    let entries = if listed {
        let range = match call.namespace() {
            "" => Range::all(source),
            namespace => Range::all(source).namespace(namespace),
        };
        let list = call.engine.store.list(&selection.narrow(call, range), At::Latest);
        let mut entries = list.map_err(|error| objects::store_status(&error))?.entries;
        entries.retain(|entry| selection.matches(entry));
        entries
    } else {
        let key = Key::new(source, call.namespace(), call.name());
        let entry = call.engine.store.get(&key).ok_or_else(|| absent(call, &GroupResource::new("", source)))?;
        vec![entry]
    };
    let mut items = if nodes { of_nodes(call, &entries).await } else { of_pods(call, &entries).await };
    if !listed {
        let object = items.pop().ok_or_else(|| absent(call, &GroupResource::new(GROUP, &call.resource.singular)))?;
        return objects::tree_response(call, accepted, StatusCode::OK, object);
    }
    let shown = match accepted.view {
        View::Whole => json!({
            "kind": call.resource.list_kind, "apiVersion": call.resource.api_version(), "metadata": {}, "items": items,
        }),
        View::Table { beta } => tables::of_trees(call, &items, beta)?,
        View::Metadata { beta, list: true } => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": objects::meta_version(beta), "metadata": {},
            "items": items.iter().map(|item| objects::partial_tree(item, beta)).collect::<Vec<_>>(),
        }),
        View::Metadata { list: false, .. } => return Err(objects::is_a_list(call)),
    };
    respond::value(StatusCode::OK, &shown, accepted.format, &call.headers)
}

/// As metrics-server says it: with the namespace.
fn absent(call: &Call, what: &GroupResource) -> Status {
    match call.namespace() {
        "" => Status::not_found(what, call.name()),
        namespace => Status::not_found(what, &format!("{namespace}/{}", call.name())),
    }
}

async fn of_nodes(call: &Call, entries: &[Arc<Entry>]) -> Vec<Value> {
    let names: Vec<&str> = entries.iter().map(|entry| &*entry.key.name).collect();
    let told: HashMap<String, OfNode> = ask(call, &names, USAGE).await;
    let item = |entry: &Arc<Entry>| {
        let of = told.get(&*entry.key.name)?;
        let mut item = head(call, entry, of);
        item["usage"] = of.node.value()?;
        Some(item)
    };
    entries.iter().filter_map(item).collect()
}

async fn of_pods(call: &Call, entries: &[Arc<Entry>]) -> Vec<Value> {
    let told = Told::of_pods(call, entries).await;
    let item = |entry: &Arc<Entry>| {
        let (of, pod) = told.find(entry)?;
        let containers = pod.containers.iter();
        let containers = containers.map(|one| Some(json!({ "name": one.name, "usage": one.usage.value()? })));
        let mut item = head(call, entry, of);
        item["containers"] = containers.collect::<Option<Vec<_>>>()?.into();
        Some(item)
    };
    entries.iter().filter_map(item).collect()
}

/// All but the figures.
fn head(call: &Call, entry: &Entry, of: &OfNode) -> Value {
    let now = Timestamp::now();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut metadata = json!({ "name": &*entry.key.name, "creationTimestamp": now.to_string() });
    if call.resource.namespaced {
        metadata["namespace"] = (*entry.key.namespace).into();
    }
    if !entry.attributes.labels.is_empty() {
        metadata["labels"] = json!(entry.attributes.labels);
    }
    json!({
        "kind": call.resource.kind, "apiVersion": call.resource.api_version(), "metadata": metadata,
        "timestamp": of.timestamp, "window": of.window,
    })
}
