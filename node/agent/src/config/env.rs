//! A container's environment, command and arguments.
//!
//! In kubelet's order: `envFrom`, then `env` (later names win, each may use the names before it and the Services'),
//! then the Services' variables that are not taken.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, FileKeySelector, Pod, Service};

use super::expand::expand;
use super::fields::{self, PodFacts};
use super::volumes::Volumes;
use super::{ConfigError, Objects, env_file};
use crate::node::Capacity;

/// What a container is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) env: Vec<(String, String)>,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
}

/// What variables are made of, beside the manifest.
pub(crate) struct Known<'a> {
    pub(crate) facts: &'a PodFacts,
    pub(crate) node: &'a Capacity,
    pub(crate) objects: &'a dyn Objects,
    pub(crate) volumes: &'a Volumes,
}

/// Resolves a container's environment and expands its command.
pub(crate) fn launch(pod: &Pod, container: &Container, known: &Known<'_>) -> Result<Launch, ConfigError> {
    let objects = known.objects;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let services = service_variables(namespace, links, objects);
    let mut env = Environment::default();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match objects.config_map(namespace, &reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        env.set(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError::Missing { kind: "configmap", name: reference.name.clone() }),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match objects.secret(namespace, &reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        env.set(format!("{prefix}{key}"), text(value)?);
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError::Missing { kind: "secret", name: reference.name.clone() }),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => match value_from(pod, container, source, known)? {
                Some(value) => value,
                None => continue,
            },
            (value, None) => expand(value.as_deref().unwrap_or_default(), |name| {
                env.get(name).or_else(|| services.get(name).cloned())
            }),
        };
        env.set(variable.name.clone(), value);
    }
    for (name, value) in services {
        if env.get(&name).is_none() {
            env.set(name, value);
        }
    }
    let expanded =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|text| expand(text, |name| env.get(name))).collect();
    let (command, args) = (expanded(&container.command), expanded(&container.args));
    Ok(Launch { env: env.list, command, args })
}

/// Ordered, with fast look-ups.
#[derive(Default)]
struct Environment {
    list: Vec<(String, String)>,
    index: HashMap<String, usize>,
}

impl Environment {
    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(&n) => self.list[n].1 = value,
            None => {
                self.index.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.index.get(name).map(|&n| self.list[n].1.clone())
    }
}

fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    known: &Known<'_>,
) -> Result<Option<String>, ConfigError> {
    let Known { facts, node, objects, volumes } = known;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return fields::field(pod, facts, &field.field_path).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
        let spec = pod.spec.as_ref();
        let of = named.and_then(|name| {
            spec?.containers.iter().chain(spec?.init_containers.iter().flatten()).find(|other| other.name == name)
        });
        return fields::resource(of.unwrap_or(container), selector, node).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = objects.config_map(namespace, &key.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(ConfigError::Missing { kind: "configmap", name: key.name.clone() })
            };
        };
        return match map.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(missing_key("ConfigMap", namespace, &key.name, &key.key)),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = objects.secret(namespace, &key.name) else {
            return if optional {
                Ok(None)
            } else {
                Err(ConfigError::Missing { kind: "secret", name: key.name.clone() })
            };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => text(value).map(Some),
            None if optional => Ok(None),
            None => Err(missing_key("Secret", namespace, &key.name, &key.key)),
        };
    }
    if let Some(key) = &source.file_key_ref {
        return from_file(key, volumes);
    }
    Ok(Some(String::new()))
}

/// A variable in a file of one of the Pod's volumes, with kubelet's errors: what exactly is wrong with the file is the agent's log's.
fn from_file(key: &FileKeySelector, volumes: &Volumes) -> Result<Option<String>, ConfigError> {
    let Some(volume) = volumes.get(&key.volume_name) else {
        let text = format!("cannot find the volume {:?} referenced by FileKeyRef", key.volume_name);
        return Err(ConfigError::Invalid(text));
    };
    let optional = key.optional == Some(true);
    let wrong = |problem: String| {
        tracing::info!(volume = key.volume_name, path = key.path, problem, "an environment file cannot be used");
        ConfigError::Invalid("couldn't parse env file".to_owned())
    };
    let text = match volume.make().and_then(|()| env_file::read(&volume.path, &key.path)) {
        Ok(text) => text,
        Err(error) if optional && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    match env_file::value(&text, &key.key).map_err(wrong)? {
        None if !optional => {
            let file = volume.path.join(key.path.trim_start_matches('/'));
            let text =
                format!("environment variable key {:?} not found in file {:?}", key.key, file.display().to_string());
            Err(ConfigError::Invalid(text))
        }
        value => Ok(value),
    }
}

fn missing_key(kind: &'static str, namespace: &str, name: &str, key: &str) -> ConfigError {
    ConfigError::MissingKey { key: key.to_owned(), kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn text(value: &k8s_openapi::ByteString) -> Result<String, ConfigError> {
    String::from_utf8(value.0.clone())
        .map_err(|_| ConfigError::Invalid("a Secret's value for an environment variable is not UTF-8".to_owned()))
}

/// Docker's link variables of the namespace's Services, and of the API server's in any namespace.
fn service_variables(namespace: &str, links: bool, objects: &dyn Objects) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let api = objects
        .services("default")
        .into_iter()
        .filter(|service| service.metadata.name.as_deref() == Some("kubernetes"));
    let own = if links { objects.services(namespace) } else { Vec::new() };
    for service in api.chain(own) {
        add_service(&service, &mut variables);
    }
    variables
}

fn add_service(service: &Service, variables: &mut BTreeMap<String, String>) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let Some(first) = spec.ports.iter().flatten().next() else { return };
    let upper = |name: &str| name.replace('-', "_").to_uppercase();
    let prefix = upper(service.metadata.name.as_deref().unwrap_or_default());
    let mut set = |name: String, value: String| {
        variables.insert(name, value);
    };
    set(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    set(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    for (n, port) in spec.ports.iter().flatten().enumerate() {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            set(format!("{prefix}_SERVICE_PORT_{}", upper(name)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if n == 0 {
            set(format!("{prefix}_PORT"), url.clone());
        }
        let one = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        set(format!("{one}_PROTO"), protocol.to_lowercase());
        set(format!("{one}_PORT"), port.port.to_string());
        set(format!("{one}_ADDR"), ip.to_owned());
        set(one, url);
    }
}
