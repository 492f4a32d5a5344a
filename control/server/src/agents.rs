//! Requests to the nodes' agents, over whatever way leads there.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use wherry_api::status::Status;

use crate::engine::Engine;

/// Sends a request to the agent of a node; its connection lives as long as the answer is read.
pub(crate) async fn send(
    engine: &Engine,
    node: &str,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, Status> {
    let (method, path) = (request.method().clone(), request.uri().to_string());
    let failed = |error: &dyn std::fmt::Display| {
        let verb = method.as_str();
        let verb = format!("{}{}", &verb[..1], verb[1..].to_lowercase());
        Status::internal(format!("{verb} \"https://{node}{path}\": {error}"))
    };
    let stream = engine.nodes.connect(node).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    engine.tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to an agent ended");
        }
    });
    let host = http::HeaderValue::from_str(node).map_err(|error| failed(&error))?;
    request.headers_mut().insert(http::header::HOST, host);
    sender.send_request(request).await.map_err(|error| failed(&error))
}

/// A document of an agent, within `limit` bytes and `time`.
pub(crate) async fn document(
    engine: &Engine,
    node: &str,
    path: &str,
    limit: usize,
    time: Duration,
) -> Result<Bytes, Status> {
    let asked = async {
        let request = Request::builder().method(Method::GET).uri(path).body(Body::empty()).map_err(Status::internal)?;
        let response = send(engine, node, request).await?;
        if response.status() != StatusCode::OK {
            return Err(Status::internal(format!("node {node:?} answered {} for {path}", response.status())));
        }
        let body = Limited::new(response.into_body(), limit).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(Status::internal)
    };
    tokio::time::timeout(time, asked)
        .await
        .unwrap_or_else(|_| Err(Status::timeout(format!("node {node:?} did not answer in time"))))
}
