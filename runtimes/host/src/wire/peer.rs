//! Calls and answers in both directions over one socket.
//!
//! A call that its caller has given up is given up on the other side, too: its future is dropped there. What waits to be sent is as
//! much as the calls that are under way; a peer that takes nothing until [`QUEUED`] bytes wait is taken for dead, and one that
//! makes more than [`CALLS`] calls at once for hostile: the socket is closed.

use std::collections::HashMap;
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::frames::{Inbox, Parcel};

/// Bytes that may wait to be sent.
const QUEUED: usize = 128 << 20;
/// Calls that a peer may have made at once.
const CALLS: usize = 64 << 10;

/// What is sent.
#[derive(Serialize, Deserialize)]
enum Frame<C, A> {
    Call(u64, C),
    Answer(u64, A),
    /// Nobody waits for this call any more.
    GiveUp(u64),
}

/// Answers the other side's calls.
pub(crate) trait Serve<C, A>: Send + Sync + 'static {
    /// Answers one; dropped when the caller has given up.
    fn serve(self: Arc<Self>, call: C, fds: Vec<OwnedFd>) -> BoxFuture<'static, A>;
}

/// The socket is closed: no answer will come.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the other side is gone")]
pub(crate) struct Closed;

/// This side of the socket: calls `C` are answered with `A`. Dropped, it closes the socket.
pub(crate) struct Peer<C, A> {
    line: Arc<Line>,
    pending: Arc<Pending<A>>,
    next: AtomicU64,
    calls: PhantomData<fn(C)>,
}

/// The way out.
struct Line {
    outbox: mpsc::UnboundedSender<Parcel>,
    held: AtomicUsize,
    closed: CancellationToken,
}

impl Line {
    fn send<T: Serialize>(&self, what: &T, fds: Vec<OwnedFd>) -> io::Result<()> {
        let parcel = Parcel::new(what, fds)?;
        if self.held.fetch_add(parcel.len(), Ordering::AcqRel) > QUEUED {
            tracing::warn!("the other side takes nothing: it is given up");
            self.closed.cancel();
        }
        // Where nobody sends any more, the socket is closed.
        drop(self.outbox.send(parcel));
        Ok(())
    }
}

/// Those who wait for answers; none once there will be no more.
struct Pending<A>(Mutex<Option<HashMap<u64, oneshot::Sender<A>>>>);

impl<A> Pending<A> {
    fn take(&self, number: u64) -> Option<oneshot::Sender<A>> {
        self.0.lock().as_mut()?.remove(&number)
    }
}

/// Tells the other side when its caller has gone before its answer.
struct Waiting<'a, A> {
    line: &'a Line,
    pending: &'a Pending<A>,
    number: u64,
}

impl<A> Drop for Waiting<'_, A> {
    fn drop(&mut self) {
        if self.pending.take(self.number).is_some() {
            // It always fits.
            drop(self.line.send(&Frame::<(), ()>::GiveUp(self.number), Vec::new()));
        }
    }
}

impl<C: Serialize, A: DeserializeOwned + Send + 'static> Peer<C, A> {
    /// Takes a socket, whose other side's calls `server` answers on the caller's tokio runtime.
    pub(crate) fn new<C2, A2>(stream: UnixStream, server: Arc<impl Serve<C2, A2>>) -> Self
    where
        C2: DeserializeOwned + Send + 'static,
        A2: Serialize + Send + 'static,
    {
        let (outbox, outgoing) = mpsc::unbounded_channel();
        let line = Arc::new(Line { outbox, held: AtomicUsize::new(0), closed: CancellationToken::new() });
        let pending = Arc::new(Pending(Mutex::new(Some(HashMap::new()))));
        tokio::spawn(run(stream, outgoing, Arc::clone(&line), Arc::clone(&pending), server));
        Self { line, pending, next: AtomicU64::new(0), calls: PhantomData }
    }

    /// Calls the other side. Dropped before its answer, it ends the call there.
    pub(crate) async fn call(&self, call: &C, fds: Vec<OwnedFd>) -> Result<A, Closed> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.pending.0.lock().as_mut().ok_or(Closed)?.insert(number, answer);
        let _waiting = Waiting { line: &self.line, pending: &self.pending, number };
        if let Err(error) = self.line.send(&Frame::<&C, ()>::Call(number, call), fds) {
            tracing::error!(%error, "a call cannot be made");
            self.pending.take(number);
            return Err(Closed);
        }
        answered.await.map_err(|_| Closed)
    }

    /// Closes the socket.
    pub(crate) fn close(&self) {
        self.line.closed.cancel();
    }

    /// Resolves when the socket is closed, by either side.
    pub(crate) async fn closed(&self) {
        self.line.closed.cancelled().await;
    }
}

impl<C, A> Drop for Peer<C, A> {
    fn drop(&mut self) {
        self.line.closed.cancel();
    }
}

