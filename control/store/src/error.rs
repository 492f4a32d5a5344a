//! Why the store says no.

use std::sync::Arc;

use crate::Entry;

/// Why an operation of the store failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The object is at another revision than the write expected. Read again and retry.
    #[error("{} is at revision {}", current.key, current.revision)]
    Conflict {
        /// The object as it is.
        current: Arc<Entry>,
    },
    /// The object to create exists.
    #[error("{} exists already", current.key)]
    Exists {
        /// The object as it is.
        current: Arc<Entry>,
    },
    /// There is no such object to change.
    #[error("there is no such object")]
    NotFound,
    /// The history no longer reaches back to the revision asked for; or a watcher was too slow and was left behind.
    /// List again.
    #[error("the history begins at revision {oldest}")]
    Compacted {
        /// The oldest revision that lists and watches can begin at.
        oldest: u64,
    },
    /// The revision asked for has not been reached.
    #[error("the store is at revision {current}")]
    Future {
        /// The newest committed revision.
        current: u64,
    },
    /// No write is taken until the process is restarted.
    #[error("the store is read-only: {0}")]
    ReadOnly(Arc<str>),
    /// The write was not made, e.g. because the disk is full; a later one may succeed.
    #[error("the write failed: {0}")]
    Io(Arc<str>),
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed later without anything being changed by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Future { .. } | Self::Io(_))
    }
}
