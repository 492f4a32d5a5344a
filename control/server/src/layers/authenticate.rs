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
    /// The user behind `token`; `None` if the token is not of this authenticator's kind or not valid.
    async fn authenticate(&self, token: &str) -> Result<Option<User>, Status>;
}

/// The token authenticators, asked in order.
pub(crate) type Tokens = Arc<[Arc<dyn TokenAuthenticator>]>;

/// Puts a [`User`] into the request's extensions, or answers 401.
pub(crate) async fn layer(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Response {
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

async fn authenticate(tokens: &Tokens, peer: Option<User>, headers: &HeaderMap, path: &str) -> Result<User, Status> {
    if let Some(user) = peer {
        return Ok(user);
    }
    if let Some(token) = bearer(headers) {
        for authenticator in tokens.iter() {
            if let Some(user) = authenticator.authenticate(token).await? {
                return Ok(user);
            }
        }
        return Err(Status::unauthorized());
    }
    let public =
        PUBLIC.iter().any(|p| path.strip_prefix(p).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    if public { Ok(User::anonymous()) } else { Err(Status::unauthorized()) }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}
