//! From a Pod's manifest to values: environment, command, volumes, files. Nothing here touches the network; what is
//! looked up comes through [`Objects`].

pub(crate) mod admit;
pub(crate) mod deferred;
pub(crate) mod env;
mod env_file;
pub(crate) mod expand;
pub(crate) mod fields;
pub(crate) mod files;
pub(crate) mod projection;
pub(crate) mod request;
pub(crate) mod security;
pub(crate) mod sysctls;
pub(crate) mod volumes;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Secret, Service};

/// The objects that a Pod's manifest may name, from the agent's caches.
pub(crate) trait Objects: Send + Sync + 'static {
    /// A ConfigMap.
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>>;
    /// A Secret.
    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>>;
    /// A claim.
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>>;
    /// A volume of the cluster.
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>>;
    /// The Services of a namespace.
    fn services(&self, namespace: &str) -> Vec<Arc<Service>>;
    /// The handler of a RuntimeClass.
    fn runtime_handler(&self, name: &str) -> Option<String>;
}

/// Why a container's configuration cannot be resolved (`CreateContainerConfigError`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// An object that is named is not there.
    #[error("{kind} \"{name}\" not found")]
    Missing {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An object is there without the key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A value that cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// A field that this node cannot honour for this kind of container.
    #[error("{field}: {problem}")]
    Unsupported {
        /// Its path.
        field: String,
        /// Why.
        problem: String,
    },
    /// The disk's answer.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        error: String,
    },
}

impl ConfigError {
    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        Self::Io { what: what.into(), error: error.to_string() }
    }
}
