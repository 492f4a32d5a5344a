//! APIServices that are served by a Service.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use serde_json::Value;
use wherry_store::{Entry, Key};

use super::tls;
use crate::follow::View;
use crate::objects;
use crate::pki::FrontProxy;

/// Where APIServices are stored.
pub(super) const API_SERVICES: &str = "apiservices.apiregistration.k8s.io";

/// A group and version that a Service serves.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) group_priority: i64,
    pub(super) version_priority: i64,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) port: u16,
    /// PEM.
    bundle: Vec<u8>,
    insecure: bool,
    /// What its condition says.
    pub(super) available: bool,
    tls: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Registration {
    /// None of an APIService that has no Service.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let (spec, service) = (&object["spec"], &object["spec"]["service"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = object["status"]["conditions"].as_array();
        let available = |condition: &Value| condition["type"] == "Available" && condition["status"] == "True";
        service.is_object().then(|| Self {
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
            version_priority: spec["versionPriority"].as_i64().unwrap_or_default(),
            namespace: text(&service["namespace"]),
            service: text(&service["name"]),
            port: service["port"].as_u64().and_then(|port| port.try_into().ok()).unwrap_or(443),
            bundle: STANDARD.decode(text(&spec["caBundle"])).unwrap_or_default(),
            insecure: spec["insecureSkipTLSVerify"] == true,
            available: conditions.is_some_and(|conditions| conditions.iter().any(available)),
            tls: OnceLock::new(),
        })
    }

    /// The APIService's name.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.version, self.group)
    }

    /// Its discovery document.
    pub(super) fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    /// The name that its certificate must be for.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// How to speak TLS with it, or what is wrong with its CA bundle.
    pub(super) fn tls(&self, front_proxy: Option<&FrontProxy>) -> Result<Arc<ClientConfig>, String> {
        let build = || tls::client((!self.insecure).then_some(&self.bundle), front_proxy.map(|proxy| &proxy.client));
        self.tls.get_or_init(build).clone()
    }
}

/// All of them by name.
#[derive(Default)]
pub(super) struct Registrations(BTreeMap<Arc<str>, Arc<Registration>>);

impl Registrations {
    pub(super) fn find(&self, group: &str, version: &str) -> Option<&Arc<Registration>> {
        self.remote().find(|registration| registration.group == group && registration.version == version)
    }

    pub(super) fn remote(&self) -> impl Iterator<Item = &Arc<Registration>> {
        self.0.values()
    }

    pub(super) fn named(&self, name: &str) -> Option<&Arc<Registration>> {
        self.0.get(name)
    }
}

impl View for Registrations {
    const RESOURCES: &'static [&'static str] = &[API_SERVICES];

    fn put(&mut self, entry: &Entry) {
        match objects::stored_tree(entry).ok().as_ref().and_then(Registration::read) {
            Some(registration) => drop(self.0.insert(Arc::clone(&entry.key.name), Arc::new(registration))),
            None => self.remove(&entry.key),
        }
    }

    fn remove(&mut self, key: &Key) {
        self.0.remove(&key.name);
    }
}
