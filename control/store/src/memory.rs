//! The store without a disk: for tests of what stands above it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    At, Entry, Key, List, Range, Store, StoreError, Watch, Window, Write, batch,
    cache::{Cache, State},
};

/// A [`Store`] in memory. All is lost with it.
#[derive(Debug)]
pub struct MemoryStore {
    cache: Cache,
    writer: Mutex<()>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_window(Window::default())
    }

    /// An empty store that keeps so much history.
    pub fn with_window(window: Window) -> Self {
        Self { cache: Cache::new(State::default(), window), writer: Mutex::new(()) }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn revision(&self) -> u64 {
        self.cache.revision()
    }

    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.cache.get(key)
    }

    fn list(&self, range: &Range, at: At) -> Result<List, StoreError> {
        self.cache.list(range, at)
    }

    async fn write(&self, write: Write) -> Result<Arc<Entry>, StoreError> {
        let _one_writer = self.writer.lock();
        let mut state = State::clone(&self.cache.state());
        let event = Arc::new(batch::decide(&state, write, state.revision + 1)?);
        state.apply(&event);
        let entry = event.entry.clone();
        drop(self.cache.publish(state, vec![event]));
        Ok(entry)
    }

    fn watch(&self, range: Range, from: u64) -> Result<Watch, StoreError> {
        self.cache.watch(range, from)
    }

    fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.cache.compact(revision)
    }

    async fn wait_for(&self, revision: u64, timeout: Duration) -> Result<(), StoreError> {
        self.cache.wait_for(revision, timeout).await
    }
}
