//! The proxies: HTTP requests, any method, to a Pod or a Service's endpoints.

use axum::body::Body;
use axum::response::Response;
use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::{HeaderValue, Method, Request, StatusCode};
use serde_json::Value;
use wherry_api::status::Status;
use wherry_store::Key;

use super::target;
use crate::backends::session::{self, Client};
use crate::backends::{self, Place};
use crate::engine::Call;
use crate::layers::info::Verb;
use crate::{objects, respond};

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
        let (node, port) = (target::node(&pod, id.name)?.to_owned(), pod_port(&pod, id.port)?);
        let place = Place::Pod { node, namespace: call.namespace().to_owned(), name: id.name.to_owned(), port };
        return forward(call, &place, method, prefix, path, body).await;
    }
    let unavailable = || Status::server_unavailable(format!("no endpoints available for service {:?}", id.name));
    let name = service_port(&read(call, "services", id.name)?, &id)?;
    let mut places =
        backends::places(&backends::slices(&call.engine, call.namespace(), id.name)?, call.namespace(), &name);
    // Whoever may use a Service's proxy is not trusted to reach what this machine does.
    places.retain(|place| matches!(place, Place::Pod { .. }));
    let place = match places.as_slice() {
        [] => return Err(unavailable()),
        places => &places[rand::random_range(0..places.len())],
    };
    forward(call, place, method, prefix, path, body).await
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

async fn forward(
    call: &Call,
    place: &Place,
    method: Method,
    prefix: &str,
    path: &str,
    body: Body,
) -> Result<Response, Status> {
    let stream = backends::connect(&call.engine, place).await?;
    let path = if path.is_empty() { "/" } else { path };
    let uri = call.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .body(body)
        .map_err(|error| Status::bad_request(format!("invalid path {path:?}: {error}")))?;
    *request.headers_mut() = call.headers.clone();
    // What the client proved to this server is nobody else's business.
    request.headers_mut().remove(AUTHORIZATION);
    let host = call.uri.host().and_then(|host| HeaderValue::from_str(host).ok());
    request.headers_mut().entry(HOST).or_insert(host.unwrap_or(HeaderValue::from_static("wherry")));
    let mut response = backends::relay(&call.engine, Client::of(call), stream, request).await?;
    if let Some(location) = response.headers().get(LOCATION).and_then(|value| value.to_str().ok())
        && location.starts_with('/')
        && let Ok(moved) = HeaderValue::from_str(&format!("{prefix}{location}"))
    {
        response.headers_mut().insert(LOCATION, moved);
    }
    Ok(response)
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
    fn a_port_has_a_number_or_a_name() {
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}});
        let id = Id::parse("web:81").unwrap();
        assert_eq!(service_port(&service, &id).unwrap(), "admin");
        let none = service_port(&service, &Id::parse("web:9").unwrap()).unwrap_err();
        assert_eq!(none.message, "no service port 9 found for service \"web\"");
    }
}
