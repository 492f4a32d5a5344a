//! What ConfigMap, Secret, downward API and projected volumes hold, and how it is written: all at once.
//!
//! The files lie in a directory of their own per version; `..data` points to the current one and every visible name is a
//! link through it, so that a reader sees one version or the next, never a mixture (as kubelet's atomic writer).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, SecretVolumeSource,
    ServiceAccountTokenProjection,
};

use super::fields::{self, PodFacts};
use super::{ConfigError, Objects};
use crate::driver::shared::Shared;
use crate::driver::tokens::Tokens;
use crate::node::Capacity;

/// Files of a volume, by relative path.
pub(crate) type Payload = BTreeMap<PathBuf, File>;

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    content: Bytes,
    mode: u32,
    /// Whose it is; the agent's own user's, where nobody's.
    owner: Option<u32>,
}

impl File {
    fn new(content: impl Into<Bytes>, mode: u32) -> Self {
        Self { content: content.into(), mode, owner: None }
    }
}

/// Which token a volume asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenAsk {
    /// Whom it is for; the API server, where nobody.
    pub(crate) audience: Option<String>,
    /// How long it should be good.
    pub(crate) seconds: i64,
}

impl TokenAsk {
    pub(crate) fn of(source: &ServiceAccountTokenProjection) -> Self {
        let audience = source.audience.clone().filter(|audience| !audience.is_empty());
        Self { audience, seconds: source.expiration_seconds.unwrap_or(3600) }
    }
}

/// What the values are taken from.
pub(crate) struct Source<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) facts: &'a PodFacts,
    pub(crate) node: &'a Capacity,
    pub(crate) objects: &'a dyn Objects,
    pub(crate) tokens: &'a Tokens,
    pub(crate) node_name: &'a str,
    /// Where this node's volumes of the class local-path lie.
    pub(crate) local_path: &'a Path,
    /// Where the volumes of this Pod lie that the agent writes.
    pub(crate) written: PathBuf,
}

impl<'a> Source<'a> {
    /// From what the agent's tasks share.
    pub(crate) fn new(shared: &'a Shared, pod: &'a Pod, facts: &'a PodFacts, tokens: &'a Tokens) -> Self {
        Self {
            pod,
            facts,
            node: &shared.capacity,
            objects: &*shared.objects,
            tokens,
            node_name: &shared.node_name,
            local_path: &shared.local_path,
            written: shared.written(pod.metadata.uid.as_deref().unwrap_or_default()),
        }
    }
}

const DEFAULT_MODE: i32 = 0o644;

