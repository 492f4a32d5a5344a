//! Clients in the same process: over the router itself, without socket, TLS or certificate.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use tower::{Service as _, ServiceExt as _};

use crate::User;

/// A client that is `user`.
pub(crate) fn client(router: Router, user: User) -> kube::Client {
    let user = Arc::new(user);
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let mut router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(User::clone(&user));
        async move { router.as_service().ready().await?.call(request).await }
    });
    kube::Client::new(service, "default")
}
