//! A WebSocket as a transport: channels in messages, or a tunnel for the bytes of another protocol.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{Sink as _, SinkExt as _, Stream as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::channels::{Protocol, Said};
use super::pipe::{CHUNK, Feeder, Out};
use super::{PULSE, linger};

/// The longest message that is read.
pub(super) const MESSAGE: usize = 4 << 20;

/// Serves a WebSocket until the client has gone, or until everyone who sends has and all is sent. `feeders` are the channels that
/// may be written to; bytes for others are dropped.
pub(super) async fn serve(
    socket: WebSocket,
    protocol: Protocol,
    feeders: Vec<Option<Feeder>>,
    queue: mpsc::Receiver<Out>,
) -> io::Result<()> {
    let (mut write, mut read) = socket.split();
    tokio::select! {
        read = receive(&mut read, protocol, feeders) => return read,
        sent = send(&mut write, protocol, queue) => sent?,
    }
    linger(async { while let Some(Ok(_)) = read.next().await {} }).await;
    Ok(())
}

async fn receive(
    read: &mut SplitStream<WebSocket>,
    protocol: Protocol,
    mut feeders: Vec<Option<Feeder>>,
) -> io::Result<()> {
    let place = |channel| usize::try_from(channel).unwrap_or(usize::MAX);
    while let Some(message) = read.next().await {
        let Some(bytes) = payload(message.map_err(io::Error::other)?) else { continue };
        match protocol.read(bytes).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))? {
            Some(Said::Data(channel, bytes)) => {
                if let Some(Some(feeder)) = feeders.get(place(channel)) {
                    feeder.feed(bytes).await;
                }
            }
            Some(Said::End(channel)) => {
                if let Some(feeder) = feeders.get_mut(place(channel)) {
                    *feeder = None;
                }
            }
            None => {}
        }
    }
    Ok(())
}

/// What a message carries; none for those of the protocol itself.
fn payload(message: Message) -> Option<Bytes> {
    match message {
        Message::Binary(bytes) => Some(bytes),
        Message::Text(text) => Some(text.into()),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => None,
    }
}

async fn send(
    write: &mut SplitSink<WebSocket, Message>,
    protocol: Protocol,
    mut queue: mpsc::Receiver<Out>,
) -> io::Result<()> {
    loop {
        let message = match tokio::time::timeout(PULSE, queue.recv()).await {
            Ok(Some(Out::Data(channel, bytes))) => {
                let message = protocol.write(channel, &bytes);
                match Utf8Bytes::try_from(message.clone()) {
                    Ok(text) if protocol.is_text() => Message::Text(text),
                    _ => Message::Binary(message),
                }
            }
            // A channel's end is the socket's.
            Ok(Some(Out::End(_) | Out::Frame(_))) => continue,
            Ok(None) => break,
            Err(_) => Message::Ping(Bytes::new()),
        };
        write.send(message).await.map_err(io::Error::other)?;
    }
    let close = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
    write.send(Message::Close(Some(close))).await.map_err(io::Error::other)
}

/// The bytes of another protocol, in binary messages cut anywhere.
pub(super) struct Tunnel {
    socket: WebSocket,
    rest: Bytes,
    closed: bool,
}

impl Tunnel {
    pub(super) fn new(socket: WebSocket) -> Self {
        Self { socket, rest: Bytes::new(), closed: false }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(message) => self.rest = payload(message.map_err(io::Error::other)?).unwrap_or_default(),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut socket = Pin::new(&mut self.socket);
        ready!(socket.as_mut().poll_ready(cx)).map_err(io::Error::other)?;
        let part = &bytes[..bytes.len().min(2 * CHUNK)];
        socket.start_send(Message::Binary(Bytes::copy_from_slice(part))).map_err(io::Error::other)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            let mut socket = Pin::new(&mut self.socket);
            ready!(socket.as_mut().poll_ready(cx)).map_err(io::Error::other)?;
            let close = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
            socket.start_send(Message::Close(Some(close))).map_err(io::Error::other)?;
            self.closed = true;
        }
        self.poll_flush(cx)
    }
}