impl Source<'_> {
    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn config_map(&self, volume: &ConfigMapVolumeSource) -> Result<Payload, ConfigError> {
        self.map(&volume.name, volume.items.as_deref(), volume.optional == Some(true), mode(volume.default_mode))
    }

    pub(crate) fn secret(&self, volume: &SecretVolumeSource) -> Result<Payload, ConfigError> {
        let name = volume.secret_name.as_deref().unwrap_or_default();
        self.secret_named(name, volume.items.as_deref(), volume.optional == Some(true), mode(volume.default_mode))
    }

    fn map(&self, name: &str, items: Option<&[KeyToPath]>, optional: bool, mode: u32) -> Result<Payload, ConfigError> {
        let Some(map) = self.objects.config_map(self.namespace(), name) else {
            return if optional {
                Ok(Payload::new())
            } else {
                Err(ConfigError::Missing { kind: "configmap", name: name.to_owned() })
            };
        };
        let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(key, ByteString(bytes))| (key.clone(), bytes.clone()));
        select("ConfigMap", self.namespace(), name, &text.chain(binary).collect(), items, optional, mode)
    }

    fn secret_named(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: u32,
    ) -> Result<Payload, ConfigError> {
        let Some(secret) = self.objects.secret(self.namespace(), name) else {
            return if optional {
                Ok(Payload::new())
            } else {
                Err(ConfigError::Missing { kind: "secret", name: name.to_owned() })
            };
        };
        let data = secret.data.iter().flatten().map(|(key, ByteString(bytes))| (key.clone(), bytes.clone())).collect();
        select("Secret", self.namespace(), name, &data, items, optional, mode)
    }

    pub(crate) fn downward(
        &self,
        items: Option<&[DownwardAPIVolumeFile]>,
        default_mode: Option<i32>,
    ) -> Result<Payload, ConfigError> {
        let mut payload = Payload::new();
        for item in items.unwrap_or_default() {
            let value = if let Some(field) = &item.field_ref {
                fields::field(self.pod, self.facts, &field.field_path)?
            } else if let Some(selector) = &item.resource_field_ref {
                let name = selector.container_name.as_deref().unwrap_or_default();
                let spec = self.pod.spec.as_ref();
                let container = spec.and_then(|spec| {
                    spec.containers
                        .iter()
                        .chain(spec.init_containers.iter().flatten())
                        .find(|container| container.name == name)
                });
                let container = container.ok_or_else(|| ConfigError::Invalid(format!("container {name} not found")))?;
                fields::resource(container, selector, self.node)?
            } else {
                String::new()
            };
            payload.insert(
                safe(&item.path)?,
                File::new(value.into_bytes(), item.mode.map_or(mode(default_mode), |own| mode(Some(own)))),
            );
        }
        Ok(payload)
    }

    pub(crate) fn projected(&self, field: &str, volume: &ProjectedVolumeSource) -> Result<Payload, ConfigError> {
        let mut payload = Payload::new();
        let default = mode(volume.default_mode);
        for (n, source) in volume.sources.iter().flatten().enumerate() {
            if let Some(map) = &source.config_map {
                payload.extend(self.map(&map.name, map.items.as_deref(), map.optional == Some(true), default)?);
            } else if let Some(secret) = &source.secret {
                payload.extend(self.secret_named(
                    &secret.name,
                    secret.items.as_deref(),
                    secret.optional == Some(true),
                    default,
                )?);
            } else if let Some(downward) = &source.downward_api {
                payload.extend(self.downward(downward.items.as_deref(), volume.default_mode)?);
            } else if let Some(token) = &source.service_account_token {
                payload.insert(safe(&token.path)?, self.token(token, default)?);
            } else {
                let field = format!("{field}.projected.sources[{n}]");
                let problem = "this kind of source is not supported by this node yet".to_owned();
                return Err(ConfigError::Unsupported { field, problem });
            }
        }
        Ok(payload)
    }

    /// A token's file: for the containers' user alone where they have one, or for the Pod's group.
    fn token(&self, source: &ServiceAccountTokenProjection, mode: u32) -> Result<File, ConfigError> {
        let token = self.tokens.get(&TokenAsk::of(source));
        let token =
            token.ok_or_else(|| ConfigError::Invalid("the service account token was not fetched".to_owned()))?;
        let owner = common_user(self.pod);
        let grouped = self.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()?.fs_group).is_some();
        let mode = if owner.is_some() || grouped { 0o600 } else { mode };
        Ok(File { content: token.clone(), mode, owner })
    }
}

/// The user that all containers of the Pod run as by its manifest, if it is one.
fn common_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|container| container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

fn mode(mode: Option<i32>) -> u32 {
    mode.unwrap_or(DEFAULT_MODE).unsigned_abs() & 0o777
}

fn select(
    kind: &'static str,
    namespace: &str,
    name: &str,
    data: &BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    default: u32,
) -> Result<Payload, ConfigError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return data.iter().map(|(key, value)| Ok((safe(key)?, File::new(value.clone(), default)))).collect();
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(value) => {
                let mode = item.mode.map_or(default, |own| mode(Some(own)));
                payload.insert(safe(&item.path)?, File::new(value.clone(), mode));
            }
            None if optional => {}
            None => {
                let (key, namespace, name) = (item.key.clone(), namespace.to_owned(), name.to_owned());
                return Err(ConfigError::MissingKey { key, kind, namespace, name });
            }
        }
    }
    Ok(payload)
}

/// How many bytes a payload's files have.
pub(crate) fn size(payload: &Payload) -> usize {
    payload.values().map(|file| file.content.len()).sum()
}

