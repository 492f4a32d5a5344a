//! A request, sent on to who answers it.

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt as _;
use http::header::{CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Request, StatusCode, Version};
use wherry_api::status::Status;

use super::session::Client;
use super::{agent, session};
use crate::engine::Engine;
use crate::nodes::AsyncReadWrite;

/// Headers that are about one connection; `Upgrade` is one, too, unless it is asked for.
const HOP: [HeaderName; 6] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authenticate"),
    HeaderName::from_static("proxy-authorization"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

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

/// Sends a request and gives the answer, whose body goes on until the client's server ends; where it switches protocols, both
/// ends are joined.
pub(crate) async fn relay(
    engine: &Engine,
    client: Client,
    stream: impl AsyncReadWrite + 'static,
    mut request: Request<Body>,
) -> Result<Response, Status> {
    let upgrades = session::is_asked_for(request.headers());
    strip(request.headers_mut(), upgrades);
    let mut answer = agent::send(engine, stream, request)
        .await
        .map_err(|error| Status::server_unavailable(format!("error trying to reach service: {error}")))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return session::join(engine, client, answer);
    }
    strip(answer.headers_mut(), false);
    // How the answer comes is another connection's business.
    *answer.version_mut() = Version::default();
    let mut response = answer.map(Body::new);
    let whole = std::mem::take(response.body_mut()).into_data_stream();
    *response.body_mut() = Body::from_stream(whole.take_until(client.closing.cancelled_owned()));
    Ok(response)
}
