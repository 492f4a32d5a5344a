//! Callers who ask for the same thing at the same time share one piece of work.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

use crate::{Progress, Step};

/// Work under way, by key. The work is driven by whoever waits for it, and dropped with the last of them.
pub(crate) struct Sharing<K, T: Clone> {
    running: Mutex<HashMap<K, Running<T>>>,
}

struct Running<T: Clone> {
    work: WeakShared<BoxFuture<'static, T>>,
    listeners: Arc<Listeners>,
}

impl<K: Eq + Hash + Clone, T: Clone> Sharing<K, T> {
    pub(crate) fn new() -> Self {
        Self { running: Mutex::new(HashMap::new()) }
    }

    /// Joins the work of `key`, or begins it.
    pub(crate) async fn run(
        &self,
        key: K,
        progress: Arc<dyn Progress>,
        begin: impl FnOnce(Arc<Listeners>) -> BoxFuture<'static, T>,
    ) -> T {
        let work: Shared<_> = {
            let mut running = self.running.lock();
            running.retain(|_, running| running.work.upgrade().is_some());
            let joined = running
                .get(&key)
                .and_then(|running| running.work.upgrade().map(|work| (work, Arc::clone(&running.listeners))));
            match joined {
                // Work that has ended is not news: what it found may be old by now.
                Some((work, listeners)) if work.peek().is_none() => {
                    listeners.add(&progress);
                    work
                }
                _ => {
                    let listeners = Arc::new(Listeners::default());
                    listeners.add(&progress);
                    let work = begin(Arc::clone(&listeners)).shared();
                    if let Some(weak) = work.downgrade() {
                        running.insert(key, Running { work: weak, listeners });
                    }
                    work
                }
            }
        };
        work.await
    }
}

/// Everybody who wants to hear of one piece of work, as long as they wait for it.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<Weak<dyn Progress>>>);

impl Listeners {
    fn add(&self, progress: &Arc<dyn Progress>) {
        self.0.lock().push(Arc::downgrade(progress));
    }
}

impl Progress for Listeners {
    fn step(&self, step: Step<'_>) {
        let listening: Vec<_> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        for listener in listening {
            listener.step(step);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;
    use crate::Silent;

    #[tokio::test]
    async fn callers_share_and_the_last_one_to_leave_stops_the_work() {
        let sharing = Arc::new(Sharing::<&str, usize>::new());
        let (begun, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let call = || {
            let (sharing, begun, gate) = (Arc::clone(&sharing), Arc::clone(&begun), Arc::clone(&gate));
            async move {
                let work = |_| {
                    async move {
                        let n = begun.fetch_add(1, Ordering::SeqCst) + 1;
                        gate.notified().await;
                        n
                    }
                    .boxed()
                };
                sharing.run("key", Arc::new(Silent), work).await
            }
        };
        let (mut first, mut second) = (Box::pin(call()), Box::pin(call()));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        drop(first);
        gate.notify_one();
        assert_eq!(second.await, 1, "the second caller goes on with the first one's work");

        let mut third = Box::pin(call());
        assert!(futures::poll!(&mut third).is_pending());
        drop(third);
        gate.notify_one();
        assert_eq!(call().await, 3, "abandoned work is not joined");
    }
}
