//! A log over a WebSocket, for browsers: upstream's wsstream.Reader, which sends an empty message first and closes at the end.

use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, Stream, StreamExt as _};
use http::HeaderMap;
use http::header::UPGRADE;
use tokio_util::sync::CancellationToken;
use wherry_api::status::Status;

use crate::backends::session::Session;
use crate::engine::Call;

/// Text of base64, for clients that cannot take bytes.
const BASE64: &str = "base64.binary.k8s.io";
/// The subprotocols; a client that asks for none gets bytes.
const PROTOCOLS: [&str; 2] = ["binary.k8s.io", BASE64];
/// The client has nothing to say: what it sends is small.
const MESSAGE: usize = 64 << 10;
/// How long a client may take to close its end after the log's.
const LINGER: Duration = Duration::from_secs(5);

/// Whether the client asks for a WebSocket.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Switches to a WebSocket and sends what `log` brings, until it ends, the client goes or the server closes.
pub(super) async fn answer(
    call: &Call,
    log: impl Stream<Item = Result<Bytes, axum::Error>> + Send + 'static,
    closing: CancellationToken,
) -> Result<Response, Status> {
    let upgrade = call.upgrade.clone().ok_or_else(|| Status::bad_request("Upgrade request required"))?;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.headers.clone_from(&call.headers);
    parts.extensions.insert(upgrade.connection);
    let socket = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|refused| Status::bad_request(refused.body_text()))?;
    let socket = socket.max_message_size(MESSAGE).max_frame_size(MESSAGE).protocols(PROTOCOLS);
    let encoded = socket.selected_protocol().is_some_and(|protocol| protocol == BASE64);
    let session = Session::default();
    let held = (session.clone(), upgrade.held);
    let tasks = call.engine.tasks.clone();
    let mut response = socket.on_upgrade(move |socket| {
        tasks.track_future(async move {
            if let Some(Err(error)) = closing.run_until_cancelled(send(socket, log, encoded)).await {
                tracing::debug!(%error, "a log's WebSocket ended");
            }
            drop(held);
        })
    });
    response.extensions_mut().insert(session);
    Ok(response.into_response())
}

async fn send(
    socket: WebSocket,
    log: impl Stream<Item = Result<Bytes, axum::Error>>,
    encoded: bool,
) -> Result<(), axum::Error> {
    let (mut write, mut read) = socket.split();
    let message = |bytes: Bytes| {
        if encoded { Message::text(BASE64_STANDARD.encode(bytes)) } else { Message::binary(bytes) }
    };
    let sent = async {
        write.send(message(Bytes::new())).await?;
        let mut log = std::pin::pin!(log);
        while let Some(bytes) = log.next().await.transpose()? {
            write.send(message(bytes)).await?;
        }
        write.send(Message::Close(None)).await
    };
    // What the client says is nobody's; its end is the log's, too.
    let mut gone = std::pin::pin!(async { while let Some(Ok(_)) = read.next().await {} });
    tokio::select! {
        sent = sent => sent?,
        () = &mut gone => return Ok(()),
    }
    // It closes its end, or what it was sent last might be lost.
    let _closed = tokio::time::timeout(LINGER, gone).await;
    Ok(())
}
