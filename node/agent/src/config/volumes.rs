//! A Pod's volumes on this node, and a container's mounts of them.
//!
//! Every volume is a directory below `<pod dir>/volumes`, apart from `hostPath`. Kinds that this node has not are refused with
//! the field's path.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};
use wherry_api::quantity::Quantity;
use wherry_runtime::Mount;

use super::ConfigError;
use super::expand::expand;
use super::projection::{self, Payload, Source};

/// Where each of a Pod's volumes lies.
pub(crate) type Volumes = HashMap<String, PathBuf>;

/// Makes (or refreshes) every volume of the Pod below `dir`.
pub(crate) fn set_up(dir: &Path, source: &Source<'_>) -> Result<Volumes, ConfigError> {
    let mut volumes = Volumes::new();
    let spec = source.pod.spec.as_ref();
    let group = group(source.pod);
    for (n, volume) in spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten().enumerate() {
        let field = format!("spec.volumes[{n}]");
        let path = dir.join("volumes").join(&volume.name);
        let path = if let Some(empty) = &volume.empty_dir {
            empty_dir(&path, empty, group, &field)?;
            path
        } else if let Some(host) = &volume.host_path {
            host_path(host, &field)?
        } else {
            let payload = payload(volume, source, &field)?;
            projection::write(&path, &payload, group)
                .map_err(|error| ConfigError::io(format!("cannot write volume {}", volume.name), &error))?;
            path
        };
        volumes.insert(volume.name.clone(), path);
    }
    Ok(volumes)
}

/// The group that the Pod's volumes belong to.
fn group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_ref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Writes the volumes again that follow ConfigMaps, Secrets and tokens.
pub(crate) fn refresh(dir: &Path, source: &Source<'_>) -> Result<(), ConfigError> {
    let group = group(source.pod);
    for (n, volume) in source.pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten().enumerate()
    {
        if volume.empty_dir.is_none() && volume.host_path.is_none() {
            let payload = payload(volume, source, &format!("spec.volumes[{n}]"))?;
            let path = dir.join("volumes").join(&volume.name);
            projection::write(&path, &payload, group)
                .map_err(|error| ConfigError::io(format!("cannot write volume {}", volume.name), &error))?;
        }
    }
    Ok(())
}

fn payload(volume: &Volume, source: &Source<'_>, field: &str) -> Result<Payload, ConfigError> {
    let found = if let Some(map) = &volume.config_map {
        source.config_map(map)
    } else if let Some(secret) = &volume.secret {
        source.secret(secret)
    } else if let Some(downward) = &volume.downward_api {
        source.downward(downward.items.as_deref(), downward.default_mode)
    } else if let Some(projected) = &volume.projected {
        source.projected(field, projected)
    } else {
        let kind = kind(volume);
        return Err(ConfigError::Unsupported {
            field: format!("{field}.{kind}"),
            problem:
                "this node has no such volumes; it has configMap, downwardAPI, emptyDir, hostPath, projected and secret"
                    .to_owned(),
        });
    };
    found.map_err(|error| match error {
        ConfigError::Missing { .. } | ConfigError::MissingKey { .. } => {
            ConfigError::Invalid(format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name))
        }
        error => error,
    })
}

/// The name of the volume's source field.
fn kind(volume: &Volume) -> String {
    let tree = serde_json::to_value(volume).unwrap_or_default();
    let fields = tree.as_object();
    fields
        .and_then(|fields| fields.keys().find(|field| *field != "name"))
        .cloned()
        .unwrap_or_else(|| "source".to_owned())
}

fn empty_dir(path: &Path, volume: &EmptyDirVolumeSource, group: Option<u32>, field: &str) -> Result<(), ConfigError> {
    let made = |error: io::Error| ConfigError::io(format!("cannot make {}", path.display()), &error);
    fs::create_dir_all(path).map_err(made)?;
    match volume.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => memory(path, volume, field)?,
        other => {
            let problem = format!("medium {other} is not supported; use \"\" or Memory");
            return Err(ConfigError::Unsupported { field: format!("{field}.emptyDir.medium"), problem });
        }
    }
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(made)?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(made)
}

/// A tmpfs, once.
fn memory(path: &Path, volume: &EmptyDirVolumeSource, field: &str) -> Result<(), ConfigError> {
    use nix::mount::{MsFlags, mount};
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};
    if statfs(path).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC) && is_mount_point(path) {
        return Ok(());
    }
    let limit = volume
        .size_limit
        .as_ref()
        .and_then(|limit| Quantity::parse(&limit.0).ok())
        .map(|limit| limit.value())
        .filter(|limit| *limit > 0);
    let options = limit.map_or_else(|| "mode=0777".to_owned(), |limit| format!("mode=0777,size={limit}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str())).map_err(|error| ConfigError::Unsupported {
        field: format!("{field}.emptyDir.medium"),
        problem: format!("cannot mount a tmpfs ({error}); it needs root"),
    })
}

fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    path.parent().is_some_and(|parent| device(parent) != device(path))
}

fn host_path(volume: &HostPathVolumeSource, field: &str) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&volume.path);
    let kind = volume.type_.as_deref().unwrap_or_default();
    let failed = |error: io::Error| ConfigError::io(format!("hostPath {}", volume.path), &error);
    match kind {
        "DirectoryOrCreate" => fs::create_dir_all(&path).map_err(failed)?,
        "FileOrCreate" => {
            fs::OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        }
        _ => {}
    }
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        // Without a type nothing is checked; a missing directory is made, as container runtimes do.
        Err(error) if kind.is_empty() && error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(&path).map_err(failed)?;
            return Ok(path);
        }
        Err(error) => return Err(failed(error)),
    };
    let fits = match kind {
        "" => true,
        "Directory" | "DirectoryOrCreate" => meta.is_dir(),
        "File" | "FileOrCreate" => meta.is_file(),
        "Socket" => meta.file_type().is_socket(),
        "CharDevice" => meta.file_type().is_char_device(),
        "BlockDevice" => meta.file_type().is_block_device(),
        other => {
            let problem = format!("unknown type {other:?}");
            return Err(ConfigError::Unsupported { field: format!("{field}.hostPath.type"), problem });
        }
    };
    if fits {
        Ok(path)
    } else {
        Err(ConfigError::Invalid(format!("hostPath type check failed: {} is not a {kind}", volume.path)))
    }
}

/// A container's mounts of its Pod's volumes. `env` expands `subPathExpr`.
pub(crate) fn mounts(
    container: &Container,
    field: &str,
    volumes: &Volumes,
    env: &[(String, String)],
) -> Result<Vec<Mount>, ConfigError> {
    let mut mounts = Vec::new();
    for (n, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let field = format!("{field}.volumeMounts[{n}]");
        if let Some(mode) = mount.mount_propagation.as_deref().filter(|mode| *mode != "None") {
            let problem = format!("{mode} is not supported by this node");
            return Err(ConfigError::Unsupported { field: format!("{field}.mountPropagation"), problem });
        }
        let Some(volume) = volumes.get(&mount.name) else {
            return Err(ConfigError::Invalid(format!("{field}.name: no volume {:?}", mount.name)));
        };
        let sub = match (&mount.sub_path, &mount.sub_path_expr) {
            (_, Some(expr)) if !expr.is_empty() => {
                let lookup = |name: &str| env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
                expand(expr, lookup)
            }
            (Some(path), _) => path.clone(),
            _ => String::new(),
        };
        let source = if sub.is_empty() { volume.clone() } else { sub_path(volume, &sub, &field)? };
        mounts.push(Mount {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true),
        });
    }
    Ok(mounts)
}

/// A path inside a volume: made where it is missing, and never outside, whatever links lead there.
fn sub_path(volume: &Path, sub: &str, field: &str) -> Result<PathBuf, ConfigError> {
    let outside = || ConfigError::Invalid(format!("{field}.subPath: {sub:?} leads out of the volume"));
    if !Path::new(sub).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(outside());
    }
    let failed = |error: io::Error| ConfigError::io(format!("{field}.subPath"), &error);
    let root = volume.canonicalize().map_err(failed)?;
    let mut path = root.clone();
    for part in Path::new(sub).components() {
        path.push(part);
        match path.canonicalize() {
            Ok(real) if real.starts_with(&root) => path = real,
            Ok(_) => return Err(outside()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&path).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(path)
}

/// Removes the volumes below `dir`, unmounting what is mounted.
pub(crate) fn tear_down(dir: &Path, pod: &Pod) -> io::Result<()> {
    let volumes = dir.join("volumes");
    for volume in pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).into_iter().flatten() {
        let path = volumes.join(&volume.name);
        if volume.empty_dir.is_some() && is_mount_point(&path) {
            nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).map_err(io::Error::from)?;
        }
    }
    match fs::remove_dir_all(&volumes) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_never_leaves_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        fs::create_dir(&volume).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("link")).unwrap();
        assert!(sub_path(&volume, "a/b", "f").unwrap().is_dir());
        for bad in ["../x", "link", "link/passwd", "/etc"] {
            assert!(sub_path(&volume, bad, "f").is_err(), "{bad}");
        }
    }
}
