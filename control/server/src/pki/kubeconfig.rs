//! Writing kubeconfig files.
//!
//! [`Kubeconfig::write`] makes a file of its own; [`Kubeconfig::merge_into`] adds or replaces one cluster, user and
//! context in the file that kubectl uses, keeps everything else, and makes the context current. A file that does
//! not parse is left as it is.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_yaml::{Mapping, Value};

use super::{Credentials, PkiError, files};

/// How to reach a cluster, and as whom.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    /// The name of the cluster, user and context.
    pub name: String,
    /// The API server's URL.
    pub server: String,
    /// The authority's certificate, PEM.
    pub ca: String,
    /// The client certificate.
    pub credentials: Credentials,
}

/// Where kubectl looks when nothing else is said: the first file of `KUBECONFIG`, else `~/.kube/config`.
pub fn default_path() -> Option<PathBuf> {
    let from_environment = std::env::var_os("KUBECONFIG")
        .and_then(|list| std::env::split_paths(&list).find(|p| !p.as_os_str().is_empty()));
    from_environment.or_else(|| std::env::home_dir().map(|home| home.join(".kube").join("config")))
}

impl Kubeconfig {
    /// The text of a kubeconfig with this cluster alone.
    pub fn to_yaml(&self) -> String {
        let mut config = Value::Mapping(Mapping::new());
        self.merge(&mut config);
        serde_yaml::to_string(&config).unwrap_or_default()
    }

    /// Replaces `path` by a kubeconfig with this cluster alone.
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        make_parent(path)?;
        files::write(path, &self.to_yaml())
    }

    /// Adds this cluster to the kubeconfig at `path` and makes it current.
    pub fn merge_into(&self, path: &Path) -> Result<(), PkiError> {
        make_parent(path)?;
        // A link stays a link: the file it names is replaced.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let malformed = |reason: String| PkiError::Malformed { path: path.clone(), reason };
        let mut config = match files::read_if_any(&path)? {
            Some(text) if !text.trim().is_empty() => {
                serde_yaml::from_str(&text).map_err(|e| malformed(format!("not a kubeconfig: {e}")))?
            }
            _ => Value::Mapping(Mapping::new()),
        };
        if !config.is_mapping() {
            return Err(malformed("not a kubeconfig: the document is not a mapping".to_owned()));
        }
        self.merge(&mut config);
        files::write(&path, &serde_yaml::to_string(&config).map_err(|e| malformed(e.to_string()))?)
    }

    fn merge(&self, config: &mut Value) {
        let Value::Mapping(config) = config else {
            return;
        };
        let encode = |pem: &str| Value::from(base64::engine::general_purpose::STANDARD.encode(pem));
        config.entry("apiVersion".into()).or_insert("v1".into());
        config.entry("kind".into()).or_insert("Config".into());
        let cluster = [("certificate-authority-data", encode(&self.ca)), ("server", self.server.as_str().into())];
        let user = [
            ("client-certificate-data", encode(&self.credentials.certificate)),
            ("client-key-data", encode(&self.credentials.key)),
        ];
        let context = [("cluster", self.name.as_str().into()), ("user", self.name.as_str().into())];
        self.put(config, "clusters", "cluster", cluster);
        self.put(config, "users", "user", user);
        self.put(config, "contexts", "context", context);
        config.insert("current-context".into(), self.name.as_str().into());
    }

    /// Replaces the item of our name in `list`, or adds it.
    fn put<const N: usize>(&self, config: &mut Mapping, list: &str, key: &str, fields: [(&str, Value); N]) {
        let inner: Mapping = fields.into_iter().map(|(k, v)| (Value::from(k), v)).collect();
        let mut item = Mapping::new();
        item.insert("name".into(), self.name.as_str().into());
        item.insert(key.into(), Value::Mapping(inner));
        let slot = config.entry(list.into()).or_insert_with(|| Value::Sequence(Vec::new()));
        if !slot.is_sequence() {
            *slot = Value::Sequence(Vec::new());
        }
        let Value::Sequence(items) = slot else { return };
        let ours = |v: &Value| v.get("name").and_then(Value::as_str) == Some(self.name.as_str());
        match items.iter_mut().find(|v| ours(v)) {
            Some(found) => *found = Value::Mapping(item),
            None => items.push(Value::Mapping(item)),
        }
    }
}

fn make_parent(path: &Path) -> Result<(), PkiError> {
    let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) else {
        return Ok(());
    };
    std::fs::create_dir_all(parent).map_err(|source| PkiError::File { path: parent.to_owned(), source })
}
