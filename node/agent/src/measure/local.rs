//! What a Pod has on its node's disk: its emptyDirs there, what its containers have written into their own root, their logs.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wherry_runtime::{ContainerId, DiskUse, Runtime};

use crate::shortage::LocalUse;

/// A run that goes on, and what runs it.
type LiveRun = (ContainerId, Arc<dyn Runtime>);

/// Where a Pod's local files are.
pub(crate) struct LocalFiles {
    /// Its directory: a container's logs lie in one of the container's name, volumes in `volumes`.
    pub(crate) dir: PathBuf,
    /// Its emptyDirs on disk.
    pub(crate) volumes: Vec<String>,
    /// Its containers, with the run of those that are live.
    pub(crate) containers: Vec<(String, Option<LiveRun>)>,
}

impl LocalFiles {
    /// Measures them. What cannot be measured (a run that has just ended, a volume that is not made yet) takes nothing.
    pub(crate) async fn measure(self) -> LocalUse {
        let Self { dir, volumes, containers } = self;
        let mut roots: Vec<(String, DiskUse)> = Vec::new();
        for (name, live) in &containers {
            if let Some((id, runtime)) = live {
                roots.push((name.clone(), runtime.disk(id).await.unwrap_or_default()));
            }
        }
        let walked = tokio::task::spawn_blocking(move || {
            let of = |path: PathBuf| used(&path).unwrap_or_default();
            let logs = containers.into_iter().map(|(name, _)| (name.clone(), of(dir.join(name)))).collect();
            let volumes = volumes.into_iter().map(|name| (name.clone(), of(dir.join("volumes").join(name)))).collect();
            LocalUse { volumes, containers: logs }
        });
        let mut found = walked.await.unwrap_or_default();
        for (name, root) in roots {
            *found.containers.entry(name).or_default() += root;
        }
        found
    }
}

/// The space that everything beneath a directory takes on its disk; a file with several names counts once. What goes meanwhile
/// counts as nothing, other filesystems do not count.
fn used(dir: &Path) -> io::Result<DiskUse> {
    let root = std::fs::symlink_metadata(dir)?;
    let mut total = DiskUse::default();
    let mut linked = HashSet::new();
    let mut directories: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != root.dev() || (meta.nlink() > 1 && meta.is_file() && !linked.insert(meta.ino())) {
                continue;
            }
            total += DiskUse { bytes: meta.blocks() * 512, inodes: 1 };
            if meta.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_counts_once_and_what_a_link_leads_to_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volumes/v");
        std::fs::create_dir_all(volume.join("deep")).unwrap();
        std::fs::write(volume.join("deep/file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(volume.join("deep/file"), volume.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", volume.join("link")).unwrap();
        std::fs::create_dir(dir.path().join("c")).unwrap();
        std::fs::write(dir.path().join("c/0.log"), vec![1; 100_000]).unwrap();
        let files = LocalFiles {
            dir: dir.path().to_owned(),
            volumes: vec!["v".to_owned(), "missing".to_owned()],
            containers: vec![("c".to_owned(), None), ("d".to_owned(), None)],
        };
        let found = files.measure().await;
        assert!((1 << 20..2 << 20).contains(&found.volumes["v"].bytes), "{found:?}");
        assert!((100_000..200_000).contains(&found.containers["c"].bytes), "{found:?}");
        assert_eq!(found.volumes["v"].inodes, 3, "deep, file and link");
        assert_eq!((found.volumes["missing"], found.containers["d"]), Default::default());
    }
}
