//! Work done inside a node's network.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use nix::sched::{CloneFlags, setns};
use wherry_test::Cluster;

/// The network namespace of a node.
pub(crate) fn node(cluster: &Cluster, name: &str) -> PathBuf {
    cluster.data_dir().join("network/nodes").join(name)
}

/// Moves this thread into a network namespace, for good.
pub(crate) fn enter(netns: &Path) -> anyhow::Result<()> {
    let file = File::open(netns).with_context(|| netns.display().to_string())?;
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

/// Runs `work` on a thread inside a network namespace.
pub(crate) fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(netns)?;
            work()
        });
        thread.join().map_err(|_| anyhow!("the work inside {} panicked", netns.display()))?
    })
}
