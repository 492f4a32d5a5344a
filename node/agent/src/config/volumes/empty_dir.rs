//! emptyDir: a directory of the Pod's own, on the node's disk or in memory.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod};
use wherry_api::quantity::Quantity;

use super::{ConfigError, Ownership};
use crate::config::projection::Source;

/// Makes it, once: what the Pod has done with it since stays.
pub(super) fn make(
    path: &Path,
    volume: &EmptyDirVolumeSource,
    source: &Source<'_>,
    owner: Option<&Ownership>,
    field: &str,
) -> Result<(), ConfigError> {
    let failed = |error: io::Error| ConfigError::io(format!("cannot make {}", path.display()), &error);
    match volume.medium.as_deref().unwrap_or_default() {
        "" => {
            if !path.exists() {
                // It gets its name once it is complete.
                let fresh = path.with_file_name(format!("..{}", path.file_name().unwrap_or_default().display()));
                fs::create_dir_all(&fresh).and_then(|()| open_to_all(&fresh, owner)).map_err(failed)?;
                fs::rename(&fresh, path).map_err(failed)?;
            }
            Ok(())
        }
        "Memory" => {
            fs::create_dir_all(path).map_err(failed)?;
            if is_mount_point(path) {
                return Ok(());
            }
            let field = format!("{field}.emptyDir.medium");
            mount(path, size(volume, source.pod, source.node.memory_bytes)).map_err(|error| {
                ConfigError::Unsupported { field, problem: format!("cannot mount a tmpfs ({error}); it needs root") }
            })?;
            open_to_all(path, owner).map_err(failed)
        }
        other => {
            let problem = format!("medium {other} is not supported; use \"\" or Memory");
            Err(ConfigError::Unsupported { field: format!("{field}.emptyDir.medium"), problem })
        }
    }
}

fn open_to_all(path: &Path, owner: Option<&Ownership>) -> io::Result<()> {
    if let Some(owner) = owner {
        std::os::unix::fs::chown(path, None, Some(owner.group))?;
    }
    let mode = if owner.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn mount(path: &Path, size: Option<i64>) -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    let options = size.map_or_else(|| "mode=0777".to_owned(), |size| format!("mode=0777,size={size}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))
}

fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    path.parent().is_some_and(|parent| device(parent) != device(path))
}

/// How large a tmpfs may get: as its limit says, and no larger than what the Pod's containers may have together, or the node.
fn size(volume: &EmptyDirVolumeSource, pod: &Pod, node: i64) -> Option<i64> {
    let limits = [limit(volume), memory_of(pod), Some(node)];
    limits.into_iter().flatten().filter(|limit| *limit > 0).min()
}

/// The volume's `sizeLimit` in bytes, where it is one.
pub(super) fn limit(volume: &EmptyDirVolumeSource) -> Option<i64> {
    let limit = Quantity::parse(&volume.size_limit.as_ref()?.0).ok()?.value();
    (limit > 0).then_some(limit)
}

/// The sum of the containers' memory limits, where each has one.
fn memory_of(pod: &Pod) -> Option<i64> {
    let containers = pod.spec.as_ref()?.containers.iter();
    containers
        .map(|container| {
            let limit = container.resources.as_ref()?.limits.as_ref()?.get("memory")?;
            Quantity::parse(&limit.0).ok().map(|limit| limit.value())
        })
        .sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tmpfs_is_no_larger_than_what_the_pod_may_have() {
        let pod = |limits: &[Option<&str>]| {
            let containers: Vec<_> = limits
                .iter()
                .map(|limit| json!({"name": "c", "resources": {"limits": limit.map(|limit| json!({"memory": limit}))}}))
                .collect();
            serde_json::from_value::<Pod>(json!({"spec": {"containers": containers}})).unwrap()
        };
        let volume = |limit: Option<&str>| {
            serde_json::from_value::<EmptyDirVolumeSource>(json!({"medium": "Memory", "sizeLimit": limit})).unwrap()
        };
        for (limit, limits, wanted) in [
            (Some("1Mi"), &[None][..], Some(1 << 20)),
            (None, &[Some("2Mi"), Some("3Mi")], Some(5 << 20)),
            (Some("9Mi"), &[Some("2Mi")], Some(2 << 20)),
            (None, &[Some("2Mi"), None], Some(64 << 20)),
            (Some("0"), &[None], Some(64 << 20)),
        ] {
            assert_eq!(size(&volume(limit), &pod(limits), 64 << 20), wanted, "{limit:?} {limits:?}");
        }
    }
}
