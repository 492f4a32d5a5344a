//! The proxies: HTTP requests, any method, to a Pod or a Service's endpoints.

use axum::body::Body;
use axum::response::Response;
use http::header::{AUTHORIZATION, CONNECTION, HOST, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use wherry_api::status::Status;
use wherry_store::Key;

use super::{agent, session, target};
use crate::engine::Call;
use crate::layers::info::Verb;
use crate::nodes::AsyncReadWrite;
use crate::{objects, respond};

/// Headers that are about one connection; `Upgrade` is one, too, unless it is asked for.
const HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];
/// Where a request goes: a port of a Pod on a node.
struct Backend<'a> {
    node: &'a str,
    name: &'a str,
    port: u16,
}

pub(super) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let (prefix, path) = split(call.uri.path(), 7);
    let method = method(call);
    if path.is_empty() && matches!(method, Method::GET | Method::HEAD) && !session::is_asked_for(&call.headers) {
        return Ok(redirect(prefix, call.uri.query()));
    }
    let id = Id::parse(call.name()).ok_or_else(|| {
        let kind = call.resource.kind.to_ascii_lowercase();
        Status::bad_request(format!("invalid {kind} request {:?}", call.name()))
    })?;
    if id.scheme == "https" {
        return Err(Status::bad_request("a backend cannot be asked by https"));
    }
    if call.resource.plural == "pods" {
        let pod = read(call, "pods", id.name)?;
        let backend = Backend { node: target::node(&pod, id.name)?, name: id.name, port: pod_port(&pod, id.port)? };
        return forward(call, backend, method, prefix, path, body).await;
    }
    let unavailable = || Status::server_unavailable(format!("no endpoints available for service {:?}", id.name));
    let name = service_port(&read(call, "services", id.name)?, &id)?;
    let endpoints = read(call, "endpoints", id.name).map_err(|_| unavailable())?;
    let places = places(&endpoints, &name);
    let (node, name, port) = match places.as_slice() {
        [] => return Err(unavailable()),
        places => places[rand::random_range(0..places.len())],
    };
    forward(call, Backend { node, name, port }, method, prefix, path, body).await
}

fn method(call: &Call) -> Method {
    match call.info.verb {
        Verb::Create => Method::POST,
        Verb::Update => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete => Method::DELETE,
        _ if call.head => Method::HEAD,
        _ => Method::GET,
    }
}

/// A path's first segments, and the rest with its slash.
fn split(path: &str, segments: usize) -> (&str, &str) {
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    path.split_at(end)
}

fn redirect(prefix: &str, query: Option<&str>) -> Response {
    let location = query.map_or_else(|| format!("{prefix}/"), |query| format!("{prefix}/?{query}"));
    let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, "");
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
struct Id<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Id<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<_> = text.split(':').collect();
        let (scheme, name, port) = match *parts.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme @ ("" | "http" | "https"), name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { scheme, name, port })
    }
}

fn read(call: &Call, plural: &str, name: &str) -> Result<Value, Status> {
    let row = call.engine.registry.find("", "v1", plural).ok_or_else(Status::no_such_path)?;
    let entry = call.engine.store.get(&Key::new(row.storage.resource.clone(), call.namespace(), name));
    let entry = entry.ok_or_else(|| Status::not_found(&row.group_resource(), name))?;
    objects::stored_tree(&entry)
}

/// The port that is named, or the first one that the Pod declares.
fn pod_port(pod: &Value, asked: &str) -> Result<u16, Status> {
    if !asked.is_empty() {
        return asked.parse().map_err(|_| Status::bad_request(format!("invalid port {asked:?}")));
    }
    let containers = pod["spec"]["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let first = containers.iter().find_map(|container| container["ports"][0]["containerPort"].as_u64());
    Ok(first.and_then(|port| port.try_into().ok()).unwrap_or(80))
}

/// The name of the Service's port.
fn service_port(service: &Value, id: &Id<'_>) -> Result<String, Status> {
    let Ok(number) = id.port.parse::<u64>() else { return Ok(id.port.to_owned()) };
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = ports.iter().find(|port| port["port"].as_u64() == Some(number));
    let found = found.ok_or_else(|| {
        Status::server_unavailable(format!("no service port {number} found for service {:?}", id.name))
    })?;
    Ok(found["name"].as_str().unwrap_or_default().to_owned())
}

/// Where a port's ready endpoints are: node, Pod, port. Only Pods can be reached.
fn places<'a>(endpoints: &'a Value, port: &str) -> Vec<(&'a str, &'a str, u16)> {
    let list = |value: &'a Value| value.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut places = Vec::new();
    for subset in list(&endpoints["subsets"]) {
        let number = list(&subset["ports"]).iter().find(|known| known["name"].as_str().unwrap_or_default() == port);
        let Some(number) = number.and_then(|port| port["port"].as_u64()?.try_into().ok()) else { continue };
        places.extend(list(&subset["addresses"]).iter().filter_map(|address| {
            let reference = &address["targetRef"];
            let pod = reference["name"].as_str().filter(|_| reference["kind"] == "Pod")?;
            Some((address["nodeName"].as_str()?, pod, number))
        }));
    }
    places
}

