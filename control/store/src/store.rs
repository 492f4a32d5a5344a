//! The seam between the API server and whatever keeps the state.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::{At, Entry, Key, List, Range, StoreError, Watch, Write};

/// Keeps the objects of a cluster. Reads come from memory at the newest committed revision and take no lock that a
/// write holds.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest committed revision.
    fn revision(&self) -> u64;

    /// An object as it is.
    fn get(&self, key: &Key) -> Option<Arc<Entry>>;

    /// The objects of a range, all at one revision. [`StoreError::Compacted`] and [`StoreError::Future`] say that `at`
    /// lies outside the history.
    fn list(&self, range: &Range, at: At) -> Result<List, StoreError>;

    /// Makes one change and returns once it is durable (if asked for) and published: the object as it is now; for a
    /// delete, as it was last. Once called, the write may happen even if the future is dropped.
    async fn write(&self, write: Write) -> Result<Arc<Entry>, StoreError>;

    /// The changes of a range after the revision `from`, from the history first and then as they happen.
    fn watch(&self, range: Range, from: u64) -> Result<Watch, StoreError>;

    /// Forgets the history up to and including `revision`.
    fn compact(&self, revision: u64) -> Result<(), StoreError>;

    /// Why no write is taken any more, if so. Reads go on.
    fn refusal(&self) -> Option<Arc<str>> {
        None
    }

    /// Waits until `revision` is committed; [`StoreError::Future`] after `timeout`.
    async fn wait_for(&self, revision: u64, timeout: Duration) -> Result<(), StoreError>;
}
