//! The ends of a stream within the agent. Both are bounded: what a peer sends and nobody reads yet is paid for out of its
//! connection's [`Budget`], and what is to be sent waits for a place in the connection's queue. Who finds no room waits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::PollSender;

/// The most that is sent at once.
pub(super) const CHUNK: usize = 32 << 10;
/// What waits to be sent.
const QUEUE: usize = 8;
/// What may lie unread on one connection. One stream that is not read may hold up the others once it lies there, as
/// neither channels in a WebSocket nor upstream's SPDY can hold back one stream alone.
const UNREAD: usize = 1 << 20;

/// What a part costs beside its bytes.
const OVERHEAD: usize = 128;
/// A part that is copied.
const SMALL: usize = 4 << 10;

/// Room for what was received and not read yet.
#[derive(Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(UNREAD)))
    }

    /// A new pipe.
    pub(super) fn pipe(&self) -> (Feeder, Inlet) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Feeder { sender, budget: self.clone() }, Inlet { receiver, current: None })
    }
}

type Part = (Bytes, OwnedSemaphorePermit);

/// Where received bytes go in. Dropped, the stream has ended.
pub(super) struct Feeder {
    sender: mpsc::UnboundedSender<Part>,
    budget: Budget,
}

impl Feeder {
    /// Waits for room. What nobody will read is dropped.
    pub(super) async fn feed(&self, mut bytes: Bytes) {
        while !bytes.is_empty() && !self.sender.is_closed() {
            let mut part = bytes.split_to(bytes.len().min(CHUNK));
            if part.len() < SMALL {
                // It must not keep the much larger buffer that it was received in.
                part = Bytes::copy_from_slice(&part);
            }
            let cost = u32::try_from(part.len() + OVERHEAD).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.budget.0).acquire_many_owned(cost);
            tokio::select! {
                room = room => {
                    let Ok(room) = room else { return };
                    // An error is a reader that has gone meanwhile.
                    let _gone = self.sender.send((part, room));
                }
                () = self.sender.closed() => return,
            }
        }
    }
}

/// Where they are read.
pub(super) struct Inlet {
    receiver: mpsc::UnboundedReceiver<Part>,
    current: Option<Part>,
}

impl AsyncRead for Inlet {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.current.is_none() {
            self.current = ready!(self.receiver.poll_recv(cx));
        }
        if let Some((bytes, _)) = &mut self.current {
            let part = bytes.split_to(bytes.len().min(buffer.remaining()));
            buffer.put_slice(&part);
            if !bytes.has_remaining() {
                self.current = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What a connection is to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// Bytes of a channel.
    Data(u32, Bytes),
    /// A channel has ended.
    End(u32),
    /// A frame of the connection's own, ready to be sent.
    Frame(Bytes),
}

/// The queue of a connection: it sends until every sender has gone.
pub(super) fn queue() -> (mpsc::Sender<Out>, mpsc::Receiver<Out>) {
    mpsc::channel(QUEUE)
}

/// Where bytes to be sent go in, for one channel.
pub(super) struct Outlet {
    sender: PollSender<Out>,
    channel: u32,
}

impl Outlet {
    pub(super) fn new(queue: &mpsc::Sender<Out>, channel: u32) -> Self {
        Self { sender: PollSender::new(queue.clone()), channel }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone")
}

impl AsyncWrite for Outlet {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.sender.poll_reserve(cx)).map_err(|_| gone())?;
        let part = &bytes[..bytes.len().min(CHUNK)];
        let data = Out::Data(self.channel, Bytes::copy_from_slice(part));
        self.sender.send_item(data).map_err(|_| gone())?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection flushes when it has nothing more to send.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.sender.is_closed() {
            ready!(self.sender.poll_reserve(cx)).map_err(|_| gone())?;
            let end = Out::End(self.channel);
            self.sender.send_item(end).map_err(|_| gone())?;
            self.sender.close();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_is_not_read_makes_the_peer_wait() {
        let budget = Budget::new();
        let (feeder, mut inlet) = budget.pipe();
        let (other, _unread) = budget.pipe();
        let most = UNREAD / (CHUNK + OVERHEAD) * CHUNK;
        feeder.feed(vec![1; most].into()).now_or_never().unwrap();
        let mut more = Box::pin(other.feed(vec![2; CHUNK].into()));
        assert!(more.as_mut().now_or_never().is_none());
        let mut read = vec![0; CHUNK];
        inlet.read_exact(&mut read).await.unwrap();
        more.await;
        drop(feeder);
        let mut rest = Vec::new();
        inlet.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, vec![1; most - CHUNK]);
    }

    #[tokio::test]
    async fn who_stops_reading_holds_nobody_up() {
        let budget = Budget::new();
        let (feeder, inlet) = budget.pipe();
        let mut much = Box::pin(feeder.feed(vec![1; 2 * UNREAD].into()));
        assert!(much.as_mut().now_or_never().is_none());
        drop(inlet);
        much.await;
        assert_eq!(budget.0.available_permits(), UNREAD);
    }

    #[tokio::test]
    async fn what_is_not_sent_makes_the_writer_wait() {
        let (sender, mut queue) = queue();
        let mut outlet = Outlet::new(&sender, 7);
        for _ in 0..QUEUE {
            outlet.write_all(&[1; CHUNK]).now_or_never().unwrap().unwrap();
        }
        let mut end = Box::pin(outlet.shutdown());
        assert!(end.as_mut().now_or_never().is_none());
        for _ in 0..QUEUE {
            assert_eq!(queue.recv().await, Some(Out::Data(7, vec![1; CHUNK].into())));
        }
        end.await.unwrap();
        drop((sender, outlet));
        assert_eq!(queue.recv().await, Some(Out::End(7)));
        assert_eq!(queue.recv().await, None);
    }
}