async fn forward(
    call: &Call,
    backend: Backend<'_>,
    method: Method,
    prefix: &str,
    path: &str,
    body: Body,
) -> Result<Response, Status> {
    let node = backend.node;
    let stream = dial(call, &backend).await?;
    let path = if path.is_empty() { "/" } else { path };
    let uri = call.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .body(body)
        .map_err(|error| Status::bad_request(format!("invalid path {path:?}: {error}")))?;
    *request.headers_mut() = call.headers.clone();
    let upgrades = session::is_asked_for(&call.headers);
    strip(request.headers_mut(), upgrades);
    // What the client proved to this server is nobody else's business.
    request.headers_mut().remove(AUTHORIZATION);
    let host = call.uri.host().and_then(|host| HeaderValue::from_str(host).ok());
    request.headers_mut().entry(HOST).or_insert(host.unwrap_or(HeaderValue::from_static("wherry")));
    let failed = |error: &dyn std::fmt::Display| {
        Status::server_unavailable(format!("error trying to reach service: {error} (node {node})"))
    };
    let mut answer = agent::send(call, stream, request).await.map_err(|error| failed(&error))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return session::join(call, answer);
    }
    strip(answer.headers_mut(), false);
    if let Some(location) = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok())
        && location.starts_with('/')
        && let Ok(moved) = HeaderValue::from_str(&format!("{prefix}{location}"))
    {
        answer.headers_mut().insert(LOCATION, moved);
    }
    let closing = call.closing.clone().unwrap_or_default();
    let mut response = answer.map(Body::new);
    let whole = std::mem::take(response.body_mut()).into_data_stream();
    *response.body_mut() = Body::from_stream(futures::StreamExt::take_until(whole, closing.cancelled_owned()));
    Ok(response)
}

/// Takes out what is about one connection.
fn strip(headers: &mut HeaderMap, upgrades: bool) {
    for name in HOP {
        headers.remove(name);
    }
    if !upgrades {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
}

/// A connection to a Pod's port, through its agent.
async fn dial(call: &Call, backend: &Backend<'_>) -> Result<Box<dyn AsyncReadWrite>, Status> {
    let Backend { node, name, port } = *backend;
    let request = Request::builder()
        .uri(format!("/dial/{}/{name}/{port}", call.namespace()))
        .header(HOST, node)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "tcp")
        .body(Body::empty())
        .map_err(|error| agent::unreachable(node, &error))?;
    let answer = agent::ask(call, node, request).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (_, text) = agent::complaint(answer).await;
        return Err(Status::server_unavailable(format!("error trying to reach service: {text}")));
    }
    let connection = hyper::upgrade::on(answer).await.map_err(|error| agent::unreachable(node, &error))?;
    Ok(Box::new(TokioIo::new(connection)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_and_paths() {
        let id = |scheme, name, port| Some(Id { scheme, name, port });
        let table = [
            ("web", id("", "web", "")),
            ("web:80", id("", "web", "80")),
            ("https:web:", id("https", "web", "")),
            (":web:http", id("", "web", "http")),
            ("ftp:web:1", None),
            ("a:b:c:d", None),
            (":80", None),
        ];
        for (text, expected) in table {
            assert_eq!(Id::parse(text), expected, "{text}");
        }
        assert_eq!(split("/api/v1/nodes/n/proxy/a%2Fb/c/", 5), ("/api/v1/nodes/n/proxy", "/a%2Fb/c/"));
        assert_eq!(split("/api/v1/namespaces/d/pods/p:80/proxy", 7), ("/api/v1/namespaces/d/pods/p:80/proxy", ""));
    }

    #[test]
    fn a_service_leads_to_its_ready_pods() {
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}});
        let id = Id::parse("web:81").unwrap();
        assert_eq!(service_port(&service, &id).unwrap(), "admin");
        let none = service_port(&service, &Id::parse("web:9").unwrap()).unwrap_err();
        assert_eq!(none.message, "no service port 9 found for service \"web\"");
        let endpoints = json!({"subsets": [
            {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "admin", "port": 1}]},
            {
                "addresses": [{"ip": "10.0.0.2", "nodeName": "n", "targetRef": {"kind": "Pod", "name": "p"}}],
                "notReadyAddresses": [{"ip": "10.0.0.3", "nodeName": "n", "targetRef": {"kind": "Pod", "name": "q"}}],
                "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 8081}],
            },
        ]});
        assert_eq!(places(&endpoints, "admin"), [("n", "p", 8081)]);
        assert!(places(&endpoints, "other").is_empty());
    }
}
