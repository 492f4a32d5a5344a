//! Runs a reconciler over a queue.

use std::{fmt::Display, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::queue::{Key, Queue};

/// How often a key fails quietly before it is worth a warning: conflicts and races resolve within a few tries.
const QUIET_FAILURES: u32 = 5;

/// How long a key waits for its caches at the most: see [`Outcome::Behind`]. (Upstream's expectations end after five minutes:
/// `ExpectationsTimeout` in pkg/controller/controller_utils.go.)
const UNSEEN: Duration = Duration::from_secs(30);

/// See [`rest`].
const REST: u32 = 5;
const LONGEST_REST: Duration = Duration::from_millis(500);
/// A shorter rest is none.
const SHORTEST_REST: Duration = Duration::from_millis(1);

/// What a successful reconciliation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until something changes.
    Done,
    /// Look again after this time, because time itself changes the decision.
    After(Duration),
    /// The caches do not show yet what earlier passes wrote. What does wakes the key, as a rule; what came and went between two lists
    /// of an informer wakes nobody, so it is looked at again after half a minute in any case.
    Behind,
}

/// Brings the world closer to what the object named by `key` asks for.
///
/// It reads the current state and takes no hint of what changed; running it twice does nothing more than running it once.
pub trait Reconciler<T>: Send + Sync + 'static {
    /// What can go wrong. Every error is retried with backoff.
    type Error: Display + Send;

    /// One pass for one key.
    fn reconcile(&self, key: T) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;
}

/// Works the queue with up to `workers` reconciliations at a time, until `cancel`; then waits for those under way to stop
/// (they are dropped at their next await).
///
/// A failure, or a panic, is retried with backoff and affects no other key.
pub async fn run<T: Key + Display, R: Reconciler<T>>(
    name: &'static str,
    queue: Queue<T>,
    workers: usize,
    reconciler: Arc<R>,
    cancel: CancellationToken,
) {
    let mut running = JoinSet::new();
    loop {
        while running.len() >= workers.max(1) {
            let finished = running.join_next();
            if cancel.run_until_cancelled(finished).await.is_none() {
                break;
            }
        }
        while running.try_join_next().is_some() {}
        let Some(key) = queue.next(&cancel).await else {
            break;
        };
        let work = work_one(name, queue.clone(), key, reconciler.clone());
        let cancel = cancel.clone();
        running.spawn(async move { cancel.run_until_cancelled(work).await });
    }
    while running.join_next().await.is_some() {}
}

async fn work_one<T: Key + Display, R: Reconciler<T>>(name: &'static str, queue: Queue<T>, key: T, reconciler: Arc<R>) {
    let mut busy = Duration::ZERO;
    let pass = AssertUnwindSafe(timed(reconciler.reconcile(key.clone()), &mut busy)).catch_unwind();
    match pass.await {
        Ok(Ok(outcome)) => {
            queue.forget(&key);
            match outcome {
                Outcome::Done => {}
                Outcome::After(delay) => queue.add_after(key.clone(), delay),
                Outcome::Behind => queue.add_after(key.clone(), UNSEEN),
            }
        }
        Ok(Err(reason)) => {
            if queue.failures(&key) < QUIET_FAILURES {
                debug!(controller = name, %key, error = %reason, "reconciliation failed, trying again");
            } else {
                warn!(controller = name, %key, error = %reason, "reconciliation keeps failing");
            }
            queue.retry(key.clone());
        }
        Err(_) => {
            error!(controller = name, %key, "reconciliation panicked");
            queue.retry(key.clone());
        }
    }
    queue.rest(key, rest(busy));
}

/// How long to rest after work that kept a thread busy for so long: a few times as long, half a second at the most. Work whose cost grows
/// with what there is (a pass over a set of ten thousand Pods) is then not repeated for each of their changes and takes a
/// bounded share of a core, while work on little follows each change at once.
pub fn rest(busy: Duration) -> Duration {
    let rest = (busy * REST).min(LONGEST_REST);
    if rest < SHORTEST_REST { Duration::ZERO } else { rest }
}

/// Adds up how long the future keeps a thread busy; what it waits for does not count.
async fn timed<F: Future>(future: F, busy: &mut Duration) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        let begun = Instant::now();
        let poll = future.as_mut().poll(context);
        *busy += begun.elapsed();
        poll
    })
    .await
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::sync::mpsc;

    use super::*;

    struct Flaky {
        tries: Mutex<Vec<u32>>,
        succeeded: mpsc::UnboundedSender<u32>,
    }

    impl Reconciler<u32> for Flaky {
        type Error = String;

        async fn reconcile(&self, key: u32) -> Result<Outcome, String> {
            let tries = {
                let mut tries = self.tries.lock();
                tries.push(key);
                tries.iter().filter(|tried| **tried == key).count()
            };
            match (key, tries) {
                (1, 1) => Err("not yet".to_owned()),
                (2, 1) => panic!("a bug"),
                (3, 1) => {
                    let _ = self.succeeded.send(key);
                    Ok(Outcome::After(Duration::from_millis(1)))
                }
                _ => {
                    let _ = self.succeeded.send(key);
                    Ok(Outcome::Done)
                }
            }
        }
    }

    #[test]
    fn what_costs_much_rests_long() {
        let millis = Duration::from_millis;
        assert_eq!(rest(Duration::from_micros(150)), Duration::ZERO);
        assert_eq!(rest(millis(20)), millis(100));
        assert_eq!(rest(millis(800)), millis(500));
    }

    #[tokio::test]
    async fn retries_errors_and_panics_and_honours_after() {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let queue = Queue::new();
        let cancel = CancellationToken::new();
        let flaky = Arc::new(Flaky { tries: Mutex::default(), succeeded: sender });
        (1..=3).for_each(|key| queue.add(key));
        let runner = tokio::spawn(run("test", queue, 2, flaky, cancel.clone()));
        let mut succeeded = Vec::new();
        while succeeded.len() < 4 {
            succeeded.extend(receiver.recv().await);
        }
        succeeded.sort_unstable();
        assert_eq!(succeeded, vec![1, 2, 3, 3]);
        cancel.cancel();
        assert!(runner.await.is_ok());
    }
}
