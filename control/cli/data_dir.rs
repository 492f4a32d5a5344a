//! Where a cluster's files lie, and whose they are while it runs.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use etcetera::BaseStrategy;

/// How long the lock may be held by what is already ending.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A cluster's directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// The directory that was asked for, or `wherry` in the user's data directory; it may not be there.
    pub(crate) fn find(wanted: Option<PathBuf>) -> anyhow::Result<Self> {
        Ok(Self(match wanted {
            Some(path) => path,
            None => etcetera::choose_base_strategy()
                .context("there is no home directory: name a directory with --data-dir")?
                .data_dir()
                .join("wherry"),
        }))
    }

    /// As [`find`](Self::find), made where it is not there.
    pub(crate) fn resolve(wanted: Option<PathBuf>) -> anyhow::Result<Self> {
        let Self(path) = Self::find(wanted)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        Ok(Self(path.canonicalize()?))
    }

    /// Makes this process the only one that runs this cluster; the lock ends with the file.
    pub(crate) fn lock(&self) -> anyhow::Result<File> {
        let path = self.0.join("lock");
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match lock_within(&file, LOCK_PATIENCE) {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => bail!(
                "another wherry runs the cluster in {}: stop it, or name another directory with --data-dir",
                self.0.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The images of all nodes of this directory.
    pub(crate) fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    /// Namespaces of the nodes and Pods.
    pub(crate) fn network(&self) -> PathBuf {
        self.0.join("network")
    }

    /// The configuration of registries, where there is one.
    pub(crate) fn registries(&self) -> Option<PathBuf> {
        let path = self.0.join("registries.yaml");
        path.exists().then_some(path)
    }
}

/// Locks a file that is free or about to be: a process that was killed while it started a child leaves its lock to the child
/// until that has become another program.
fn lock_within(file: &File, patience: Duration) -> Result<(), TryLockError> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {}
        other => return other,
    }
    let waiting = file.try_clone().map_err(TryLockError::Error)?;
    let (told, locked) = mpsc::sync_channel(1);
    // Where the patience ends first, this thread ends with the process, which is then refused.
    thread::spawn(move || told.send(waiting.lock()));
    match locked.recv_timeout(patience) {
        Ok(result) => result.map_err(TryLockError::Error),
        Err(_) => Err(TryLockError::WouldBlock),
    }
}
