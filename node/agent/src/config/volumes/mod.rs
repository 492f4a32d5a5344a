//! A Pod's volumes on this node, and a container's mounts of them.
//!
//! ```text
//! <pod dir>/volumes/<name>           emptyDir (a directory or a tmpfs); what is written from ConfigMaps, Secrets, fields, tokens
//! <data dir>/volumes/<volume>        PersistentVolumes of the class local-path
//! /run/wherry/subpaths-…             where a subPath is mounted while a container is made ([`pins`])
//! ```
//! hostPath, local volumes and unpacked images lie where they lie. Kinds that this node has not are refused with the field's
//! path.
//!
//! Guarantee: a path inside a volume is opened from the volume's root by the kernel, which lets no link and no `..` lead out
//! ([`sub_path`]); ownership is changed the same way ([`ownership`]).

mod claim;
mod empty_dir;
mod host_path;
mod mounts;
mod ownership;
mod pins;
mod sub_path;
mod unmount;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::ConfigError;
use super::projection::{self, Payload, Source};
pub(crate) use mounts::mounts;
pub(crate) use ownership::Ownership;
pub(crate) use pins::Pins;
pub(crate) use unmount::{remove_all, unmount_below};

/// Where a volume lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// Whatever its mounts say.
    pub(crate) read_only: bool,
    /// Nothing in it is run as a program.
    pub(crate) no_exec: bool,
}

/// Where each of a Pod's volumes lies.
pub(crate) type Volumes = HashMap<String, Place>;

/// Makes (or refreshes) every volume of the Pod below `dir`. `images`: where those of image volumes have been unpacked, by the
/// volume's name.
pub(crate) fn set_up(
    dir: &Path,
    source: &Source<'_>,
    images: &HashMap<String, PathBuf>,
) -> Result<Volumes, ConfigError> {
    let mut volumes = Volumes::new();
    let owner = Ownership::of(source.pod);
    for (n, volume) in all(source.pod).enumerate() {
        let field = format!("spec.volumes[{n}]");
        let path = dir.join("volumes").join(&volume.name);
        let place = if let Some(empty) = &volume.empty_dir {
            empty_dir::make(&path, empty, source, owner.as_ref(), &field)?;
            Place { path, ..Place::default() }
        } else if let Some(host) = &volume.host_path {
            Place { path: named(volume, host_path::check(host, &field))?, ..Place::default() }
        } else if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
            claim::place(volume, source, owner.as_ref(), &field)?
        } else if let Some(path) = images.get(&volume.name) {
            Place { path: path.clone(), read_only: true, no_exec: true }
        } else {
            write(&path, volume, source, owner.as_ref(), &field)?;
            Place { path, read_only: true, ..Place::default() }
        };
        volumes.insert(volume.name.clone(), place);
    }
    Ok(volumes)
}

fn all(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// Writes the volumes again that follow ConfigMaps, Secrets, fields and tokens.
pub(crate) fn refresh(dir: &Path, source: &Source<'_>) -> Result<(), ConfigError> {
    let owner = Ownership::of(source.pod);
    for (n, volume) in all(source.pod).enumerate() {
        let follows = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        if follows {
            let path = dir.join("volumes").join(&volume.name);
            write(&path, volume, source, owner.as_ref(), &format!("spec.volumes[{n}]"))?;
        }
    }
    Ok(())
}

fn write(
    path: &Path,
    volume: &Volume,
    source: &Source<'_>,
    owner: Option<&Ownership>,
    field: &str,
) -> Result<(), ConfigError> {
    let payload = named(volume, payload(volume, source, field))?;
    projection::write(path, &payload, owner.map(|owner| owner.group))
        .map(drop)
        .map_err(|error| ConfigError::io(format!("cannot write volume {}", volume.name), &error))
}

fn payload(volume: &Volume, source: &Source<'_>, field: &str) -> Result<Payload, ConfigError> {
    if let Some(map) = &volume.config_map {
        source.config_map(map)
    } else if let Some(secret) = &volume.secret {
        source.secret(secret)
    } else if let Some(downward) = &volume.downward_api {
        source.downward(downward.items.as_deref(), downward.default_mode)
    } else if let Some(projected) = &volume.projected {
        source.projected(field, projected)
    } else {
        let kind = kind(volume);
        let problem = "this node has no such volumes; it has configMap, downwardAPI, emptyDir, ephemeral, hostPath, image, persistentVolumeClaim, projected and secret";
        Err(ConfigError::Unsupported { field: format!("{field}.{kind}"), problem: problem.to_owned() })
    }
}

/// What is wrong with a volume, in kubelet's words.
fn named<T>(volume: &Volume, result: Result<T, ConfigError>) -> Result<T, ConfigError> {
    result.map_err(|error| match error {
        ConfigError::Unsupported { .. } => error,
        error => ConfigError::Invalid(format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name)),
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

/// Removes what was made below `dir`.
pub(crate) fn tear_down(dir: &Path) -> io::Result<()> {
    remove_all(&dir.join("volumes"))
}
