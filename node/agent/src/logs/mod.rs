//! Container logs: one format for both kinds, on disk, readable while they grow.
//!
//! ```text
//!  runtime ─► Output::write ─► frame lines ─► buffer ─► the node's one log thread ─► <attempt>.log
//!                                                                    └► wakes followers (reader.rs)
//! ```
//!
//! The format is CRI's: `2006-01-02T15:04:05.000000000Z stdout F line`. A file that grows over 10 MiB is renamed to
//! `<attempt>.log.<n>`; five are kept.
//!
//! # Guarantees
//! - A line is on disk, or on its way, as soon as `write` has returned; the thread writes what gathered in one go.
//! - `write` waits while more than 256 KiB are unwritten.
//! - A reader sees every line once and in order, across rotation, as long as it keeps up with five files.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod flood;
mod format;
mod reader;
mod writer;

pub(crate) use reader::{LogError, LogOptions};
pub(crate) use writer::{ContainerLog, SharedLog};

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::Stream;
use parking_lot::Mutex;

/// The logs of a node: which are being written, and the thread that writes them.
pub(crate) struct Logs {
    root: PathBuf,
    live: Mutex<HashMap<PathBuf, Arc<ContainerLog>>>,
    writer: writer::Writer,
}

impl Logs {
    /// Logs below `root` (`<data dir>/pods`).
    ///
    /// # Errors
    /// Where the thread cannot be had.
    pub(crate) fn new(root: PathBuf) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { root, live: Mutex::default(), writer: writer::Writer::start()? }))
    }

    /// Where the Pods' directories lie.
    #[must_use]
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a Pod.
    #[must_use]
    pub(crate) fn pod_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.root.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The file of one run of a container.
    #[must_use]
    pub(crate) fn path(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
        pod_dir.join(container).join(format!("{attempt}.log"))
    }

    /// Opens a log for writing, appending to what an earlier life of the agent wrote. Its file is made when something is said.
    ///
    /// # Errors
    /// Where it cannot be known whether there is one.
    pub(crate) fn open(&self, path: &Path) -> io::Result<Arc<ContainerLog>> {
        let log = ContainerLog::open(path, self.writer.handle())?;
        self.live.lock().insert(path.to_owned(), log.clone());
        Ok(log)
    }

    /// Ends a log: what is buffered is written, followers end.
    pub(crate) async fn close(&self, path: &Path) {
        let log = self.live.lock().remove(path);
        if let Some(log) = log {
            log.close().await;
        }
    }

    /// Keeps the newest two runs of a container: the current and the previous.
    pub(crate) fn prune(pod_dir: &Path, container: &str, attempt: u32) {
        let Ok(entries) = std::fs::read_dir(pod_dir.join(container)) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let run = name.to_str().and_then(|name| name.split('.').next()).and_then(|run| run.parse::<u32>().ok());
            if run.is_some_and(|run| run + 1 < attempt) {
                let _gone = std::fs::remove_file(entry.path());
            }
        }
    }

    /// The log at `path` as bytes for a client.
    ///
    /// # Errors
    /// [`LogError::NotFound`] where there is no such file, and nobody writes it.
    pub(crate) async fn read(
        &self,
        path: &Path,
        options: LogOptions,
    ) -> Result<impl Stream<Item = io::Result<bytes::Bytes>> + Send + use<>, LogError> {
        let live = self.live.lock().get(path).cloned();
        reader::read(path.to_owned(), live, options).await
    }

    /// The end of a log, at most `bytes` and `lines`, without stamps: a termination message.
    pub(crate) async fn tail(&self, path: &Path, lines: usize, bytes: usize) -> String {
        use futures::StreamExt as _;
        let options = LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
        let Ok(stream) = self.read(path, options).await else { return String::new() };
        let mut text = Vec::new();
        let mut stream = std::pin::pin!(stream);
        while let Some(Ok(chunk)) = stream.next().await {
            text.extend_from_slice(&chunk);
        }
        let from = text.len().saturating_sub(bytes);
        String::from_utf8_lossy(&text[from..]).into_owned()
    }
}