async fn run<A, C2, A2>(
    stream: UnixStream,
    mut outgoing: mpsc::UnboundedReceiver<Parcel>,
    line: Arc<Line>,
    pending: Arc<Pending<A>>,
    server: Arc<impl Serve<C2, A2>>,
) where
    A: DeserializeOwned,
    C2: DeserializeOwned + Send + 'static,
    A2: Serialize + Send + 'static,
{
    let write = async {
        while let Some(parcel) = outgoing.recv().await {
            parcel.send(&stream).await?;
            line.held.fetch_sub(parcel.len(), Ordering::AcqRel);
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = listen(&stream, &line, &pending, server) => ended,
        ended = write => ended,
        () = line.closed.cancelled() => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a socket between agent and host failed");
    }
    drop(stream);
    drop(pending.0.lock().take());
    line.closed.cancel();
}

/// The other side's calls that are being answered.
type Serving = Arc<Mutex<HashMap<u64, AbortHandle>>>;

async fn listen<A, C2, A2>(
    stream: &UnixStream,
    line: &Arc<Line>,
    pending: &Pending<A>,
    server: Arc<impl Serve<C2, A2>>,
) -> io::Result<()>
where
    A: DeserializeOwned,
    C2: DeserializeOwned + Send + 'static,
    A2: Serialize + Send + 'static,
{
    let (mut inbox, serving) = (Inbox::default(), Serving::default());
    while let Some((frame, fds)) = inbox.next::<Frame<C2, A>>(stream).await? {
        match frame {
            Frame::Call(number, call) => {
                let mut all = serving.lock();
                if all.len() >= CALLS || all.contains_key(&number) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "too many calls at once"));
                }
                let work = Arc::clone(&server).serve(call, fds);
                let (done, line) = (Arc::clone(&serving), Arc::clone(line));
                // It is entered before it can be taken out: the table is locked.
                let task = tokio::spawn(async move {
                    let answer = work.await;
                    done.lock().remove(&number);
                    if let Err(error) = line.send(&Frame::<(), A2>::Answer(number, answer), Vec::new()) {
                        tracing::error!(%error, "an answer cannot be sent");
                        line.closed.cancel();
                    }
                });
                all.insert(number, task.abort_handle());
            }
            Frame::Answer(number, answer) => {
                if let Some(waiting) = pending.take(number) {
                    // It may have given up just now.
                    drop(waiting.send(answer));
                }
            }
            Frame::GiveUp(number) => {
                if let Some(task) = serving.lock().remove(&number) {
                    task.abort();
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream as StdStream;

    use futures::FutureExt as _;

    use super::*;

    struct Doubles {
        given_up: mpsc::UnboundedSender<u32>,
    }

    /// Says when it is dropped unfinished.
    struct Gone(Option<u32>, mpsc::UnboundedSender<u32>);

    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.map(|call| self.1.send(call));
        }
    }

    impl Serve<u32, u32> for Doubles {
        fn serve(self: Arc<Self>, call: u32, fds: Vec<OwnedFd>) -> BoxFuture<'static, u32> {
            // Before it is begun: it may be given up by then.
            let gone = Gone(Some(call), self.given_up.clone());
            async move {
                let mut gone = gone;
                for fd in fds {
                    StdStream::from(fd).write_all(&call.to_le_bytes()).unwrap();
                }
                if call == 0 {
                    std::future::pending::<()>().await;
                }
                gone.0 = None;
                call * 2
            }
            .boxed()
        }
    }

    fn pair() -> (Peer<u32, u32>, Peer<u32, u32>, mpsc::UnboundedReceiver<u32>) {
        let (one, two) = UnixStream::pair().unwrap();
        let (given_up, gone) = mpsc::unbounded_channel();
        let server = Arc::new(Doubles { given_up });
        (Peer::new(one, Arc::clone(&server)), Peer::new(two, server), gone)
    }

    #[tokio::test]
    async fn both_sides_call_and_descriptors_arrive_with_their_calls() {
        let (one, two, _gone) = pair();
        let ask = async |call: u32| {
            let (mut ours, theirs) = StdStream::pair().unwrap();
            let answer = one.call(&call, vec![theirs.into()]).await.unwrap();
            let mut seen = [0; 4];
            ours.read_exact(&mut seen).unwrap();
            (answer, u32::from_le_bytes(seen), call)
        };
        let answers = futures::future::join_all((1..200).map(ask));
        let (answers, back) = tokio::join!(answers, two.call(&7, Vec::new()));
        assert_eq!(back.unwrap(), 14);
        assert!(answers.into_iter().all(|(answer, seen, call)| answer == call * 2 && seen == call));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_given_up() {
        let (one, _two, mut gone) = pair();
        let mut waits = Box::pin(one.call(&0, Vec::new()));
        assert!((&mut waits).now_or_never().is_none());
        drop(waits);
        assert_eq!(gone.recv().await, Some(0));
        assert_eq!(one.call(&2, Vec::new()).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn the_end_of_one_side_is_told_to_those_who_wait_on_the_other() {
        let (one, two, _gone) = pair();
        let (waited, ()) = tokio::join!(one.call(&0, Vec::new()), async {
            assert_eq!(one.call(&1, Vec::new()).await.unwrap(), 2);
            two.close();
        });
        assert!(waited.is_err());
        one.closed().await;
        assert!(one.call(&1, Vec::new()).await.is_err());
    }

    #[tokio::test]
    async fn nonsense_closes_the_socket() {
        let (one, mut other) = StdStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let (given_up, _gone) = mpsc::unbounded_channel();
        let peer: Peer<u32, u32> = Peer::new(UnixStream::from_std(one).unwrap(), Arc::new(Doubles { given_up }));
        other.write_all(&[0xff; 16]).unwrap();
        peer.closed().await;
    }
}
