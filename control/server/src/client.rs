//! Clients in the same process: over the router itself, without socket, TLS or certificate.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::HeaderValue;
use http::header::USER_AGENT;
use tower::{Service as _, ServiceExt as _};

use crate::User;

/// A client that is `user`.
pub(crate) fn client(router: Router, user: User) -> kube::Client {
    let agent = HeaderValue::from_str(&agent(&user)).unwrap_or(HeaderValue::from_static("wherry"));
    let user = Arc::new(user);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let mut router = router.clone();
        let mut request = request.map(Body::new);
        request.headers_mut().entry(USER_AGENT).or_insert_with(|| agent.clone());
        request.extensions_mut().insert(User::clone(&user));
        async move { router.as_service().ready().await?.call(request).await }
    });
    kube::Client::new(service, "default")
}

/// The program that the user is elsewhere: who manages what it writes.
fn agent(user: &User) -> String {
    match user.name.strip_prefix("system:") {
        Some(node) if node.starts_with("node:") => "kubelet".to_owned(),
        Some(component) => component.to_owned(),
        None => "wherry".to_owned(),
    }
}
