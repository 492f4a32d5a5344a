//! `metrics.k8s.io`: what nodes and Pods use, asked of the agents when somebody asks here. Nothing is stored.
//!
//! An agent's word is taken for the Pods that are bound to its node, by their uids, and for no others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures::{FutureExt as _, StreamExt as _, stream};
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use wherry_api::quantity::Quantity;
use wherry_api::status::{GroupResource, Status};
use wherry_store::{At, Entry, Key, Range};

use crate::engine::{Call, Engine};
use crate::layers::info::Verb;
use crate::negotiate::View;
use crate::verbs::selection::Selection;
use crate::{agents, objects, respond, tables};

/// The group's name.
pub(crate) const GROUP: &str = "metrics.k8s.io";
/// Agents that are asked at once.
const AT_ONCE: usize = 32;
/// How long an agent has: it may wait a second to see a rate.
const TIME: Duration = Duration::from_secs(5);
/// As much as 16,000 Pods need.
const LIMIT: usize = 32 << 20;

/// An agent's `/usage`.
#[derive(Debug, Deserialize)]
struct OfNode {
    timestamp: String,
    window: String,
    node: Usage,
    pods: Vec<OfPod>,
}

#[derive(Debug, Deserialize)]
struct OfPod {
    uid: String,
    containers: Vec<OfContainer>,
}

#[derive(Debug, Deserialize)]
struct OfContainer {
    name: String,
    #[serde(flatten)]
    usage: Usage,
}

#[derive(Debug, Deserialize)]
struct Usage {
    usage: BTreeMap<String, String>,
}

impl Usage {
    /// As it is shown: what is no quantity is no answer.
    fn value(&self) -> Option<Value> {
        let known = self.usage.iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"));
        known
            .map(|(name, text)| {
                Some((name.clone(), Value::from(text.parse::<Quantity>().ok().map(|_| text.as_str())?)))
            })
            .collect()
    }
}

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
    let told = ask(call, &names).await;
    let item = |entry: &Arc<Entry>| {
        let of = told.get(&*entry.key.name)?;
        let mut item = head(call, entry, of);
        item["usage"] = of.node.value()?;
        Some(item)
    };
    entries.iter().filter_map(item).collect()
}

async fn of_pods(call: &Call, entries: &[Arc<Entry>]) -> Vec<Value> {
    let placed: Vec<(&str, &Arc<Entry>)> = entries
        .iter()
        .map(|entry| (entry.attributes.field("spec.nodeName"), entry))
        .filter(|(node, _)| !node.is_empty())
        .collect();
    let mut names: Vec<&str> = placed.iter().map(|(node, _)| *node).collect();
    names.sort_unstable();
    names.dedup();
    let told = ask(call, &names).await;
    let pods: HashMap<(&str, &str), &OfPod> =
        told.iter().flat_map(|(node, of)| of.pods.iter().map(|pod| ((node.as_str(), pod.uid.as_str()), pod))).collect();
    let item = |(node, entry): &(&str, &Arc<Entry>)| {
        let of = told.get(*node)?;
        let pod = pods.get(&(*node, &*entry.uid))?;
        let containers = pod.containers.iter();
        let containers = containers.map(|one| Some(json!({ "name": one.name, "usage": one.usage.value()? })));
        let mut item = head(call, entry, of);
        item["containers"] = containers.collect::<Option<Vec<_>>>()?.into();
        Some(item)
    };
    placed.iter().filter_map(item).collect()
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

/// Asks the agents; those that cannot answer are left out, as their Pods are.
async fn ask(call: &Call, nodes: &[&str]) -> HashMap<String, OfNode> {
    let asked: Vec<_> = nodes.iter().map(|node| one(Arc::clone(&call.engine), (*node).to_owned()).boxed()).collect();
    stream::iter(asked).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await
}

async fn one(engine: Arc<Engine>, node: String) -> Option<(String, OfNode)> {
    let told = agents::document(&engine, &node, "/usage", LIMIT, TIME).await;
    match told.and_then(|bytes| serde_json::from_slice::<OfNode>(&bytes).map_err(Status::internal)) {
        Ok(told) => Some((node, told)),
        Err(error) => {
            tracing::debug!(node, error = error.message, "a node does not tell what it uses");
            None
        }
    }
}
