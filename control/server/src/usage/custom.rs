//! `custom.metrics.k8s.io`: metrics of objects that are no resource's use, as an autoscaler asks for them:
//!
//! ```text
//! .../namespaces/NS/pods/{NAME,*}/http_requests_per_second        of Pods whose runtime sees requests
//! .../namespaces/NS/services/{NAME,*}/http_requests_per_second    of the Pods that a Service selects, together
//! .../namespaces/NS/services/{NAME,*}/connections_per_second      that clients on all nodes make to a Service: of both kinds
//! ```
//!
//! The words of errors are those of upstream's adapter library, which clients show.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use wherry_api::quantity::Quantity;
use wherry_api::selector::LabelSelector;
use wherry_api::status::{Reason, Status};
use wherry_store::{At, Entry, Key, Range};

use super::{Told, ask};
use crate::engine::Call;
use crate::verbs::selection::unreadable;
use crate::{objects, respond};

/// The group's name.
pub(crate) const GROUP: &str = "custom.metrics.k8s.io";
/// HTTP requests a second.
const REQUESTS: &str = "http_requests_per_second";
/// New connections a second.
const CONNECTIONS: &str = "connections_per_second";

/// What was measured of an object: thousandths, when, and over how many seconds.
struct Measure {
    milli: i64,
    timestamp: String,
    window_seconds: u64,
}

impl Measure {
    /// That there is none of it.
    fn none() -> Self {
        let now = Timestamp::now();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Self { milli: 0, timestamp: now.to_string(), window_seconds: 0 }
    }

    /// Both together, as old as the older.
    fn and(self, other: Self) -> Self {
        Self {
            milli: self.milli.saturating_add(other.milli),
            // In one form of one time zone, so that the order of the texts is that of the times.
            timestamp: self.timestamp.min(other.timestamp),
            window_seconds: self.window_seconds.max(other.window_seconds),
        }
    }
}

/// Answers a get of a metric of one object, or (`*`) of those that a selector matches.
pub(crate) async fn run(call: &Call, metric: &str) -> Result<Response, Status> {
    let source = call.resource.plural.as_str();
    let unknown = |of: String| {
        Status::new(404, Reason::NotFound, format!("the server could not find the metric {metric} for {source}{of}"))
    };
    let known = matches!((source, metric), (_, REQUESTS) | ("services", CONNECTIONS));
    let Some(namespace) = call.info.namespace.as_deref().filter(|_| known) else {
        return Err(unknown(String::new()));
    };
    let query = call.query();
    let selector = |name: &str| {
        let selector = query.get(name).map(LabelSelector::parse).transpose();
        selector.map_err(|error| unreadable(&error)).map(|found| found.unwrap_or_else(LabelSelector::everything))
    };
    // No series here has labels of its own.
    if !selector("metricLabelSelector")?.matches(&BTreeMap::new()) {
        return Err(unknown(format!(" with metric selector {}", query.get("metricLabelSelector").unwrap_or_default())));
    }
    let all = call.name() == "*";
    let objects = if all {
        let wanted = selector("labelSelector")?;
        let mut objects = list(call, source, namespace)?;
        objects.retain(|object| wanted.matches(&object.attributes.labels));
        objects
    } else {
        let found = call.engine.store.get(&Key::new(source, namespace, call.name()));
        vec![found.ok_or_else(|| Status::not_found(&call.group_resource(), call.name()))?]
    };
    let measures = match source {
        "pods" => of_pods(call, &objects).await,
        _ if metric == CONNECTIONS => connections(call, &objects).await?,
        _ => of_services(call, namespace, &objects).await?,
    };
    let items: Vec<Value> = objects
        .iter()
        .zip(measures)
        .filter_map(|(object, measure)| Some(item(source, object, metric, measure?)))
        .collect();
    if items.is_empty() && !all {
        return Err(unknown(format!(" {}", call.name())));
    }
    let shown = json!({
        "kind": call.resource.kind, "apiVersion": call.resource.api_version(), "metadata": {}, "items": items,
    });
    respond::value(StatusCode::OK, &shown, objects::negotiate(call)?.format, &call.headers)
}

