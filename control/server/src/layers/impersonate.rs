//! Acting as somebody else: `kubectl --as`, for those who may impersonate.
//!
//! Runs after authentication and before authorization: each identity asked for (user, groups) is a question of its own
//! to the authorizer (verb `impersonate`); what is then done is authorized as the impersonated user.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use wherry_api::status::Status;

use super::authorize::{Attributes, Authorizer, Decision, forbidden};
use crate::User;
use crate::respond::Failure;
use crate::user::{AUTHENTICATED, UNAUTHENTICATED};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Replaces the request's user by the one it asks to act as, or refuses.
pub(crate) async fn layer(State(authorizer): State<Arc<dyn Authorizer>>, mut request: Request, next: Next) -> Response {
    let asks =
        |name: &http::HeaderName| [USER, GROUP, UID].contains(&name.as_str()) || name.as_str().starts_with(EXTRA);
    if request.headers().keys().any(asks) {
        let Some(user) = request.extensions().get::<User>() else {
            return Failure(Status::unauthorized()).into_response();
        };
        match impersonated(authorizer.as_ref(), user, request.headers()) {
            Ok(user) => request.extensions_mut().insert(user),
            Err(status) => return Failure(status).into_response(),
        };
    }
    next.run(request).await
}

fn impersonated(authorizer: &dyn Authorizer, user: &User, headers: &HeaderMap) -> Result<User, Status> {
    let values = |key: &str| -> Vec<&str> { headers.get_all(key).iter().filter_map(|v| v.to_str().ok()).collect() };
    let name = values(USER).first().copied().unwrap_or_default();
    if name.is_empty() {
        return Err(Status::bad_request("requested impersonation of groups or a uid without impersonating a user"));
    }
    if headers.contains_key(UID) || headers.keys().any(|k| k.as_str().starts_with(EXTRA)) {
        return Err(Status::bad_request("impersonation of a uid or of extra attributes is not supported"));
    }
    let may = |resource: &str, namespace: &str, name: &str| {
        let attributes =
            Attributes { is_resource: true, verb: "impersonate", resource, namespace, name, ..Attributes::default() };
        match authorizer.authorize(user, &attributes) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } => Err(forbidden(user, &attributes, &reason)),
            Decision::NoOpinion => Err(forbidden(user, &attributes, "")),
        }
    };
    let mut groups: Vec<String> = values(GROUP).into_iter().map(str::to_owned).collect();
    match name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => {
            may("serviceaccounts", namespace, account)?;
            if groups.is_empty() {
                groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            }
        }
        None => may("users", "", name)?,
    }
    for group in values(GROUP) {
        may("groups", "", group)?;
    }
    let anonymous = name == "system:anonymous";
    let implied = if anonymous { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|g| g == implied) {
        groups.push(implied.to_owned());
    }
    Ok(User { name: name.to_owned(), groups, ..User::default() })
}
