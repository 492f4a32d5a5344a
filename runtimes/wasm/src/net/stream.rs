//! The two directions of a TCP connection as `wasi:io` streams.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::TcpStream;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use crate::traffic::Counter;

/// The most that one call reads or may write.
const CHUNK: usize = 64 << 10;

/// What arrives. `None` once the guest or the peer has ended it.
#[derive(Clone)]
pub(super) struct Reader(Arc<Mutex<Option<Arc<TcpStream>>>>, Arc<Counter>);

impl Reader {
    pub(super) fn new(stream: Arc<TcpStream>, traffic: Arc<Counter>) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))), traffic)
    }

    /// The guest reads no more.
    pub(super) fn shutdown(&self) {
        if let Some(stream) = self.0.lock().take() {
            let _ = SockRef::from(&*stream).shutdown(Shutdown::Read);
        }
    }
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        let stream = self.0.lock().clone();
        if let Some(stream) = stream {
            // An error shows at the next read.
            let _ = stream.readable().await;
        }
    }
}

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut open = self.0.lock();
        let stream = open.as_ref().ok_or(StreamError::Closed)?;
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut buffer = BytesMut::zeroed(size.min(CHUNK));
        match stream.try_read(&mut buffer) {
            Ok(0) => {
                *open = None;
                Err(StreamError::Closed)
            }
            Ok(length) => {
                self.1.received(length);
                buffer.truncate(length);
                Ok(buffer.freeze())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Bytes::new()),
            Err(error) => {
                *open = None;
                Err(StreamError::LastOperationFailed(error.into()))
            }
        }
    }
}

/// What is sent. What the kernel does not take at once is sent by a task, so that the guest may wait for other things.
#[derive(Clone)]
pub(super) struct Writer(Arc<Mutex<Sending>>, Arc<Counter>);

enum Sending {
    Idle(Arc<TcpStream>),
    /// A write is going on; the flag says whether the guest has ended the direction meanwhile.
    Busy {
        stream: Arc<TcpStream>,
        rest: AbortOnDropJoinHandle<io::Result<()>>,
        ending: bool,
    },
    Closed,
}

impl Sending {
    /// Moves on where the write that was going on is done.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<StreamResult<()>> {
        let Self::Busy { stream, rest, ending } = self else { return Poll::Ready(self.state()) };
        let Poll::Ready(outcome) = std::pin::Pin::new(rest).poll(cx) else { return Poll::Pending };
        let (stream, ending) = (Arc::clone(stream), *ending);
        if ending || outcome.is_err() {
            let _ = SockRef::from(&*stream).shutdown(Shutdown::Write);
            *self = Self::Closed;
        } else {
            *self = Self::Idle(stream);
        }
        Poll::Ready(match outcome {
            Ok(()) => self.state(),
            Err(error) => Err(failed(error)),
        })
    }

    fn state(&self) -> StreamResult<()> {
        if matches!(self, Self::Closed) { Err(StreamError::Closed) } else { Ok(()) }
    }
}

fn failed(error: io::Error) -> StreamError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => StreamError::Closed,
        _ => StreamError::LastOperationFailed(error.into()),
    }
}

async fn send(stream: Arc<TcpStream>, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(&bytes) {
            Ok(length) => drop(bytes.split_to(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Writer {
    pub(super) fn new(stream: Arc<TcpStream>, traffic: Arc<Counter>) -> Self {
        Self(Arc::new(Mutex::new(Sending::Idle(stream))), traffic)
    }

    /// The guest sends no more; what it has sent still goes out.
    pub(super) fn shutdown(&self) {
        let mut sending = self.0.lock();
        match &mut *sending {
            Sending::Idle(stream) => {
                let _ = SockRef::from(&**stream).shutdown(Shutdown::Write);
                *sending = Sending::Closed;
            }
            Sending::Busy { ending, .. } => *ending = true,
            Sending::Closed => {}
        }
    }

    async fn settled(&self) {
        let _ = std::future::poll_fn(|cx| self.0.lock().poll(cx)).await;
    }
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        self.settled().await;
    }
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, mut bytes: Bytes) -> StreamResult<()> {
        let mut sending = self.0.lock();
        let stream = match &*sending {
            Sending::Idle(stream) => Arc::clone(stream),
            Sending::Closed => return Err(StreamError::Closed),
            Sending::Busy { .. } => return Err(StreamError::trap("a write without a permit")),
        };
        if bytes.len() > CHUNK {
            return Err(StreamError::trap("a write of more than was permitted"));
        }
        // The kernel takes it now or from the task below.
        self.1.sent(bytes.len());
        match stream.try_write(&bytes) {
            Ok(length) => drop(bytes.split_to(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                *sending = Sending::Closed;
                return Err(failed(error));
            }
        }
        if !bytes.is_empty() {
            let rest = spawn(send(Arc::clone(&stream), bytes));
            *sending = Sending::Busy { stream, rest, ending: false };
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        // What was written is on its way; `ready` waits until the kernel has it.
        self.check_write().map(drop)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.0.lock().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => Ok(CHUNK),
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => Ok(0),
        }
    }

    async fn cancel(&mut self) {
        self.settled().await;
    }
}
