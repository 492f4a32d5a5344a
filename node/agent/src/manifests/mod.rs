//! Static Pods: manifests in a directory of the node, which run there whatever the API server says.
//!
//! ```text
//!  inotify ─► the directory, read as a whole ([`read`]) ─► what is wanted, by the Pods' names ─► driver
//! ```
//!
//! Source of the behaviour: kubelet's `pkg/kubelet/config`. A Pod's name is the manifest's with the node's behind it, its uid a hash
//! of the manifest, so that another manifest is another Pod. It refers to nothing of the API. Files whose names begin with a dot are
//! left alone, directories as well.
//!
//! # Guarantees
//! - A file that cannot be read as a Pod any more changes nothing of the Pod that it was before; the log says what is wrong with it.
//! - Of two files with Pods of one name the last by its name counts.

mod read;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use watch::Watch;

/// A Pod's namespace and name.
pub(crate) type Key = (String, String);

/// What is to run, by its name.
pub(crate) type Wanted = BTreeMap<Key, Arc<Pod>>;

/// A directory of manifests.
pub(crate) struct Manifests {
    dir: PathBuf,
    node: String,
    watch: Watch,
    /// What each file said when it could be read last.
    files: HashMap<OsString, Arc<Pod>>,
}

impl Manifests {
    /// Watches a directory for `node`.
    ///
    /// # Errors
    /// The system's: the directory is not there, or cannot be watched.
    pub(crate) fn open(dir: &Path, node: &str) -> io::Result<Self> {
        Ok(Self { dir: dir.to_owned(), node: node.to_owned(), watch: Watch::new(dir)?, files: HashMap::new() })
    }

    /// What is wanted now.
    pub(crate) fn read(&mut self) -> Wanted {
        match self.names() {
            Ok(names) => {
                self.files.retain(|name, _| names.contains(name));
                for name in names {
                    self.read_file(name);
                }
            }
            Err(error) => tracing::warn!(dir = %self.dir.display(), %error, "cannot read the Pods' manifests"),
        }
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_by(|one, other| one.0.cmp(other.0));
        files.into_iter().map(|(_, pod)| (key(pod), pod.clone())).collect()
    }

    /// Waits until something in the directory has changed, and for ever once it cannot be watched any more.
    pub(crate) async fn changed(&mut self) {
        if let Err(error) = self.watch.changed().await {
            tracing::error!(dir = %self.dir.display(), %error, "the Pods' manifests are not watched any more");
            std::future::pending().await
        }
    }

    fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            if !name.as_encoded_bytes().starts_with(b".") && self.dir.join(&name).is_file() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read_file(&mut self, name: OsString) {
        let path = self.dir.join(&name);
        // One without content is about to be written.
        if std::fs::metadata(&path).is_ok_and(|meta| meta.len() == 0) {
            return;
        }
        match read::pod(&path, &self.node) {
            // The time at which it was seen first stays.
            Ok(pod) if self.files.get(&name).is_some_and(|known| known.metadata.uid == pod.metadata.uid) => {}
            Ok(pod) => {
                self.files.insert(name, Arc::new(pod));
            }
            Err(problem) => tracing::error!(file = %path.display(), problem, "a manifest cannot be used"),
        }
    }
}

/// A Pod's name.
pub(crate) fn key(pod: &Pod) -> Key {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    const POD: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: 'i:1'}]}\n";

    #[tokio::test]
    async fn what_the_directory_holds_is_wanted_and_changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("web.yaml"), POD).unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), POD.replace("web", "hidden")).unwrap();
        std::fs::create_dir(dir.path().join("deeper")).unwrap();
        let mut manifests = Manifests::open(dir.path(), "node-1").unwrap();
        let first = manifests.read();
        let web = ("default".to_owned(), "web-node-1".to_owned());
        assert_eq!(first.keys().collect::<Vec<_>>(), [&web]);

        let soon = Duration::from_secs(20);
        // Half a manifest, and then none: it stays what it was.
        std::fs::write(dir.path().join("web.yaml"), "kind: [").unwrap();
        tokio::time::timeout(soon, manifests.changed()).await.unwrap();
        assert_eq!(manifests.read()[&web].metadata.uid, first[&web].metadata.uid);
        std::fs::write(dir.path().join("new"), POD.replace("i:1", "i:2")).unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join("web.yaml")).unwrap();
        tokio::time::timeout(soon, manifests.changed()).await.unwrap();
        let second = manifests.read();
        assert_ne!(second[&web].metadata.uid, first[&web].metadata.uid);
        std::fs::remove_file(dir.path().join("web.yaml")).unwrap();
        tokio::time::timeout(soon, manifests.changed()).await.unwrap();
        assert!(manifests.read().is_empty());
    }
}
