//! The shape that every controller has: read caches, turn their changes into keys, work the keys.
//!
//! ```text
//! Feeds::new()
//!     .on(&sets, |change| [change.key()])      // a change of a set is work for it
//!     .on(&pods, move |change| owners(change)) // a change of a Pod is work for its owners
//!     .reading(&nodes)                         // read in passes; its changes are no work
//!     .run(NAME, WORKERS, controller, cancel)
//! ```
//!
//! Nothing is worked before all caches are complete; then every object that exists arrives as a change.

use std::{fmt::Display, sync::Arc};

use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio_util::sync::CancellationToken;

use crate::{Change, Informer, Queue, Reconciler, informer::Kind, queue::Key, worker};

type Feed<T> = Box<dyn FnOnce(Queue<T>, CancellationToken) -> BoxFuture<'static, ()> + Send>;

/// What a controller reads, and which of it is work.
pub struct Feeds<T> {
    queue: Queue<T>,
    synced: Vec<BoxFuture<'static, bool>>,
    feeds: Vec<Feed<T>>,
}

impl<T: Key> Default for Feeds<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Key> Feeds<T> {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self { queue: Queue::new(), synced: Vec::new(), feeds: Vec::new() }
    }

    /// The queue that is fed: for what brings work by itself.
    pub fn queue(&self) -> Queue<T> {
        self.queue.clone()
    }

    /// A cache that passes read: none begins before it is complete.
    pub fn reading<K: Kind>(mut self, informer: &Informer<K>) -> Self {
        let informer = informer.clone();
        self.synced.push(async move { informer.synced().await }.boxed());
        self
    }

    /// A cache whose changes are work for the keys that `keys` names.
    pub fn on<K: Kind, I: IntoIterator<Item = T>>(
        mut self,
        informer: &Informer<K>,
        mut keys: impl FnMut(&Change<K>) -> I + Send + 'static,
    ) -> Self {
        self = self.reading(informer);
        let informer = informer.clone();
        self.feeds.push(Box::new(move |queue, cancel| {
            let feed = async move {
                let mut changes = informer.subscribe();
                while let Some(Some(change)) = cancel.run_until_cancelled(changes.next()).await {
                    keys(&change).into_iter().for_each(|key| queue.add(key));
                }
            };
            feed.boxed()
        }));
        self
    }

    /// Works the keys until `cancel`, as [`crate::run`] does.
    pub async fn run<R: Reconciler<T>>(
        self,
        name: &'static str,
        workers: usize,
        reconciler: Arc<R>,
        cancel: CancellationToken,
    ) where
        T: Display,
    {
        let synced = join_all(self.synced);
        match cancel.run_until_cancelled(synced).await {
            Some(synced) if synced.iter().all(|synced| *synced) => {}
            _ => return,
        }
        let feeds = self.feeds.into_iter().map(|feed| feed(self.queue.clone(), cancel.clone()));
        let work = worker::run(name, self.queue.clone(), workers, reconciler, cancel.clone());
        tokio::join!(join_all(feeds), work);
    }
}
