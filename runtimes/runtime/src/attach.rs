//! Who is attached to a container: its output, passed on to any number of callers beside its log.
//!
//! [`Attachers`] never waits for anybody: each caller has a bounded queue, and one that stays further behind than the bound is let
//! go, with an error that says so. So neither the container nor its log nor other callers depend on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{Either, select};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Output, RuntimeError, Stream, streams::Sink};

/// How far a caller may stay behind.
const BEHIND: usize = 1 << 20;

/// One container's callers. Costs nothing while there are none.
#[derive(Default)]
pub struct Attachers {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queues: Vec<Queue>,
    ended: bool,
}

struct Queue {
    sender: mpsc::UnboundedSender<(Stream, Bytes)>,
    held: Arc<AtomicUsize>,
    lost: CancellationToken,
}

impl Attachers {
    /// An output that is passed on to those who are attached, and to `log`, which may be behind.
    pub fn tee(self: &Arc<Self>, log: Arc<dyn Output>) -> Arc<dyn Output> {
        Arc::new(Tee { log, attachers: Arc::clone(self) })
    }

    /// Passes on what the container wrote. Never waits.
    pub fn publish(&self, stream: Stream, bytes: &Bytes) {
        self.state.lock().queues.retain(|queue| {
            if queue.held.fetch_add(bytes.len(), Ordering::AcqRel) > BEHIND {
                queue.lost.cancel();
                return false;
            }
            queue.sender.send((stream, bytes.clone())).is_ok()
        });
    }

    /// The container has written all: callers get the rest, and the end.
    pub fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.queues.clear();
    }

    /// Joins the others, from here on.
    pub fn join(&self) -> Attachment {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (held, lost) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let mut state = self.state.lock();
        if !state.ended {
            state.queues.push(Queue { sender, held: Arc::clone(&held), lost: lost.clone() });
        }
        Attachment { receiver, held, lost }
    }
}

struct Tee {
    log: Arc<dyn Output>,
    attachers: Arc<Attachers>,
}

#[async_trait]
impl Output for Tee {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        self.attachers.publish(stream, &bytes);
        self.log.write(stream, bytes).await;
    }
}

/// One caller's place among [`Attachers`]. Dropped, it has left.
pub struct Attachment {
    receiver: mpsc::UnboundedReceiver<(Stream, Bytes)>,
    held: Arc<AtomicUsize>,
    lost: CancellationToken,
}

/// Why output is no longer passed on.
enum Over {
    /// The container has ended.
    Ended,
    /// The caller takes no output any more.
    Left(Attachment),
    /// The caller was too slow.
    Behind,
}

impl Attachment {
    /// Passes output on and has `input` done until the container ends, or the caller takes no output and `input` is done.
    ///
    /// # Errors
    /// When the caller stayed too far behind.
    pub async fn run(
        self,
        stdout: Option<Sink>,
        stderr: Option<Sink>,
        input: impl Future<Output = ()> + Send,
    ) -> Result<(), RuntimeError> {
        let (output, mut input) = (std::pin::pin!(self.deliver(stdout, stderr)), std::pin::pin!(input));
        let over = match select(output, input.as_mut()).await {
            Either::Left((over, _)) => {
                if let Over::Left(attachment) = over {
                    let _either = select(input, std::pin::pin!(attachment.ended())).await;
                    return Ok(());
                }
                over
            }
            Either::Right(((), output)) => output.await,
        };
        match over {
            Over::Ended | Over::Left(_) => Ok(()),
            Over::Behind => Err(RuntimeError::Failed(format!(
                "the attached client is more than {BEHIND} bytes behind the container's output; attach again"
            ))),
        }
    }

    async fn deliver(mut self, stdout: Option<Sink>, stderr: Option<Sink>) -> Over {
        let (mut stdout, mut stderr) = (stdout, stderr);
        let lost = self.lost.clone();
        while stdout.is_some() || stderr.is_some() {
            let Some((stream, bytes)) = self.next().await else {
                if lost.is_cancelled() {
                    return Over::Behind;
                }
                for mut sink in [stdout, stderr].into_iter().flatten() {
                    let _gone = sink.shutdown().await;
                }
                return Over::Ended;
            };
            let place = match stream {
                Stream::Stdout => &mut stdout,
                Stream::Stderr => &mut stderr,
            };
            let Some(sink) = place.as_mut() else { continue };
            let write = async {
                sink.write_all(&bytes).await?;
                sink.flush().await
            };
            let written = tokio::select! {
                written = write => written,
                () = lost.cancelled() => return Over::Behind,
            };
            if written.is_err() {
                *place = None;
            }
        }
        Over::Left(self)
    }

    async fn next(&mut self) -> Option<(Stream, Bytes)> {
        let (stream, bytes) = self.receiver.recv().await?;
        self.held.fetch_sub(bytes.len(), Ordering::AcqRel);
        Some((stream, bytes))
    }

    async fn ended(mut self) {
        while self.next().await.is_some() {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn every_caller_gets_what_comes_after_it_joined() {
        let attachers = Attachers::default();
        let (first, mut seen_first) = duplex(64);
        let one = attachers.join();
        attachers.publish(Stream::Stdout, &Bytes::from_static(b"one "));
        let (second, mut seen_second) = duplex(64);
        let two = attachers.join();
        attachers.publish(Stream::Stdout, &Bytes::from_static(b"two"));
        attachers.end();
        one.run(Some(Box::new(first)), None, std::future::pending()).await.unwrap();
        two.run(Some(Box::new(second)), None, std::future::pending()).await.unwrap();
        let (mut one, mut two) = (String::new(), String::new());
        seen_first.read_to_string(&mut one).await.unwrap();
        seen_second.read_to_string(&mut two).await.unwrap();
        assert_eq!((one.as_str(), two.as_str()), ("one two", "two"));
        let (late, _) = duplex(64);
        attachers.join().run(Some(Box::new(late)), None, std::future::pending()).await.unwrap();
    }

    #[tokio::test]
    async fn one_who_takes_nothing_is_let_go_and_holds_nobody_up() {
        let attachers = Attachers::default();
        let (stalled, _kept_open) = duplex(1);
        let mut run = std::pin::pin!(attachers.join().run(Some(Box::new(stalled)), None, std::future::pending()));
        assert!(run.as_mut().now_or_never().is_none());
        let chunk = Bytes::from(vec![b'x'; 64 << 10]);
        for _ in 0..40 {
            attachers.publish(Stream::Stdout, &chunk);
            assert!(attachers.state.lock().queues.iter().all(|queue| queue.held.load(Ordering::Acquire) <= 2 * BEHIND));
        }
        assert!(attachers.state.lock().queues.is_empty());
        assert!(run.await.unwrap_err().to_string().contains("behind"));
    }

    #[tokio::test]
    async fn it_is_over_when_the_caller_has_left_or_the_container_ended() {
        let attachers = Attachers::default();
        let (gone, other) = duplex(1);
        drop(other);
        let run = attachers.join().run(Some(Box::new(gone)), None, std::future::ready(()));
        attachers.publish(Stream::Stdout, &Bytes::from_static(b"x"));
        run.await.unwrap();
        // Input alone: until it is done.
        attachers.join().run(None, None, std::future::ready(())).await.unwrap();
        let waiting = attachers.join().run(None, None, std::future::pending());
        attachers.end();
        waiting.await.unwrap();
    }
}
