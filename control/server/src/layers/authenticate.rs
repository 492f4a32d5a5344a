//! Who asks: in-process callers are known, then client certificates, then bearer tokens.
//!
//! A request without any of these is anonymous, which suffices for [`PUBLIC`] paths and nothing else. A token that
//! nobody accepts is 401 even there: a client that shows credentials wants to know that they are bad.

use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use wherry_api::status::Status;

use crate::User;
use crate::respond::Failure;
use crate::serving::Peer;

/// Paths (and what lies below them) that answer without an identity.
pub const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

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
        match authenticate(&tokens, peer, request.headers(), request.uri().path()).await {
            Ok(user) => request.extensions_mut().insert(user),
            Err(status) => return Failure(status).into_response(),
        };
    }
    next.run(request).await
}

async fn authenticate(
    tokens: &Authenticators,
    peer: Option<User>,
    headers: &HeaderMap,
    path: &str,
) -> Result<User, Status> {
    if let Some(user) = peer {
        return Ok(user);
    }
    if let Some(token) = bearer(headers) {
        return match tokens.token(token, &[]).await {
            Ok((user, _)) => Ok(user),
            Err(why) => {
                tracing::debug!(%why, "unable to authenticate the request");
                Err(Status::unauthorized())
            }
        };
    }
    let public =
        PUBLIC.iter().any(|p| path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if public { Ok(User::anonymous()) } else { Err(Status::unauthorized()) }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}
