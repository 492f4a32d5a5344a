//! Requests as plain trees.

use http::{Method, Request};
use kube::Client;
use serde_json::Value;

/// Sends a request; PATCHes are strategic merges.
pub(crate) async fn send(client: &Client, method: Method, path: &str, body: Option<&Value>) -> kube::Result<Value> {
    let content = if method == Method::PATCH { "application/strategic-merge-patch+json" } else { "application/json" };
    let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
    let request = Request::builder().method(method).uri(path).header("content-type", content).body(bytes);
    client.request(request.map_err(kube::Error::HttpError)?).await
}

/// The code with which the server refused, if it did.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
