//! Why the store says no.

use std::{path::PathBuf, sync::Arc};

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

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the data directory {} is in use{}: stop the process that uses it, or choose another data directory", dir.display(),
        if holder.is_empty() { String::new() } else { format!(" by process {holder}") }
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process id, if it is known.
        holder: String,
    },
    /// State that was or may have been acknowledged cannot be read. Nothing was changed.
    #[error(
        "{} is damaged at offset {offset}: {detail}. The store does not open, lest acknowledged state be lost in silence. \
         Restore the data directory from a backup; or, to go on without all that came after the last sound record, cut \
         the file to {offset} bytes, remove later log segments and remove the file `head` beside it", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        detail: String,
    },
    /// The keys do not fit. Nothing was changed.
    #[error("{}: {detail}", path.display())]
    Keys {
        /// The key file, or the file that names the key.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
