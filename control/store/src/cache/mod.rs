//! The state in memory, all reads of it, and the way to watchers.
//!
//! One writer (the committer) calls [`Cache::publish`] with a batch of events; everyone else reads. The state is a
//! persistent map a resource: publishing swaps a pointer, and whoever holds the old state goes on reading it.
//!
//! The order within a publish matters: events enter the feeds first but stay invisible; then the state is swapped,
//! then the published revision moves, which makes the events visible; only then are watchers woken. So whoever has
//! seen an event finds it in the state.

mod feed;
mod state;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{At, Entry, Event, Key, List, Range, StoreError};
use feed::Hub;
pub use feed::Window;
pub(crate) use state::{State, Table};
pub use watch::Watch;

/// The newest committed revision, for those that must not see further. Shared with every watch.
#[derive(Debug)]
pub(crate) struct Published {
    revision: AtomicU64,
    changed: tokio::sync::watch::Sender<u64>,
}

impl Published {
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }
}

/// The state, its recent history and its watchers.
#[derive(Debug)]
pub(crate) struct Cache {
    state: ArcSwap<State>,
    hub: Arc<Mutex<Hub>>,
    published: Arc<Published>,
}

impl Cache {
    /// A cache that begins at `state`; the history begins there as well.
    pub(crate) fn new(state: State, window: Window) -> Self {
        let revision = state.revision;
        Self {
            state: ArcSwap::from_pointee(state),
            hub: Arc::new(Mutex::new(Hub::new(revision, window))),
            published: Arc::new(Published {
                revision: AtomicU64::new(revision),
                changed: tokio::sync::watch::Sender::new(revision),
            }),
        }
    }

    /// The state at the newest committed revision.
    pub(crate) fn state(&self) -> Arc<State> {
        self.state.load_full()
    }

    pub(crate) fn revision(&self) -> u64 {
        self.published.revision()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.state.load().get(key).cloned()
    }

    pub(crate) fn list(&self, range: &Range, at: At) -> Result<List, StoreError> {
        let state = self.state.load();
        match at {
            At::Latest => {}
            At::NotOlderThan(revision) | At::Exact(revision) if revision > state.revision => {
                return Err(StoreError::Future { current: state.revision });
            }
            At::NotOlderThan(_) => {}
            At::Exact(revision) => {
                let undo = self.hub.lock().between(&range.resource, revision, state.revision)?;
                let table = state.table_before(&range.resource, &undo);
                return Ok(state::list(&table, range, revision));
            }
        }
        Ok(match state.table(&range.resource) {
            Some(table) => state::list(table, range, state.revision),
            None => List { revision: state.revision, entries: Vec::new(), count: 0 },
        })
    }

    pub(crate) fn watch(&self, range: Range, from: u64) -> Result<Watch, StoreError> {
        let current = self.revision();
        if from > current {
            return Err(StoreError::Future { current });
        }
        Watch::begin(range, from, &self.hub, &self.published)
    }

    pub(crate) fn compact(&self, revision: u64) -> Result<(), StoreError> {
        let current = self.revision();
        if revision > current {
            return Err(StoreError::Future { current });
        }
        self.hub.lock().compact(revision);
        Ok(())
    }

    pub(crate) async fn wait_for(&self, revision: u64, timeout: Duration) -> Result<(), StoreError> {
        let mut changed = self.published.changed.subscribe();
        let reached = changed.wait_for(|published| *published >= revision);
        match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreError::Future { current: self.revision() }),
        }
    }

    /// Makes `state`, reached through `events`, the newest one. Watchers are woken when the returned guard is
    /// dropped, so that writers can be answered before.
    pub(crate) fn publish(&self, state: State, events: Vec<Arc<Event>>) -> Wake<'_> {
        let revision = state.revision;
        let feeds = self.hub.lock().push(events);
        self.state.store(Arc::new(state));
        self.published.revision.store(revision, Ordering::Release);
        Wake { cache: self, feeds, revision }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.hub.lock().close();
    }
}

/// The watchers to wake after a publish.
#[must_use]
pub(crate) struct Wake<'a> {
    cache: &'a Cache,
    feeds: Vec<Arc<feed::Feed>>,
    revision: u64,
}

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        for feed in self.feeds.drain(..) {
            feed.wake(self.revision);
        }
        self.cache.published.changed.send_replace(self.revision);
    }
}
