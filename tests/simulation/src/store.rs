//! The store, with a witness at its side who sees every revision, in order, at the moment at which it comes to be.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use wherry_store::{At, Entry, Key, List, MemoryStore, Op, Range, Store, StoreError, Watch, Window, Write};

use crate::witness::Witness;

/// History is short, so that watches that come late are told to begin anew.
const WINDOW: Window = Window { age: Duration::from_secs(600), events: 400, bytes: 128 << 20 };

/// The store of the simulated cluster.
pub(crate) struct Witnessed {
    inner: MemoryStore,
    witness: Arc<Witness>,
}

impl Witnessed {
    pub(crate) fn new(witness: Arc<Witness>) -> Self {
        Self { inner: MemoryStore::with_window(WINDOW), witness }
    }
}

#[async_trait]
impl Store for Witnessed {
    fn revision(&self) -> u64 {
        self.inner.revision()
    }

    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.inner.get(key)
    }

    fn list(&self, range: &Range, at: At) -> Result<List, StoreError> {
        self.inner.list(range, at)
    }

    async fn write(&self, write: Write) -> Result<Arc<Entry>, StoreError> {
        let deletes = matches!(write.op, Op::Delete { .. });
        // In memory a write ends in the poll in which it begins: nothing comes between it and the witness.
        let entry = self.inner.write(write).await?;
        self.witness.see(&entry, deletes);
        Ok(entry)
    }

    fn watch(&self, range: Range, from: u64) -> Result<Watch, StoreError> {
        self.inner.watch(range, from)
    }

    fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.inner.compact(revision)
    }

    async fn wait_for(&self, revision: u64, timeout: Duration) -> Result<(), StoreError> {
        self.inner.wait_for(revision, timeout).await
    }
}
