//! Where a cluster's files lie, and whose they are while it runs.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use etcetera::BaseStrategy;

/// A cluster's directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// The directory that was asked for, or `wherry` in the user's data directory.
    pub(crate) fn resolve(wanted: Option<PathBuf>) -> anyhow::Result<Self> {
        let path = match wanted {
            Some(path) => path,
            None => etcetera::choose_base_strategy()
                .context("there is no home directory: name a directory with --data-dir")?
                .data_dir()
                .join("wherry"),
        };
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
        match file.try_lock() {
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
