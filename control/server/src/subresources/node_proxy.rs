//! nodes/proxy: whatever the node's agent answers, passed on. This is how Prometheus reaches the agents' metrics.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, Method, Request, Uri, header};
use wherry_api::status::Status;
use wherry_store::Key;

use crate::agents;
use crate::engine::Call;
use crate::layers::info::Verb;

/// Headers about the connection, and those by which we know the client: the agent has no use for them.
const KEPT_HERE: [HeaderName; 9] = [
    header::CONNECTION,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::COOKIE,
];

pub(super) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let node = node_name(call.name());
    let key = Key::new(std::sync::Arc::clone(&call.stored.storage.resource), "", node);
    if call.engine.store.get(&key).is_none() {
        return Err(Status::not_found(&call.group_resource(), node));
    }
    let mut request = Request::new(body);
    *request.method_mut() = method(call.info.verb).ok_or_else(|| call.not_supported())?;
    *request.uri_mut() = target(&call.uri).ok_or_else(Status::no_such_path)?;
    *request.headers_mut() = call.headers.clone();
    for name in KEPT_HERE {
        request.headers_mut().remove(name);
    }
    let (mut parts, body) = agents::send(&call.engine, node, request).await?.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let closing = call.closing.clone().unwrap_or_default();
    let frames = http_body_util::BodyExt::into_data_stream(body);
    let frames = futures::StreamExt::take_until(frames, closing.cancelled_owned());
    Ok(Response::from_parts(parts, Body::from_stream(frames)))
}

/// Of `name`, `name:port`, `scheme:name:port`: an agent has one way to it, whatever the port.
fn node_name(name: &str) -> &str {
    let parts: Vec<&str> = name.split(':').collect();
    match parts[..] {
        [_, name, _] => name,
        [name, ..] => name,
        [] => name,
    }
}

fn method(verb: Verb) -> Option<Method> {
    match verb {
        Verb::Get => Some(Method::GET),
        Verb::Create => Some(Method::POST),
        Verb::Update => Some(Method::PUT),
        Verb::Patch => Some(Method::PATCH),
        Verb::Delete => Some(Method::DELETE),
        _ => None,
    }
}

/// What follows `/api/v1/nodes/NAME/proxy`, as the client wrote it.
fn target(uri: &Uri) -> Option<Uri> {
    let rest = uri.path().splitn(7, '/').nth(6).unwrap_or_default();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("/{rest}{query}").parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_path_is_passed_on_as_it_is() {
        let of = |path: &str| target(&path.parse().unwrap()).unwrap().to_string();
        assert_eq!(of("/api/v1/nodes/n/proxy"), "/");
        assert_eq!(of("/api/v1/nodes/n/proxy/metrics/cadvisor?x=1"), "/metrics/cadvisor?x=1");
        assert_eq!(of("/api/v1/nodes/n/proxy/a%2Fb"), "/a%2Fb");
    }

    #[test]
    fn a_port_may_be_named() {
        assert_eq!(["n", "n:10250", "https:n:10250"].map(node_name), ["n"; 3]);
    }
}
