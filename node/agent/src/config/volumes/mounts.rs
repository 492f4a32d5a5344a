//! A container's mounts of its Pod's volumes.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use wherry_runtime::{Handle, Maker, Mount, Propagation};

use super::{ConfigError, Pins, Volumes, sub_path};
use crate::config::expand::expand;

/// The mounts, in order. `env` expands `subPathExpr`. `pins`: where the container's runtime is another process.
pub(crate) fn mounts(
    container: &Container,
    field: &str,
    volumes: &Volumes,
    env: &[(String, String)],
    pins: Option<&Arc<Pins>>,
) -> Result<Vec<Mount>, ConfigError> {
    let mut mounts = Vec::new();
    for (n, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let Some(volume) = volumes.get(&mount.name) else {
            return Err(ConfigError::Invalid(format!("{field}.volumeMounts[{n}].name: no volume {:?}", mount.name)));
        };
        let sub = wanted(mount, env)?;
        let (source, handle) = if sub.as_os_str().is_empty() {
            (volume.path.clone(), None)
        } else {
            volume.make().and_then(|()| inside(&volume.path, &sub, pins)).map_err(|error| {
                tracing::info!(volume = mount.name, path = %sub.display(), %error, "a subPath cannot be used");
                let text = format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}",
                    mount.name, container.name
                );
                ConfigError::Invalid(text)
            })?
        };
        let read_only = volume.read_only || mount.read_only == Some(true);
        let recursively = mount.recursive_read_only.as_deref();
        mounts.push(Mount {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only,
            no_exec: volume.no_exec,
            read_only_recursively: read_only && matches!(recursively, Some("Enabled" | "IfPossible")),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::FromHost,
                Some("Bidirectional") => Propagation::Both,
                _ => Propagation::None,
            },
            handle,
            maker: volume.files.clone().map(|files| Maker(files)),
        });
    }
    Ok(mounts)
}

/// The path inside the volume that the mount asks for; empty for the whole.
fn wanted(mount: &VolumeMount, env: &[(String, String)]) -> Result<PathBuf, ConfigError> {
    let refuse = |why: String| Err(ConfigError::Invalid(why));
    let sub = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(expr), _) if !expr.is_empty() => {
            let missing = std::cell::RefCell::new(BTreeSet::new());
            let expanded = expand(expr, |name| {
                let value = env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
                if value.as_ref().is_none_or(String::is_empty) {
                    missing.borrow_mut().insert(name.to_owned());
                }
                value
            });
            let missing: Vec<String> = missing.into_inner().into_iter().collect();
            if !missing.is_empty() {
                return refuse(format!("missing value for {}", missing.join(", ")));
            }
            expanded
        }
        (_, Some(path)) => path.clone(),
        _ => String::new(),
    };
    let path = PathBuf::from(&sub);
    if path.is_absolute() {
        return refuse(format!("error SubPath `{sub}` must not be an absolute path"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return refuse(format!("unable to provision SubPath `{sub}`: must not contain '..'"));
    }
    Ok(path)
}

/// By which path what lies there is reached, and what must be kept for it.
fn inside(volume: &Path, sub: &Path, pins: Option<&Arc<Pins>>) -> io::Result<(PathBuf, Option<Handle>)> {
    let handle = sub_path::open(volume, sub)?;
    match pins {
        None => Ok((sub_path::path_of(&handle), Some(Handle(Arc::new(handle))))),
        Some(pins) => {
            let pin = pins.pin(handle)?;
            Ok((pin.place().to_owned(), Some(Handle(Arc::new(pin)))))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_expanded_and_stays_inside() {
        let env = [
            ("NAME".to_owned(), "a".to_owned()),
            ("ROOT".to_owned(), "/x".to_owned()),
            ("NONE".to_owned(), String::new()),
        ];
        let ask = |path: Option<&str>, expr: Option<&str>| {
            let mount = VolumeMount {
                sub_path: path.map(str::to_owned),
                sub_path_expr: expr.map(str::to_owned),
                ..VolumeMount::default()
            };
            wanted(&mount, &env).map_err(|error| error.to_string())
        };
        assert_eq!(ask(None, None).unwrap(), PathBuf::new());
        assert_eq!(ask(Some("a/b"), None).unwrap(), PathBuf::from("a/b"));
        assert_eq!(ask(None, Some("$(NAME)/b")).unwrap(), PathBuf::from("a/b"));
        for (path, expr, why) in [
            (None, Some("$(OTHER)"), "missing value for OTHER"),
            (None, Some("$(NONE)"), "missing value for NONE"),
            (None, Some("$(ROOT)"), "error SubPath `/x` must not be an absolute path"),
            (Some("a/../b"), None, "unable to provision SubPath `a/../b`: must not contain '..'"),
        ] {
            assert_eq!(ask(path, expr), Err(why.to_owned()));
        }
    }
}
