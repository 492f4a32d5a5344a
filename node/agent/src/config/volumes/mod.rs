//! A Pod's volumes on this node, and a container's mounts of them.
//!
//! ```text
//! <pod dir>/volumes/<name>           emptyDir (a directory or a tmpfs)
//! <written>/<uid>/<name>             what the agent writes from ConfigMaps, Secrets, fields, tokens: in memory, where the node can
//! <data dir>/volumes/<volume>        PersistentVolumes of the class local-path
//! /run/wherry/subpaths-…             where a subPath is mounted while a container is made ([`pins`])
//! ```
//! hostPath, local volumes and unpacked images lie where they lie. Kinds that this node has not are refused with the field's
//! path.
//!
//! What the agent writes is known, with all that can be wrong about it, before any container is started; its files are made once somebody
//! needs them ([`Deferred`]).
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
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};
use wherry_runtime::Make as _;

use super::ConfigError;
use super::deferred::Deferred;
use super::projection::{self, Payload, Source};
pub(crate) use mounts::mounts;
pub(crate) use ownership::Ownership;
pub(crate) use pins::Pins;
pub(crate) use unmount::{Mounted, mounted, remove_all, remove_each, unmount_at, unmount_below};

/// Where a volume lies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// Whatever its mounts say.
    pub(crate) read_only: bool,
    /// Nothing in it is run as a program.
    pub(crate) no_exec: bool,
    /// What the agent writes there.
    pub(crate) files: Option<Arc<Deferred>>,
}

impl Place {
    /// Sees to it that something is there.
    pub(crate) fn make(&self) -> io::Result<()> {
        self.files.as_ref().map_or(Ok(()), |files| files.make())
    }
}

/// More than this does not wait in the agent's memory until somebody needs it.
const WAITING_BYTES: usize = 16 << 10;

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
            Place { path: path.clone(), read_only: true, no_exec: true, ..Place::default() }
        } else {
            let path = source.written.join(&volume.name);
            let files = written(&path, volume, source, owner.as_ref(), &field)?;
            Place { path, read_only: true, files: Some(Arc::new(files)), ..Place::default() }
        };
        volumes.insert(volume.name.clone(), place);
    }
    Ok(volumes)
}

fn all(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

/// Has the volumes follow their ConfigMaps, Secrets, fields and tokens: those that have been written are written again.
pub(crate) fn refresh(volumes: &Volumes, source: &Source<'_>) -> Result<(), ConfigError> {
    let owner = Ownership::of(source.pod);
    for (n, volume) in all(source.pod).enumerate() {
        let Some(Place { path, files: Some(files), .. }) = volumes.get(&volume.name) else { continue };
        let payload = named(volume, payload(volume, source, &format!("spec.volumes[{n}]")))?;
        let large = projection::size(&payload) > WAITING_BYTES;
        let replaced = files.replace(writing(path, payload, owner.as_ref()));
        let done = replaced.and_then(|()| if large { files.make() } else { Ok(()) });
        done.map_err(|error| not_written(volume, &error))?;
    }
    Ok(())
}

/// What a volume is to hold, written when somebody needs it: at once where that is much, or was done by an earlier life of the agent, whose
/// containers may have it.
fn written(
    path: &Path,
    volume: &Volume,
    source: &Source<'_>,
    owner: Option<&Ownership>,
    field: &str,
) -> Result<Deferred, ConfigError> {
    let payload = named(volume, payload(volume, source, field))?;
    let at_once = projection::size(&payload) > WAITING_BYTES || path.exists();
    let files = Deferred::new(writing(path, payload, owner));
    if at_once {
        files.make().map_err(|error| not_written(volume, &error))?;
    }
    Ok(files)
}

fn writing(
    path: &Path,
    payload: Payload,
    owner: Option<&Ownership>,
) -> impl Fn() -> io::Result<()> + Send + 'static + use<> {
    let (path, group) = (path.to_owned(), owner.map(|owner| owner.group));
    move || projection::write(&path, &payload, group).map(drop)
}

fn not_written(volume: &Volume, error: &io::Error) -> ConfigError {
    ConfigError::io(format!("cannot write volume {}", volume.name), error)
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

/// Removes what was made below `dir` and `written`; nothing is made of `volumes` after this.
pub(crate) fn tear_down(dir: &Path, written: &Path, volumes: &Volumes) -> io::Result<()> {
    for place in volumes.values() {
        place.files.iter().for_each(|files| files.close());
    }
    remove_all(&dir.join("volumes"))?;
    remove_all(written)
}
