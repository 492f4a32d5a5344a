//! How a session begins: which protocol, and the switch to it.

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

use super::Sessions;
use super::channels::Protocol;
use super::websocket::MESSAGE;

/// By which a client of SPDY names the protocols it knows, and a server the one it takes.
const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Those that the server knows, told with a refusal.
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";

/// What a kind of session can be carried by.
pub(super) struct Offer {
    /// Channels of a WebSocket.
    pub(super) channels: &'static [Protocol],
    /// SPDY in a WebSocket.
    pub(super) tunnel: &'static [&'static str],
    /// SPDY.
    pub(super) spdy: &'static [&'static str],
}

/// Why there is no session, for people.
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    /// The versions that would do.
    accepted: &'static [&'static str],
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), accepted: &[] }
    }

    pub(super) fn upgrade_required() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "Upgrade request required")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.message).into_response();
        for known in self.accepted {
            response.headers_mut().append(ACCEPTED, HeaderValue::from_static(known));
        }
        response
    }
}

/// What was agreed on.
pub(super) enum Agreed {
    /// Channels of a WebSocket.
    Channels(WebSocketUpgrade, Protocol),
    /// SPDY in a WebSocket.
    Tunnel(WebSocketUpgrade),
    /// SPDY, with the version of what is spoken in it.
    Spdy(OnUpgrade, &'static str),
}

/// The transport, once the connection is there.
pub(super) enum Transport {
    Channels(WebSocket, Protocol),
    Tunnel(WebSocket),
    Spdy(TokioIo<Upgraded>, &'static str),
}

impl Offer {
    /// Finds what both ends know, or the refusal.
    pub(super) async fn agree<B>(&self, request: Request<B>) -> Result<Agreed, Refusal> {
        let (mut parts, _) = request.into_parts();
        if !asks_to_upgrade(&parts.headers) {
            return Err(Refusal::upgrade_required());
        }
        let wanted = parts.headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !wanted.eq_ignore_ascii_case("websocket") {
            let version = self.version(&parts.headers, wanted)?;
            let upgrade = parts.extensions.remove::<OnUpgrade>();
            return upgrade.map(|upgrade| Agreed::Spdy(upgrade, version)).ok_or_else(|| {
                Refusal::new(StatusCode::BAD_REQUEST, "unable to upgrade: this connection cannot be taken over")
            });
        }
        let asked = values(&parts.headers, &SEC_WEBSOCKET_PROTOCOL);
        let mut upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
            .await
            .map_err(|refusal| Refusal::new(refusal.status(), refusal.body_text()))?
            .max_message_size(MESSAGE)
            .max_frame_size(MESSAGE);
        let agreed = asked.iter().chain(asked.is_empty().then_some(&String::new())).find_map(|name| {
            let channels =
                self.channels.iter().find(|known| known.name == name).map(|known| (known.name, Some(*known)));
            channels.or_else(|| self.tunnel.iter().find(|known| *known == name).map(|known| (*known, None)))
        });
        let Some((name, channels)) = agreed else {
            let known: Vec<_> =
                self.channels.iter().map(|known| known.name).chain(self.tunnel.iter().copied()).collect();
            let message = format!(
                "requested protocol(s) are not supported: [{}]; supports [{}]",
                asked.join(" "),
                known.join(" ")
            );
            return Err(Refusal::new(StatusCode::FORBIDDEN, message));
        };
        if !name.is_empty() {
            upgrade.set_selected_protocol(HeaderValue::from_static(name));
        }
        Ok(match channels {
            Some(protocol) => Agreed::Channels(upgrade, protocol),
            None => Agreed::Tunnel(upgrade),
        })
    }

    fn version(&self, headers: &HeaderMap, upgrade: &str) -> Result<&'static str, Refusal> {
        let refuse = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
        if !upgrade.eq_ignore_ascii_case(SPDY) {
            return Err(refuse(format!(
                "unable to upgrade: missing upgrade headers in request: {upgrade:?} is not {SPDY}"
            )));
        }
        let asked = values(headers, &VERSION);
        if asked.is_empty() {
            return Err(refuse(format!("unable to upgrade: header {VERSION} names no protocol")));
        }
        let found = asked.iter().find_map(|asked| self.spdy.iter().find(|known| *known == asked));
        found.copied().ok_or_else(|| {
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                asked.join(" "),
                self.spdy.join(" ")
            );
            Refusal { accepted: self.spdy, ..Refusal::new(StatusCode::FORBIDDEN, message) }
        })
    }
}

/// Whether `Connection` says so.
pub(super) fn asks_to_upgrade(headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    options.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

/// The values of a header that is a list.
fn values(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|value| value.trim().to_owned()).filter(|v| !v.is_empty()).collect()
}

impl Agreed {
    /// Answers, and lets the session run once the connection is there.
    pub(super) fn begin<F>(self, sessions: &Sessions, session: impl FnOnce(Transport) -> F + Send + 'static) -> Response
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        match self {
            Self::Channels(upgrade, protocol) => {
                let (socket, task) = later(sessions, session);
                upgrade.on_upgrade(move |connection| async move {
                    // An error is an agent that has ended.
                    let _ended = socket.send(Transport::Channels(connection, protocol));
                    task.await;
                })
            }
            Self::Tunnel(upgrade) => {
                let (socket, task) = later(sessions, session);
                upgrade.on_upgrade(move |connection| async move {
                    let _ended = socket.send(Transport::Tunnel(connection));
                    task.await;
                })
            }
            Self::Spdy(upgrade, version) => {
                tokio::spawn(sessions.run(async move {
                    let connection = upgrade.await.map_err(std::io::Error::other)?;
                    session(Transport::Spdy(TokioIo::new(connection), version)).await
                }));
                switch(SPDY, [(VERSION, HeaderValue::from_static(version))])
            }
        }
    }
}

/// A session that waits for its connection.
fn later<F>(
    sessions: &Sessions,
    session: impl FnOnce(Transport) -> F + Send + 'static,
) -> (tokio::sync::oneshot::Sender<Transport>, impl Future<Output = ()> + Send + 'static)
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let task = sessions.run(async move { session(receiver.await.map_err(std::io::Error::other)?).await });
    (sender, task)
}

/// 101.
pub(super) fn switch<const N: usize>(to: &'static str, headers: [(HeaderName, HeaderValue); N]) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response.headers_mut().extend(headers);
    response
}
