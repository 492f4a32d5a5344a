//! Requests to the agent of a node.

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use wherry_api::status::Status;

use crate::engine::Engine;
use crate::nodes::AsyncReadWrite;

/// How much of a complaint is read.
const COMPLAINT: usize = 64 << 10;

/// Sends a request to the agent of `node`. Its connection lives as long as the answer is read, or what it was upgraded to.
pub(crate) async fn ask(engine: &Engine, node: &str, request: Request<Body>) -> Result<Response<Incoming>, Status> {
    let stream = engine.nodes.connect(node).await.map_err(|error| unreachable(node, &error))?;
    send(engine, stream, request).await.map_err(|error| unreachable(node, &error))
}

/// Sends a request over a connection of its own.
pub(crate) async fn send(
    engine: &Engine,
    stream: impl AsyncReadWrite + 'static,
    request: Request<Body>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    engine.tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection to a backend ended");
        }
    });
    sender.send_request(request).await
}

pub(crate) fn unreachable(node: &str, error: &dyn std::fmt::Display) -> Status {
    Status::internal(format!("error dialing backend: node {node}: {error}"))
}

/// The agent's words.
pub(crate) async fn complaint(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = Limited::new(response.into_body(), COMPLAINT).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    (status, text)
}