fn list(call: &Call, source: &str, namespace: &str) -> Result<Vec<Arc<Entry>>, Status> {
    let list = call.engine.store.list(&Range::all(source).namespace(namespace), At::Latest);
    list.map(|list| list.entries).map_err(|error| objects::store_status(&error))
}

async fn of_pods(call: &Call, pods: &[Arc<Entry>]) -> Vec<Option<Measure>> {
    let told = Told::of_pods(call, pods).await;
    pods.iter().map(|pod| requests(&told, pod)).collect()
}

fn requests(told: &Told, pod: &Entry) -> Option<Measure> {
    let (node, pod) = told.find(pod)?;
    let milli = pod.requests.as_ref()?.parse::<Quantity>().ok()?.milli_value();
    Some(Measure { milli, timestamp: node.timestamp.clone(), window_seconds: node.window_seconds })
}

async fn of_services(call: &Call, namespace: &str, services: &[Arc<Entry>]) -> Result<Vec<Option<Measure>>, Status> {
    let pods = list(call, "pods", namespace)?;
    let mut selected = Vec::with_capacity(services.len());
    for service in services {
        let service = objects::stored_tree(service)?;
        let selector = service["spec"]["selector"].as_object().filter(|selector| !selector.is_empty()).cloned();
        let of_it = |pod: &&Arc<Entry>| {
            let has = |(name, value): (&String, &Value)| {
                pod.attributes.labels.get(name).map(String::as_str) == value.as_str()
            };
            selector.as_ref().is_some_and(|selector| selector.iter().all(has))
        };
        selected.push(pods.iter().filter(of_it).cloned().collect::<Vec<_>>());
    }
    let mut asked: Vec<_> = selected.iter().flatten().cloned().collect();
    asked.sort_by(|a, b| a.key.cmp(&b.key));
    asked.dedup();
    let told = Told::of_pods(call, &asked).await;
    let sum = |pods: Vec<Arc<Entry>>| {
        // Where there is nobody, nobody is asked anything: that is known.
        let none = pods.is_empty().then(Measure::none);
        none.or_else(|| pods.iter().filter_map(|pod| requests(&told, pod)).reduce(Measure::and))
    };
    Ok(selected.into_iter().map(sum).collect())
}

/// An agent's `/connections`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OfNode {
    timestamp: String,
    window_seconds: u64,
    services: Vec<OfService>,
}

#[derive(Deserialize)]
struct OfService {
    namespace: String,
    name: String,
    connections: String,
}

/// Of each Service what the nodes say that answer, together; nothing where none does.
async fn connections(call: &Call, services: &[Arc<Entry>]) -> Result<Vec<Option<Measure>>, Status> {
    let nodes = call.engine.store.list(&Range::all("nodes"), At::Latest);
    let nodes = nodes.map_err(|error| objects::store_status(&error))?.entries;
    let names: Vec<&str> = nodes.iter().map(|node| &*node.key.name).collect();
    let told: HashMap<String, OfNode> = ask(call, &names, "/connections").await;
    let mut all: HashMap<(&str, &str), Measure> = HashMap::new();
    for of in told.values() {
        for service in &of.services {
            let Ok(value) = service.connections.parse::<Quantity>() else { continue };
            let (timestamp, window_seconds) = (of.timestamp.clone(), of.window_seconds);
            let measure = Measure { milli: value.milli_value(), timestamp, window_seconds };
            let key = (service.namespace.as_str(), service.name.as_str());
            let sum = match all.remove(&key) {
                Some(others) => others.and(measure),
                None => measure,
            };
            all.insert(key, sum);
        }
    }
    Ok(services.iter().map(|service| all.remove(&(&*service.key.namespace, &*service.key.name))).collect())
}

fn item(source: &str, object: &Entry, metric: &str, measure: Measure) -> Value {
    let kind = if source == "pods" { "Pod" } else { "Service" };
    json!({
        "describedObject": {
            "kind": kind, "namespace": &*object.key.namespace, "name": &*object.key.name, "apiVersion": "v1",
        },
        "metric": { "name": metric },
        "timestamp": measure.timestamp,
        "windowSeconds": measure.window_seconds,
        "value": Quantity::parse(&format!("{}m", measure.milli)).map_or_else(|_| "0".to_owned(), |value| value.to_string()),
    })
}
