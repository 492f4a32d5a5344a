//! A request, sent on to an extension API server in the name of its user.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use wherry_api::status::Status;

use super::headers;
use super::registration::Registration;
use crate::User;
use crate::backends::session::{self, Client};
use crate::backends::{self, Place};
use crate::engine::Engine;
use crate::layers::info::RequestInfo;
use crate::nodes::AsyncReadWrite;
use crate::objects;
use crate::respond::{self, Failure};
use crate::serving::Peer;
use crate::user::MASTERS;

/// How long the head of an answer may take that is not a stream's.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who asks where this server itself wants to know.
pub(super) fn aggregator() -> User {
    User::new("system:kube-aggregator", [MASTERS])
}

/// Sends on a request and gives the answer.
pub(super) async fn run(
    engine: &Engine,
    registration: &Registration,
    info: &RequestInfo,
    request: Request,
) -> Response {
    let Some(user) = request.extensions().get::<User>().cloned() else {
        return Failure(Status::unauthorized()).into_response();
    };
    let unbounded = info.is_long_running() || session::is_asked_for(request.headers());
    let asked = send_on(engine, registration, &user, request);
    if unbounded {
        return asked.await;
    }
    let late = || Failure(Status::timeout("the extension API server did not answer within the allotted timeout"));
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| late().into_response())
}

/// Gives a server's OpenAPI document to whoever may read this server's, as upstream does.
pub(super) async fn document(engine: &Engine, registration: &Registration, request: Request) -> Response {
    send_on(engine, registration, &aggregator(), request).await
}

async fn send_on(engine: &Engine, registration: &Registration, user: &User, request: Request) -> Response {
    let unavailable = || respond::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n");
    if !registration.available {
        return unavailable();
    }
    let place = match choose(engine, registration) {
        Ok(place) => place,
        Err(why) => {
            tracing::debug!(name = registration.name(), why, "an extension API server has no place");
            return unavailable();
        }
    };
    let failed = |code: StatusCode, why: String| respond::text(code, format!("{why}\n"));
    let stream = match connect(engine, registration, &place).await {
        Ok(stream) => stream,
        Err(why) => return failed(StatusCode::SERVICE_UNAVAILABLE, why),
    };
    let (mut parts, body) = request.into_parts();
    let client = Client::from(&parts.extensions);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri: Uri = match path.parse() {
        Ok(uri) => uri,
        Err(error) => return failed(StatusCode::BAD_REQUEST, format!("invalid path {path:?}: {error}")),
    };
    forwarded(&mut parts.headers, parts.extensions.get::<Peer>());
    if let Err(why) = headers::introduce(&mut parts.headers, user) {
        return failed(StatusCode::INTERNAL_SERVER_ERROR, why);
    }
    let host = HeaderValue::from_str(&registration.host());
    let mut outgoing = http::Request::new(body);
    (*outgoing.method_mut(), *outgoing.uri_mut(), *outgoing.headers_mut()) = (parts.method, uri, parts.headers);
    outgoing.headers_mut().insert(HOST, host.unwrap_or(HeaderValue::from_static("localhost")));
    match backends::relay(engine, client, stream, outgoing).await {
        Ok(response) => response,
        Err(status) => failed(StatusCode::SERVICE_UNAVAILABLE, status.message),
    }
}

/// One of the places where the server is.
fn choose(engine: &Engine, registration: &Registration) -> Result<Place, String> {
    let mut places = places(engine, registration)?;
    if places.is_empty() {
        return Err(format!("no endpoints available for service {:?}", registration.service));
    }
    Ok(places.swap_remove(rand::random_range(0..places.len())))
}

/// All of them.
pub(super) fn places(engine: &Engine, registration: &Registration) -> Result<Vec<Place>, String> {
    let Registration { namespace, service: name, port, .. } = registration;
    let service = engine.lookup(backends::SERVICES, namespace, name);
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    let service = objects::stored_tree(&service).map_err(|status| status.message)?;
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        let host = spec["externalName"].as_str().unwrap_or_default().to_owned();
        return Ok(vec![Place::Outside { host, port: *port }]);
    }
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let known = ports.iter().find(|known| known["port"] == *port);
    let known = known.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let slices = backends::slices(engine, namespace, name).map_err(|status| status.message)?;
    Ok(backends::places(&slices, namespace, known["name"].as_str().unwrap_or_default()))
}

/// A connection to a server, which has proven that it is the one.
pub(super) async fn connect(
    engine: &Engine,
    registration: &Registration,
    place: &Place,
) -> Result<Box<dyn AsyncReadWrite>, String> {
    let tls = registration.tls(engine.aggregator.front_proxy.as_ref())?;
    let name = ServerName::try_from(registration.host()).map_err(|error| error.to_string())?;
    let stream = backends::connect(engine, place).await.map_err(|status| status.message)?;
    match TlsConnector::from(tls).connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(format!("error trying to reach service: tls: {error} ({place})")),
    }
}

/// Drops what is this server's business alone, and adds where the request came from.
fn forwarded(headers: &mut HeaderMap, peer: Option<&Peer>) {
    headers.remove(AUTHORIZATION);
    if let Some(address) = peer.and_then(|peer| peer.address)
        && let Ok(address) = HeaderValue::from_str(&address.to_string())
    {
        headers.append(HeaderName::from_static("x-forwarded-for"), address);
    }
}

/// A GET of this server's own, answered in whole.
pub(super) fn question(path: &str, registration: &Registration) -> Result<http::Request<Body>, String> {
    let mut request = http::Request::builder()
        .uri(path)
        .header(HOST, registration.host())
        .header(http::header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    headers::introduce(request.headers_mut(), &aggregator())?;
    Ok(request)
}
