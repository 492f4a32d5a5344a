//! What serves a Service, and connections to it: for the proxies of Services and for extension API servers.
//!
//! ```text
//! Service, port ──▶ EndpointSlices ──▶ places: a Pod's port, by the agent of its node │ an address that this machine reaches itself
//! place ──▶ a stream ──▶ [relay]: a request with all that follows it, upgrades among it
//! ```

pub(crate) mod agent;
mod relay;
pub(crate) mod session;

use std::sync::Arc;

use axum::body::Body;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use wherry_api::status::Status;
use wherry_store::Entry;

use crate::engine::Engine;
use crate::nodes::AsyncReadWrite;
use crate::objects;

pub(crate) use relay::relay;

/// Where EndpointSlices are stored.
pub(crate) const SLICES: &str = "endpointslices.discovery.k8s.io";
/// Where Services are stored.
pub(crate) const SERVICES: &str = "services";
/// The label of an EndpointSlice that names its Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A port of a Pod, by the agent of its node.
    Pod {
        /// The node.
        node: String,
        /// The Pod's namespace.
        namespace: String,
        /// The Pod's name.
        name: String,
        /// The port.
        port: u16,
    },
    /// A port of something that is no Pod, as this machine reaches it.
    Outside {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod { namespace, name, port, .. } => write!(f, "pod {namespace}/{name}:{port}"),
            Self::Outside { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// The EndpointSlices of a Service.
pub(crate) fn slices(engine: &Engine, namespace: &str, service: &str) -> Result<Vec<Value>, Status> {
    let all = engine.of_namespace(SLICES, namespace)?;
    let of = |entry: &&Arc<Entry>| entry.attributes.labels.get(SERVICE_NAME).is_some_and(|name| name == service);
    all.iter().filter(of).map(|entry| objects::stored_tree(entry)).collect()
}

/// Where the ready endpoints of a port are that has this name, empty if it has none.
pub(crate) fn places(slices: &[Value], namespace: &str, port: &str) -> Vec<Place> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut places = Vec::new();
    for slice in slices {
        let ports = list(&slice["ports"]);
        let number = ports.iter().find(|known| known["name"].as_str().unwrap_or_default() == port);
        let Some(port) = number.and_then(|port| u16::try_from(port["port"].as_u64()?).ok()) else { continue };
        // One of which nothing is known is taken for ready.
        for endpoint in list(&slice["endpoints"]).iter().filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            let target = &endpoint["targetRef"];
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let place = if target["kind"] == "Pod" {
                text(&endpoint["nodeName"]).zip(text(&target["name"])).map(|(node, name)| Place::Pod {
                    node,
                    namespace: namespace.to_owned(),
                    name,
                    port,
                })
            } else {
                text(&endpoint["addresses"][0]).map(|host| Place::Outside { host, port })
            };
            places.extend(place);
        }
    }
    places
}

/// A connection to a place.
pub(crate) async fn connect(engine: &Engine, place: &Place) -> Result<Box<dyn AsyncReadWrite>, Status> {
    let failed =
        |why: &dyn std::fmt::Display| Status::server_unavailable(format!("error trying to reach service: {why}"));
    let (node, namespace, name, port) = match place {
        Place::Pod { node, namespace, name, port } => (node, namespace, name, port),
        Place::Outside { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await;
            let stream = stream.map_err(|error| failed(&format!("dial tcp {host}:{port}: {error}")))?;
            stream.set_nodelay(true).map_err(|error| failed(&error))?;
            return Ok(Box::new(stream));
        }
    };
    let request = Request::builder()
        .uri(format!("/dial/{namespace}/{name}/{port}"))
        .header(HOST, node)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .body(Body::empty())
        .map_err(|error| agent::unreachable(node, &error))?;
    let answer = agent::ask(engine, node, request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (_, text) = agent::complaint(answer).await;
        return Err(failed(&text));
    }
    let connection = hyper::upgrade::on(answer).await.map_err(|error| agent::unreachable(node, &error))?;
    Ok(Box::new(TokioIo::new(connection)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_leads_to_its_ready_endpoints() {
        let pod = |name: &str| json!({"kind": "Pod", "name": name});
        let slices = [
            json!({
                "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 8081}],
                "endpoints": [
                    {"addresses": ["10.0.0.2"], "nodeName": "n", "targetRef": pod("p"), "conditions": {"ready": true}},
                    {"addresses": ["10.0.0.3"], "nodeName": "n", "targetRef": pod("q"), "conditions": {"ready": false}},
                    {"addresses": ["10.0.0.4"], "targetRef": pod("lost")},
                ],
            }),
            json!({"ports": [{"name": "admin", "port": 1}], "endpoints": [{"addresses": ["192.0.2.1", "192.0.2.2"]}]}),
        ];
        let p = Place::Pod { node: "n".into(), namespace: "d".into(), name: "p".into(), port: 8081 };
        let outside = Place::Outside { host: "192.0.2.1".into(), port: 1 };
        assert_eq!(places(&slices, "d", "admin"), [p, outside]);
        assert!(places(&slices, "d", "other").is_empty());
        let unnamed = [json!({"ports": [{"port": 9}], "endpoints": [{"addresses": ["192.0.2.1"]}]})];
        assert_eq!(places(&unnamed, "d", ""), [Place::Outside { host: "192.0.2.1".into(), port: 9 }]);
    }
}