/// A relative path that stays where it is put.
fn safe(path: &str) -> Result<PathBuf, ConfigError> {
    let relative = Path::new(path);
    let inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !inside || path.starts_with("..") {
        return Err(ConfigError::Invalid(format!("invalid path {path:?} in a volume")));
    }
    Ok(relative.to_owned())
}

/// Makes `dir` hold exactly `payload`. False where it did already.
pub(crate) fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let data = dir.join("..data");
    let current = fs::read_link(&data).ok();
    if current.as_ref().is_some_and(|current| holds(&dir.join(current), payload)) {
        return Ok(false);
    }
    let version = (0u64..).map(|n| format!("..{n}")).find(|name| !dir.join(name).exists()).unwrap_or_default();
    let fresh = dir.join(&version);
    fs::create_dir(&fresh)?;
    for (path, File { content, mode, owner }) in payload {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(*mode).open(&target)?;
        file.write_all(content)?;
        // The mode at creation is cut by the umask.
        let mode = if group.is_some() { mode | 0o440 } else { *mode };
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        if group.is_some() || owner.is_some() {
            std::os::unix::fs::fchown(&file, *owner, group)?;
        }
    }
    let next = dir.join("..data_tmp");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&version, &next)?;
    fs::rename(&next, &data)?;
    link(dir, payload)?;
    // The version before, and what a crash has left.
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("..") && text != version && text != "..data" {
            fs::remove_dir_all(dir.join(&name))?;
        }
    }
    Ok(true)
}

/// One visible link for each first name of the payload's paths; links that lead nowhere any more go.
fn link(dir: &Path, payload: &Payload) -> io::Result<()> {
    let names: std::collections::BTreeSet<_> =
        payload.keys().filter_map(|path| path.components().next()).map(|part| part.as_os_str().to_owned()).collect();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
            fs::remove_file(dir.join(name))?;
        }
    }
    for name in names {
        let visible = dir.join(&name);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new("..data").join(&name), visible)?;
        }
    }
    Ok(())
}

fn holds(dir: &Path, payload: &Payload) -> bool {
    fn files(dir: &Path) -> usize {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
    }
    files(dir) == payload.len()
        && payload.iter().all(|(path, file)| fs::read(dir.join(path)).is_ok_and(|found| found == file.content))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files.iter().map(|(path, text)| (PathBuf::from(path), File::new(text.as_bytes().to_vec(), 0o644))).collect()
    }

    #[test]
    fn a_new_version_replaces_the_old_one_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        assert!(write(&volume, &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert_eq!(fs::read_to_string(volume.join("d/b")).unwrap(), "2");
        assert!(!write(&volume, &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert!(write(&volume, &payload(&[("a", "3")]), None).unwrap());
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        let visible: Vec<_> = fs::read_dir(&volume)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| !name.to_string_lossy().starts_with(".."))
            .collect();
        assert_eq!(visible, ["a"]);
    }

    #[test]
    fn a_token_is_its_users_alone_where_all_containers_have_one() {
        let user = |of_pod: Option<i64>, of_containers: [Option<i64>; 2]| {
            let containers: Vec<_> = of_containers
                .iter()
                .map(|user| serde_json::json!({"name": "c", "securityContext": {"runAsUser": user}}))
                .collect();
            let spec = serde_json::json!({"securityContext": {"runAsUser": of_pod}, "containers": containers});
            common_user(&serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap())
        };
        assert_eq!(user(None, [None, None]), None);
        assert_eq!(user(Some(7), [None, None]), Some(7));
        assert_eq!(user(Some(7), [None, Some(8)]), None);
        assert_eq!(user(None, [Some(8), Some(8)]), Some(8));
        assert_eq!(user(None, [Some(8), None]), None);
    }

    #[test]
    fn paths_that_lead_outside_are_refused() {
        for path in ["../x", "/x", "a/../../x", "", "..x"] {
            assert!(safe(path).is_err(), "{path}");
        }
        assert!(safe("a/b.c").is_ok());
    }
}
