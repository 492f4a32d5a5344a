//! emptyDirs on the node's disk that have a size limit: what lies in them is measured, and a Pod that has more is evicted.
//!
//! Nothing tells when a directory grows, so it is looked at every so often, as kubelet does; only Pods with such a limit are.
//! (Those in memory cannot grow beyond theirs: it is the size of their filesystem.)

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use wherry_api::quantity::Quantity;
use wherry_reconcile::EventType;

use super::outcome::Outcome;
use super::record::Uid;
use super::{Driver, Timer};
use crate::lifecycle::{Verdict, add};

/// kubelet's.
const INTERVAL: Duration = Duration::from_secs(10);

/// A volume that may not grow beyond a limit.
struct Limited {
    name: String,
    /// As the manifest has it.
    text: String,
    bytes: u64,
}

fn limited(pod: &Pod) -> Vec<Limited> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| {
            let empty =
                volume.empty_dir.as_ref().filter(|empty| empty.medium.as_deref().unwrap_or_default().is_empty())?;
            let text = empty.size_limit.as_ref()?.0.clone();
            let bytes = u64::try_from(Quantity::parse(&text).ok()?.value()).ok().filter(|bytes| *bytes > 0)?;
            Some(Limited { name: volume.name.clone(), text, bytes })
        })
        .collect()
}

/// The space that everything beneath a directory takes on its disk; a file with several names counts once. What goes meanwhile
/// counts as nothing, other filesystems do not count.
pub(crate) fn used(dir: &Path) -> io::Result<u64> {
    let root = std::fs::symlink_metadata(dir)?;
    let mut total = 0;
    let mut linked = HashSet::new();
    let mut directories: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != root.dev() || (meta.nlink() > 1 && meta.is_file() && !linked.insert(meta.ino())) {
                continue;
            }
            total += meta.blocks() * 512;
            if meta.is_dir() {
                directories.push(entry.path());
            }
        }
    }
    Ok(total)
}

/// The message of the eviction, where a volume has grown beyond its limit.
fn exceeded(volumes: &Path, limited: &[Limited]) -> Option<String> {
    let over =
        limited.iter().find(|limited| used(&volumes.join(&limited.name)).is_ok_and(|used| used > limited.bytes))?;
    Some(format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", over.name, over.text))
}

impl Driver {
    /// Sees to it that the Pod's volumes are measured, if any needs it.
    pub(super) fn watch_usage(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get(uid) else { return };
        let due = !record.ending() && !limited(&record.pod).is_empty();
        self.timers.set(&Timer::Usage(uid.clone()), due.then(|| add(self.shared.clock.now(), INTERVAL)));
    }

    /// Measures them.
    pub(super) fn measure(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get(uid).filter(|record| !record.ending()) else { return };
        let (limited, volumes, uid) = (limited(&record.pod), record.dir.join("volumes"), uid.clone());
        let lost = Outcome::Measured { uid: uid.clone(), over: None };
        self.spawn(lost, async move {
            let over = tokio::task::spawn_blocking(move || exceeded(&volumes, &limited)).await.unwrap_or_default();
            Outcome::Measured { uid, over }
        });
    }

    /// Evicts a Pod that has more than it may.
    pub(super) fn measured(&mut self, uid: &Uid, over: Option<String>) {
        let Some(message) = over else { return self.watch_usage(uid) };
        let Some(record) = self.pods.get_mut(uid).filter(|record| !record.ending()) else { return };
        self.shared.event(&record.pod, EventType::Warning, "Evicted", message.clone());
        record.state.verdict = Some(Verdict { reason: "Evicted".to_owned(), message });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_lies_in_a_volume_is_measured_against_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("deep")).unwrap();
        std::fs::write(volume.join("deep/file"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(volume.join("deep/file"), volume.join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", volume.join("link")).unwrap();
        let found = used(&volume).unwrap();
        assert!((1 << 20..2 << 20).contains(&found), "{found}");
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [], "volumes": [
            {"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "m", "emptyDir": {"sizeLimit": "1", "medium": "Memory"}},
            {"name": "u", "emptyDir": {"sizeLimit": "0"}}, {"name": "w", "emptyDir": {}},
        ]}}))
        .unwrap();
        let limited = limited(&pod);
        assert_eq!(limited.iter().map(|limited| &*limited.name).collect::<Vec<_>>(), ["v"]);
        std::fs::write(volume.join("more"), vec![1; 4096]).unwrap();
        let told = exceeded(dir.path(), &limited).unwrap();
        assert_eq!(told, "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
        std::fs::remove_file(volume.join("deep/file")).unwrap();
        std::fs::remove_file(volume.join("again")).unwrap();
        assert_eq!(exceeded(dir.path(), &limited), None);
    }
}
