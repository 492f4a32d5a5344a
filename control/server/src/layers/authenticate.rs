//! Who asks: in-process callers are known, then client certificates, then bearer tokens (in the header, or for browsers'
//! WebSockets, which cannot set one, as a subprotocol). A token goes no further than here.
//!
//! A request without any of these is anonymous, which suffices for [`PUBLIC`] paths and nothing else. A token that
//! nobody accepts is 401 even there: a client that shows credentials wants to know that they are bad.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue};
use wherry_api::status::Status;

use crate::User;
use crate::respond::Failure;
use crate::serving::Peer;

/// Paths (and what lies below them) that answer without an identity.
pub const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// What stands before a token that is a subprotocol.
const SUBPROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Recognises bearer tokens.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// The user behind `token`, which must be good for one of `audiences`; `None` if the token is not of this
    /// authenticator's kind, an error if it is and is not good.
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<Authenticated>, Refused>;
}

/// The outcome of authentication by token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Whose token it is.
    pub user: User,
    /// For which of the asked audiences it is good; `None` where the kind of token knows no audiences: then for this API server.
    pub audiences: Option<Vec<String>>,
}

/// Why a token is not accepted. The owner of the token is not told, but whoever reviews it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// The token authenticators, asked in order, and the audiences that mean this API server.
pub(crate) struct Authenticators {
    list: Vec<Arc<dyn TokenAuthenticator>>,
    audiences: Arc<[String]>,
}

impl Authenticators {
    pub(crate) fn new(list: Vec<Arc<dyn TokenAuthenticator>>, audiences: Arc<[String]>) -> Self {
        Self { list, audiences }
    }

    /// Whose `token` is, and for which of `audiences` (of this server's own, if empty) it is good.
    pub(crate) async fn token(&self, token: &str, audiences: &[String]) -> Result<(User, Vec<String>), Refused> {
        let audiences = if audiences.is_empty() { &self.audiences } else { audiences };
        let mut refused: Vec<String> = Vec::new();
        for authenticator in &self.list {
            match authenticator.authenticate(token, audiences).await {
                Ok(Some(found)) => {
                    let good_for = found.audiences.unwrap_or_else(|| intersection(&self.audiences, audiences));
                    if !good_for.is_empty() {
                        return Ok((found.user, good_for));
                    }
                }
                Ok(None) => {}
                Err(Refused(why)) => refused.push(why),
            }
        }
        Err(Refused(match refused.len() {
            0 => "invalid bearer token".to_owned(),
            1 => refused.remove(0),
            _ => format!("[{}]", refused.join(", ")),
        }))
    }
}

/// What of `these` is also in `those`.
pub(crate) fn intersection(these: &[String], those: &[String]) -> Vec<String> {
    these.iter().filter(|one| those.contains(one)).cloned().collect()
}

/// Puts a [`User`] into the request's extensions, or answers 401.
pub(crate) async fn layer(State(tokens): State<Arc<Authenticators>>, mut request: Request, next: Next) -> Response {
    // Extensions cannot come over the wire: a User that is here already was put here by `Server::client`.
    if request.extensions().get::<User>().is_none() {
        let peer = request.extensions().get::<Peer>().and_then(|p| p.user.clone());
        let token = bearer(request.headers_mut());
        match authenticate(&tokens, peer, token, request.uri().path()).await {
            Ok(user) => request.extensions_mut().insert(user),
            Err(status) => return Failure(status).into_response(),
        };
    }
    next.run(request).await
}

async fn authenticate(
    tokens: &Authenticators,
    peer: Option<User>,
    token: Result<Option<String>, Refused>,
    path: &str,
) -> Result<User, Status> {
    if let Some(user) = peer {
        return Ok(user);
    }
    let found = match token {
        Ok(None) => None,
        Ok(Some(token)) => Some(tokens.token(&token, &[]).await),
        Err(why) => Some(Err(why)),
    };
    match found {
        Some(Ok((user, _))) => return Ok(user),
        Some(Err(why)) => {
            tracing::debug!(%why, "unable to authenticate the request");
            return Err(Status::unauthorized());
        }
        None => {}
    }
    let public =
        PUBLIC.iter().any(|p| path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if public { Ok(User::anonymous()) } else { Err(Status::unauthorized()) }
}

/// The token of the request, taken out of it.
fn bearer(headers: &mut HeaderMap) -> Result<Option<String>, Refused> {
    let given = headers.remove(AUTHORIZATION);
    let given = given.as_ref().and_then(|value| value.to_str().ok()?.split_once(' '));
    let token = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    match token.filter(|token| !token.is_empty()) {
        Some(token) => Ok(Some(token.to_owned())),
        None => subprotocol(headers),
    }
}

/// A token among the subprotocols that a WebSocket offers; the others are left, of which there must be one to choose.
fn subprotocol(headers: &mut HeaderMap) -> Result<Option<String>, Refused> {
    if !headers.contains_key(UPGRADE) {
        return Ok(None);
    }
    let offered: Vec<String> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|protocol| protocol.trim().to_owned()))
        .collect();
    let (tokens, others): (Vec<_>, Vec<_>) = offered.iter().partition(|protocol| protocol.starts_with(SUBPROTOCOL));
    let refused = |why: &str| Err(Refused(why.to_owned()));
    match (&tokens[..], others.is_empty()) {
        ([], _) => return Ok(None),
        ([_], true) => return refused("missing additional subprotocol"),
        ([_], false) => {}
        _ => return refused("multiple base64.bearer.authorization tokens specified"),
    }
    let encoded = tokens[0].trim_start_matches(SUBPROTOCOL);
    let decoded = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let rest = others.iter().map(|protocol| protocol.as_str()).collect::<Vec<_>>().join(",");
    match (decoded, HeaderValue::from_str(&rest)) {
        (Some(token), Ok(rest)) => {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
            Ok(Some(token))
        }
        _ => refused("invalid base64.bearer.authorization token encoding"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(given: &[(&'static str, &str)]) -> (Result<Option<String>, Refused>, HeaderMap) {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, value.parse().unwrap());
        }
        let token = bearer(&mut headers);
        (token, headers)
    }

    #[test]
    fn a_token_is_taken_out_of_the_request() {
        for (value, expected) in
            [("Bearer t", Some("t")), ("bearer  t ", Some("t")), ("Basic t", None), ("Bearer ", None), ("t", None)]
        {
            let (token, headers) = read(&[("authorization", value)]);
            assert_eq!(token.unwrap().as_deref(), expected, "{value}");
            assert!(headers.get(AUTHORIZATION).is_none());
        }
    }

    #[test]
    fn a_websocket_brings_it_as_a_subprotocol() {
        let offer = |protocols: &str| read(&[("upgrade", "websocket"), ("sec-websocket-protocol", protocols)]);
        let token = format!("{SUBPROTOCOL}{}", URL_SAFE_NO_PAD.encode("secret"));
        let (found, headers) = offer(&format!("v5.channel.k8s.io, {token}"));
        assert_eq!(found.unwrap().as_deref(), Some("secret"));
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        assert_eq!(offer("v5.channel.k8s.io").0.unwrap(), None);
        assert!(offer(&token).0.is_err(), "nothing is left to choose");
        assert!(offer(&format!("a,{token},{token}")).0.is_err());
        assert!(offer(&format!("a,{SUBPROTOCOL}!")).0.is_err());
        assert_eq!(read(&[("sec-websocket-protocol", &format!("a,{token}"))]).0.unwrap(), None, "no WebSocket");
    }
}
