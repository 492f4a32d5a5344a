//! What connects a client with something on a node: pods/exec, attach and portforward, and the proxies of Pods and Services.
//!
//! The server finds where to and whether one may, and then passes bytes: what is said is the client's and the agent's business.

mod proxy;
mod streams;
mod target;

use axum::body::Body;
use axum::response::Response;
use wherry_api::status::Status;

use crate::engine::Call;

/// Connects the client of `call`.
pub(super) async fn run(call: &Call, subresource: &str, body: Body) -> Result<Response, Status> {
    if call.query().get("dryRun").is_some() {
        return Err(Status::bad_request("dryRun is not supported"));
    }
    match subresource {
        "proxy" => proxy::run(call, body).await,
        _ => streams::run(call, subresource).await,
    }
}
