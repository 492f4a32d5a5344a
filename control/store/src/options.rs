//! How to open a store, and the places at which tests may make it fail.

use std::{io, sync::Arc, time::Duration};

use crate::{
    Vault, Window,
    codec::{Codec, Describe},
};

/// How to open a [`crate::LogStore`].
#[derive(Clone)]
pub struct Options {
    pub(crate) codec: Codec,
    /// How much history watches and exact lists can reach back to.
    pub window: Window,
    /// At which size a log segment is followed by a new one and a checkpoint is written.
    pub segment_bytes: u64,
    /// How many revisions the index stays behind the log, at least. What lies between is replayed at start, which gives
    /// watches their history back.
    pub index_lag: u64,
    /// How long the index may take to open and prove itself before it is given up and rebuilt.
    pub index_patience: Duration,
    pub(crate) hook: Hook,
}

impl Options {
    /// The defaults; `describe` derives from a stored object what selectors look at.
    pub fn new(describe: Describe) -> Self {
        Self {
            codec: Codec { describe, vault: None },
            window: Window::default(),
            segment_bytes: 64 << 20,
            index_lag: 4096,
            index_patience: Duration::from_secs(30),
            hook: Arc::new(|_| Ok(())),
        }
    }

    /// Writes the objects that `vault` names encrypted. A store that was written otherwise is written anew when it is opened.
    #[must_use]
    pub fn encrypted(mut self, vault: Vault) -> Self {
        self.codec.vault = Some(Arc::new(vault));
        self
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("window", &self.window).field("segment_bytes", &self.segment_bytes).finish()
    }
}

/// The steps of a commit, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing has been written.
    BeforeWrite,
    /// An error here leaves half a batch in the file, and then...
    Tear,
    /// ...half of the batch is in the file.
    Torn,
    /// All of it is in the file.
    Written,
    /// The disk is about to be waited for.
    BeforeSync,
    /// It is on disk.
    Synced,
    /// Readers see it.
    Published,
    /// The writers know.
    Acknowledged,
}

/// Called at each step. An error is treated as the file system's; a test may also end the process in it.
pub(crate) type Hook = Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;
