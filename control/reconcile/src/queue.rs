//! The work queue of a controller: keys that wait for a reconciler.
//!
//! - A key that is queued twice is worked once; one that is queued while it is being worked is worked again afterwards,
//!   never at the same time by two workers.
//! - [`Queue::add_after`] and [`Queue::retry`] put keys on one timer heap, which the consumer of the queue waits on; no
//!   task or timer exists per key.
//! - A key may rest after it was worked ([`Queue::rest`]): what is queued meanwhile is worked once, when it has rested.
//! - It is bounded by the number of distinct keys.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::backoff::exponential;

/// The first and the longest delay of [`Queue::retry`], as in client-go.
const RETRY_BASE: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1000);

/// What can be queued.
pub trait Key: Clone + Eq + Hash + Ord + Send + Sync + 'static {}

impl<T: Clone + Eq + Hash + Ord + Send + Sync + 'static> Key for T {}

/// The state of a queue, without a clock: every call is told the time.
struct State<T> {
    ready: VecDeque<T>,
    /// Keys that are ready, or that became due while they were being worked.
    dirty: HashSet<T>,
    /// Keys that are being worked (none), or rest until then.
    busy: HashMap<T, Option<Instant>>,
    resting: BTreeSet<(Instant, T)>,
    /// Those of them that are dirty: who rests unasked need not wake anybody.
    awaited: BTreeSet<(Instant, T)>,
    timers: BTreeSet<(Instant, T)>,
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
}

impl<T: Key> State<T> {
    fn add(&mut self, key: T) {
        if !self.dirty.insert(key.clone()) {
            return;
        }
        match self.busy.get(&key) {
            None => self.ready.push_back(key),
            Some(None) => {}
            Some(Some(until)) => {
                self.awaited.insert((*until, key));
            }
        }
    }

    /// Keeps the earlier of two deadlines of a key.
    fn add_at(&mut self, key: T, at: Instant) {
        if let Some(known) = self.due.get(&key).copied() {
            if known <= at {
                return;
            }
            self.timers.remove(&(known, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.timers.insert((at, key));
    }

    /// Moves what is due to the ready keys and takes the next of these.
    fn take(&mut self, now: Instant) -> Option<T> {
        while self.resting.first().is_some_and(|(until, _)| *until <= now) {
            if let Some(rested) = self.resting.pop_first() {
                self.awaited.remove(&rested);
                self.done(&rested.1);
            }
        }
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.timers.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.busy.insert(key.clone(), None);
        Some(key)
    }

    fn rest(&mut self, key: T, until: Instant) {
        self.busy.insert(key.clone(), Some(until));
        if self.dirty.contains(&key) {
            self.awaited.insert((until, key.clone()));
        }
        self.resting.insert((until, key));
    }

    fn done(&mut self, key: &T) {
        self.busy.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let first = |times: &BTreeSet<(Instant, T)>| times.first().map(|(at, _)| *at);
        first(&self.timers).into_iter().chain(first(&self.awaited)).min()
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

/// A queue of keys. Cheap to clone; all clones are the same queue.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: Key> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Key> Queue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    ready: VecDeque::new(),
                    dirty: HashSet::new(),
                    busy: HashMap::new(),
                    resting: BTreeSet::new(),
                    awaited: BTreeSet::new(),
                    timers: BTreeSet::new(),
                    due: HashMap::new(),
                    failures: HashMap::new(),
                }),
                changed: Notify::new(),
            }),
        }
    }

    /// Queues a key to be worked now.
    pub fn add(&self, key: T) {
        self.shared.state.lock().add(key);
        self.shared.changed.notify_one();
    }

    /// Queues a key to be worked after `delay`, or earlier if that was already asked for.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.shared.state.lock().add_at(key, Instant::now() + delay);
        self.shared.changed.notify_one();
    }

    /// Queues a key that failed: after 5 ms, doubling with every failure up to 1000 s, until [`Queue::forget`].
    pub fn retry(&self, key: T) {
        let mut state = self.shared.state.lock();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = exponential(RETRY_BASE, RETRY_MAX, *failures);
        *failures = failures.saturating_add(1);
        state.add_at(key, Instant::now() + delay);
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Ends the backoff of a key: it succeeded, or is given up.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often a key has failed since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// Keys that are ready to be worked.
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the next key; it counts as being worked until [`Queue::rest`]. None once cancelled. Meant for one
    /// consumer: [`crate::run`] is the usual one and runs several reconcilers at a time itself.
    pub async fn next(&self, cancel: &CancellationToken) -> Option<T> {
        loop {
            let deadline = {
                let mut state = self.shared.state.lock();
                if let Some(key) = state.take(Instant::now()) {
                    return Some(key);
                }
                state.deadline()
            };
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return None,
                () = self.shared.changed.notified() => {}
                () = due => {}
            }
        }
    }

    /// Ends the work on a key, which is not worked again before it has rested so long. If it was queued meanwhile it is
    /// ready then.
    pub fn rest(&self, key: T, rest: Duration) {
        let mut state = self.shared.state.lock();
        if rest.is_zero() {
            state.done(&key);
        } else {
            state.rest(key, Instant::now() + rest);
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
