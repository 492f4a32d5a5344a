//! persistentVolumeClaim and ephemeral: the PersistentVolume that the claim is bound to, where it lies on this node.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Volume};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use wherry_reconcile::{ownership, storage};

use super::{ConfigError, Ownership, Place, host_path};
use crate::config::projection::Source;

/// Where the volume of the Pod's claim lies.
pub(super) fn place(
    volume: &Volume,
    source: &Source<'_>,
    owner: Option<&Ownership>,
    field: &str,
) -> Result<Place, ConfigError> {
    let meta = &source.pod.metadata;
    let (name, read_only) = match &volume.persistent_volume_claim {
        Some(claim) => (claim.claim_name.clone(), claim.read_only == Some(true)),
        None => (format!("{}-{}", meta.name.as_deref().unwrap_or_default(), volume.name), false),
    };
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let failed = |why: String| ConfigError::Invalid(format!("error processing PVC {namespace}/{name}: {why}"));
    let Some(claim) = source.objects.claim(namespace, &name) else {
        return Err(failed(format!("failed to fetch PVC from API server: persistentvolumeclaims {name:?} not found")));
    };
    if volume.ephemeral.is_some()
        && !ownership::is_controlled_by(&claim.metadata, meta.uid.as_deref().unwrap_or_default())
    {
        return Err(failed("PVC was not created for the pod (pod is not the owner)".to_owned()));
    }
    let persistent = bound(&claim, source).map_err(failed)?;
    let path = path(&persistent, source, field)?;
    // hostPath is the node's own: nobody changes its owners.
    let local = persistent.spec.as_ref().is_some_and(|spec| spec.local.is_some());
    if let Some(owner) = owner.filter(|_| local && !read_only) {
        owner.apply(&path).map_err(|error| {
            ConfigError::io(
                format!("MountVolume.SetUp failed for volume \"{}\" : applyFSGroup failed", volume.name),
                &error,
            )
        })?;
    }
    Ok(Place { path, read_only, ..Place::default() })
}

fn bound(claim: &PersistentVolumeClaim, source: &Source<'_>) -> Result<std::sync::Arc<PersistentVolume>, String> {
    if !storage::is_bound(claim) {
        return Err("PVC is not bound".to_owned());
    }
    let name = storage::volume_name(claim);
    let volume = source.objects.volume(name);
    let missing = || format!("failed to fetch PV {name} from API server: persistentvolumes {name:?} not found");
    let volume = volume.ok_or_else(missing)?;
    let held = storage::reference(&volume).and_then(|held| held.uid.as_ref());
    if held != claim.metadata.uid.as_ref() {
        return Err(format!("failed to fetch PV {name} from API server: it is bound to another claim"));
    }
    Ok(volume)
}

fn path(volume: &PersistentVolume, source: &Source<'_>, field: &str) -> Result<PathBuf, ConfigError> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let refuse =
        |problem: String| Err(ConfigError::Unsupported { field: format!("{field}.persistentVolumeClaim"), problem });
    let spec = volume.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return refuse(format!("PersistentVolume {name} is a block device, which this node cannot give to containers"));
    }
    if let Some(node) = storage::local_path_node(volume) {
        if node != source.node_name {
            let text =
                format!("MountVolume.NodeAffinity check failed for volume {name:?} : no matching NodeSelectorTerms");
            return Err(ConfigError::Invalid(text));
        }
        let path = source.local_path.join(name);
        make(&path).map_err(|error| ConfigError::io(format!("cannot make volume {name}"), &error))?;
        return Ok(path);
    }
    if let Some(host) = &spec.host_path {
        return host_path::check(host, field)
            .map_err(|error| ConfigError::Invalid(format!("MountVolume.SetUp failed for volume {name:?} : {error}")));
    }
    let Some(local) = &spec.local else {
        return refuse(format!(
            "this node mounts volumes of kind local and hostPath; PersistentVolume {name} is neither"
        ));
    };
    let path = PathBuf::from(&local.path);
    if path.is_dir() {
        return Ok(path);
    }
    let why = if path.exists() { "is not a directory" } else { "does not exist" };
    let text =
        format!("MountVolume.NewMounter initialization failed for volume {name:?} : path {:?} {why}", local.path);
    Err(ConfigError::Invalid(text))
}

/// A directory for whoever runs in the Pod, made once, however many Pods want it at a time. It gets its name when it is complete.
fn make(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent)?;
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
    fs::set_permissions(fresh.path(), fs::Permissions::from_mode(0o777))?;
    match renameat2(AT_FDCWD, fresh.path(), AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => {
            let _its_name_now: PathBuf = fresh.keep();
            Ok(())
        }
        Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_many_want_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volumes/data");
        std::thread::scope(|scope| {
            for n in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    make(path).unwrap();
                    fs::write(path.join(n.to_string()), "").unwrap();
                });
            }
        });
        assert_eq!(fs::read_dir(&path).unwrap().count(), 16, "nobody's directory was replaced");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o777);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }
}
