//! A container's (or a command's) standard streams: two bounded buffers between its guests and whoever gets their output, and
//! what its guest reads.
//!
//! A guest writes into the buffer while there is room and waits when there is none; one pump task a container hands
//! over all that has gathered in one piece, so that many small prints become few writes. All instances of a served container
//! share the buffers; each may overshoot by what it was last permitted, no more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{AsyncStdinStream, IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamResult};
use wherry_runtime::{Output, Stream};

/// What one stream holds before its writers wait.
const ROOM: usize = 64 << 10;

/// A container's two output streams.
pub(crate) struct Stdio {
    buffers: Mutex<Buffers>,
    /// There is something to hand over, or the end has come.
    filled: Notify,
    /// There is room again.
    emptied: Notify,
    /// Whether they are one terminal.
    terminal: bool,
    /// What the guest reads, until it is there to take it.
    stdin: Mutex<Option<Readable>>,
}

/// What a guest can read.
pub(crate) type Readable = Box<dyn AsyncRead + Send + Sync + Unpin>;

#[derive(Default)]
struct Buffers {
    stdout: BytesMut,
    stderr: BytesMut,
    closed: bool,
}

impl Buffers {
    fn of(&mut self, stream: Stream) -> &mut BytesMut {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl Stdio {
    pub(crate) fn new() -> Arc<Self> {
        Self::with(None, false)
    }

    /// The same with something to read, and perhaps a terminal.
    pub(crate) fn with(stdin: Option<Readable>, terminal: bool) -> Arc<Self> {
        Arc::new(Self {
            buffers: Mutex::default(),
            filled: Notify::new(),
            emptied: Notify::new(),
            terminal,
            stdin: Mutex::new(stdin),
        })
    }

    /// Bytes that wait for the log.
    pub(crate) fn held(&self) -> u64 {
        let buffers = self.buffers.lock();
        (buffers.stdout.len() + buffers.stderr.len()) as u64
    }

    /// The guest's end of a stream. A terminal has one for both.
    pub(crate) fn pipe(self: &Arc<Self>, stream: Stream) -> Pipe {
        Pipe { stdio: Arc::clone(self), stream: if self.terminal { Stream::Stdout } else { stream } }
    }

    /// The guest's stdin, once: where there is none it is closed. To be called on the guests' threads.
    pub(crate) fn take_stdin(&self) -> Option<Stdin> {
        let stdin = self.stdin.lock().take()?;
        Some(Stdin { stream: AsyncStdinStream::new(stdin), terminal: self.terminal })
    }

    /// Says something on the container's stderr in the runtime's own name; left out while its log is behind.
    pub(crate) fn say(&self, text: &str) {
        if self.room(Stream::Stderr) > 0 {
            self.append(Stream::Stderr, format!("{text}\n").as_bytes());
        }
    }

    /// Nothing will be written or read any more: the pump ends once it has handed over the rest.
    pub(crate) fn close(&self) {
        drop(self.stdin.lock().take());
        self.buffers.lock().closed = true;
        self.filled.notify_one();
    }

    /// Hands over everything until the end. One task runs it.
    pub(crate) async fn pump(&self, output: &dyn Output) {
        loop {
            let filled = self.filled.notified();
            let (stdout, stderr, closed) = {
                let mut buffers = self.buffers.lock();
                (buffers.stdout.split().freeze(), buffers.stderr.split().freeze(), buffers.closed)
            };
            if stdout.is_empty() && stderr.is_empty() {
                if closed {
                    return;
                }
                filled.await;
                continue;
            }
            for (stream, bytes) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
                if !bytes.is_empty() {
                    output.write(stream, bytes).await;
                }
            }
            self.emptied.notify_waiters();
        }
    }

    fn room(&self, stream: Stream) -> usize {
        ROOM.saturating_sub(self.buffers.lock().of(stream).len())
    }

    fn append(&self, stream: Stream, bytes: &[u8]) {
        let mut buffers = self.buffers.lock();
        if !buffers.closed {
            buffers.of(stream).extend_from_slice(bytes);
            drop(buffers);
            self.filled.notify_one();
        }
    }

    async fn wait_for_room(&self, stream: Stream) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.room(stream) > 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// One guest's end of one stream.
#[derive(Clone)]
pub(crate) struct Pipe {
    stdio: Arc<Stdio>,
    stream: Stream,
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        self.stdio.terminal
    }
}

/// What a guest reads.
pub(crate) struct Stdin {
    stream: AsyncStdinStream,
    terminal: bool,
}

impl IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        self.stream.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        self.stream.p2_stream()
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Writer { pipe: self.clone(), waiting: None })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {
        self.stdio.wait_for_room(self.stream).await;
    }
}

#[async_trait]
impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.stdio.append(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.stdio.room(self.stream))
    }
}

/// The same end as an [`AsyncWrite`].
struct Writer {
    pipe: Pipe,
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl AsyncWrite for Writer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                if waiting.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.waiting = None;
            }
            let Pipe { stdio, stream } = self.pipe.clone();
            let length = stdio.room(stream).min(bytes.len());
            if length > 0 || bytes.is_empty() {
                stdio.append(stream, &bytes[..length]);
                return Poll::Ready(Ok(length));
            }
            self.waiting = Some(Box::pin(async move { stdio.wait_for_room(stream).await }));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures::FutureExt;
    use tokio::io::AsyncWriteExt;
    use wherry_runtime::conformance::{Captured, Gate};

    use super::*;

    #[tokio::test]
    async fn a_writer_waits_while_the_log_is_behind() {
        let (stdio, behind) = (Stdio::new(), Captured::new());
        let gate = Gate::closed(Arc::clone(&behind));
        let pump = tokio::spawn({
            let (stdio, gate) = (Arc::clone(&stdio), Arc::clone(&gate));
            async move { stdio.pump(gate.as_ref()).await }
        });
        let mut pipe = stdio.pipe(Stream::Stdout);
        let mut written = 0;
        // One buffer is with the log, one is full: then there is no room.
        while written < 2 * ROOM {
            pipe.ready().now_or_never();
            let room = pipe.check_write().unwrap();
            if room == 0 {
                tokio::task::yield_now().await;
                if pipe.check_write().unwrap() == 0 {
                    break;
                }
                continue;
            }
            pipe.write(Bytes::from(vec![b'x'; room])).unwrap();
            written += room;
        }
        assert!(pipe.ready().now_or_never().is_none(), "there is room while the log takes nothing");
        gate.open();
        pipe.ready().await;
        stdio.close();
        pump.await.unwrap();
        assert_eq!(behind.stdout().len(), written);
    }

    #[tokio::test]
    async fn async_writers_share_the_buffer() {
        let (stdio, log) = (Stdio::new(), Captured::new());
        let mut writer = Pin::from(stdio.pipe(Stream::Stderr).async_stream());
        let big = vec![b'e'; 3 * ROOM];
        let write = async {
            writer.write_all(&big).await.unwrap();
            stdio.close();
        };
        futures::join!(write, stdio.pump(log.as_ref()));
        assert_eq!(log.stderr().len(), big.len());
    }
}
