//! A panic in a handler is that request's failure, not the connection's.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt as _;
use wherry_api::status::Status;

use crate::respond;

/// Turns a panic into a 500 Status.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // What the handler may have left half done is reachable by nobody: shared state is behind the store's commit.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(%method, path, panic = text, "a request handler panicked");
            respond::failure(&Status::internal("the request handler failed; the server's log says more"))
        }
    }
}
