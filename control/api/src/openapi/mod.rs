//! OpenAPI v3: an index, and one document for each group and version, written from the resource table and the facts.
//!
//! Descriptions are those of the crate k8s-openapi, asked for while a document is written and not kept otherwise. A
//! document is written when it is first asked for and kept with its version of the registry.
//!
//! kubectl reads the schemas (explain, apply's three-way merge) and, in the paths, which parameters PATCH takes.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::facts::Facts;
use crate::meta;
use crate::resource::{Registry, Version};

mod describe;
mod enums;
mod parameters;
mod paths;
mod schemas;
mod v2;
mod v2_protobuf;

/// The version of Kubernetes that the documents are about.
pub const KUBERNETES_VERSION: &str = "v1.36.3";

/// `/openapi/v3`: where each document is. The hash in an address changes with the document.
pub fn index(registry: &Registry) -> Bytes {
    let mut paths = Map::new();
    for group in registry.groups() {
        for version in &group.versions {
            let path = document_path(&group.name, &version.version);
            let address = format!("/openapi/v3/{path}?hash={}", hash(version));
            paths.insert(path, json!({"serverRelativeURL": address}));
        }
    }
    json!({"paths": paths}).to_string().into()
}

/// `/openapi/v3/PATH`: the document of `api/v1`, `apis/apps/v1`, ...
pub fn document(registry: &Registry, path: &str) -> Option<Bytes> {
    let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => ("", *version),
        ["apis", group, version] if !group.is_empty() => (*group, *version),
        _ => return None,
    };
    let found = registry.version(group, version)?;
    Some(found.openapi.get_or_init(|| write(group, found).to_string().into()).clone())
}

/// `/openapi/v2`: everything in one document of the older form, as JSON.
pub fn v2(registry: &Registry) -> Bytes {
    registry.openapi_v2.get_or_init(|| v2::write(registry).to_string().into()).clone()
}

/// `/openapi/v2` as protobuf.
pub fn v2_protobuf(registry: &Registry) -> Bytes {
    registry.openapi_v2_protobuf.get_or_init(|| v2_protobuf::write(&v2::write(registry)).into()).clone()
}

fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn write(group: &str, version: &Version) -> Value {
    let schemas = schemas::components(group, version);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": paths::paths(group, version),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer token authentication",
            }},
        },
    })
}

/// Changes whenever the program, the facts or the resources do.
fn hash(version: &Version) -> String {
    let mut hasher = Sha256::new();
    hasher.update(env!("CARGO_PKG_VERSION"));
    for resource in &version.resources {
        hasher.update(format!(
            "{} {} {} {} {:?} ",
            resource.group, resource.version, resource.plural, resource.namespaced, resource.verbs
        ));
        hasher.update(format!(
            "{:?}",
            resource.subresources.iter().map(|s| (&s.name, &s.kind, &s.verbs)).collect::<Vec<_>>()
        ));
        hasher.update(resource.schema.facts().digest());
    }
    hex::encode_upper(hasher.finalize())
}

/// The name of a type among the components.
fn component_name(facts: &Facts, id: crate::facts::TypeId) -> String {
    let name = &facts.get(id).name;
    if let Some(name) = name.strip_prefix("meta.v1.") {
        return format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}");
    }
    if name.starts_with("metrics.") || name.starts_with("custom_metrics.") {
        return format!("io.k8s.metrics.pkg.apis.{name}");
    }
    if name.starts_with("apiregistration.") {
        return format!("io.k8s.kube-aggregator.pkg.apis.{name}");
    }
    format!("io.k8s.api.{name}")
}

fn reference(component: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{component}")})
}

fn group_version_kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn split_kind(api_version_kind: &(Box<str>, Box<str>)) -> Value {
    let (group, version) = meta::split_api_version(&api_version_kind.0);
    group_version_kind(group, version, &api_version_kind.1)
}

#[cfg(test)]
mod tests;
