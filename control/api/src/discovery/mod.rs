//! What is served, here and by other servers behind this one, for clients: the legacy and the aggregated discovery documents.

mod local;
mod remote;

use serde_json::{Map, Value, json};

use crate::meta;
use crate::resource::{Group, Registry, Resource, Subresource, Verb, Version};

pub use local::{AUTOMANAGED, LOCAL, REGISTRATION, api_services, local_condition, yields};
use remote::{Merged, Served, merged};
pub use remote::{Remote, aggregated_resources};

/// The version of the aggregated documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregated {
    /// `apidiscovery.k8s.io/v2`.
    V2,
    /// `apidiscovery.k8s.io/v2beta1`, for clients before 1.30. The content is the same.
    V2Beta1,
}

/// `/api`: the versions of core. `server_address` is where clients reach this server.
pub fn api_versions(registry: &Registry, server_address: &str) -> Value {
    let versions: Vec<&str> = core(registry).flat_map(|g| &g.versions).map(|v| v.version.as_str()).collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`: all groups but core.
pub fn api_group_list(registry: &Registry, remotes: &[Remote]) -> Value {
    let groups: Vec<Value> = merged(registry, remotes).iter().map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn api_group(registry: &Registry, remotes: &[Remote], name: &str) -> Option<Value> {
    let mut value = merged(registry, remotes).iter().find(|group| group.name == name).map(group_entry)?;
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

/// `/api/VERSION`, `/apis/GROUP/VERSION`.
pub fn api_resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let found = registry.version(group, version)?;
    let mut resources = Vec::new();
    for resource in &found.resources {
        if !resource.verbs.is_empty() {
            resources.push(resource_entry(resource));
        }
        resources.extend(resource.subresources.iter().map(|sub| subresource_entry(resource, sub)));
    }
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": meta::join_api_version(group, version),
        "resources": resources,
    });
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

/// `/api` in aggregated form.
pub fn aggregated_core(registry: &Registry, form: Aggregated) -> Value {
    let items = core(registry).map(|group| {
        let versions: Vec<Value> = group.versions.iter().map(version_entry).collect();
        json!({"metadata": {}, "versions": versions})
    });
    aggregated(items.collect(), form)
}

/// `/apis` in aggregated form.
pub fn aggregated_groups(registry: &Registry, remotes: &[Remote], form: Aggregated) -> Value {
    let items = merged(registry, remotes).into_iter().map(|group| {
        let versions: Vec<Value> = group.versions.iter().map(served_entry).collect();
        json!({"metadata": {"name": group.name}, "versions": versions})
    });
    aggregated(items.collect(), form)
}

fn core(registry: &Registry) -> impl Iterator<Item = &Group> {
    registry.groups().iter().filter(|group| group.name.is_empty())
}

fn group_entry(group: &Merged<'_>) -> Value {
    let entry = |version: &Served<'_>| {
        let version = version.version();
        json!({"groupVersion": meta::join_api_version(group.name, version), "version": version})
    };
    let versions: Vec<Value> = group.versions.iter().map(entry).collect();
    json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions})
}

fn verbs(verbs: &[Verb]) -> Value {
    verbs.iter().map(|verb| verb.as_str()).collect()
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": verbs(&resource.verbs),
    });
    names(&mut entry, resource);
    if resource.allows(Verb::List) && resource.allows(Verb::Create) {
        entry["storageVersionHash"] = resource.storage_version_hash().into();
    }
    entry
}

fn names(entry: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        entry["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        entry["categories"] = resource.categories.clone().into();
    }
}

fn subresource_entry(resource: &Resource, sub: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, sub.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": sub.kind,
        "verbs": verbs(&sub.verbs),
    });
    if (&sub.group, &sub.version) != (&resource.group, &resource.version) {
        entry["group"] = sub.group.as_str().into();
        entry["version"] = sub.version.as_str().into();
    }
    entry
}

fn aggregated(items: Vec<Value>, form: Aggregated) -> Value {
    let api_version = match form {
        Aggregated::V2 => "apidiscovery.k8s.io/v2",
        Aggregated::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
    };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items})
}

fn served_entry(version: &Served<'_>) -> Value {
    match version {
        Served::Here(version) => version_entry(version),
        Served::There(remote) => {
            let freshness = if remote.is_current { "Current" } else { "Stale" };
            let mut entry = json!({"version": remote.version, "freshness": freshness});
            if !remote.resources.is_null() {
                entry["resources"] = remote.resources.clone();
            }
            entry
        }
    }
}

fn version_entry(version: &Version) -> Value {
    let resources: Vec<Value> = version.resources.iter().map(|resource| aggregated_entry(resource)).collect();
    json!({"version": version.version, "freshness": "Current", "resources": resources})
}

/// Empty group and version stand for those of the resource.
fn response_kind(resource: &Resource, group: &str, version: &str, kind: &str) -> Value {
    if (group, version) == (resource.group.as_str(), resource.version.as_str()) {
        json!({"group": "", "version": "", "kind": kind})
    } else {
        json!({"group": group, "version": version, "kind": kind})
    }
}

fn aggregated_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(&resource.verbs),
    });
    // What has only subresources is no resource of its group: clients take it for one where it has a kind.
    if !resource.verbs.is_empty() {
        entry["responseKind"] = response_kind(resource, &resource.group, &resource.version, &resource.kind);
    }
    names(&mut entry, resource);
    if !resource.subresources.is_empty() {
        entry["subresources"] = resource
            .subresources
            .iter()
            .map(|sub| {
                let mut entry = Map::new();
                entry.insert("subresource".into(), sub.name.as_str().into());
                entry.insert("responseKind".into(), response_kind(resource, &sub.group, &sub.version, &sub.kind));
                entry.insert("verbs".into(), verbs(&sub.verbs));
                Value::Object(entry)
            })
            .collect();
    }
    entry
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn legacy_documents() {
        let registry = Registry::builtin();
        assert_eq!(api_versions(&registry, "127.0.0.1:6443")["versions"], json!(["v1"]));
        let groups = api_group_list(&registry, &[]);
        let groups = groups["groups"].as_array().unwrap();
        assert!(groups.iter().all(|group| group["name"] != ""));
        let autoscaling = api_group(&registry, &[], "autoscaling").unwrap();
        assert_eq!(autoscaling["preferredVersion"]["groupVersion"], "autoscaling/v2");
        assert!(api_group(&registry, &[], "").is_none());
        let core = api_resource_list(&registry, "", "v1").unwrap();
        let find =
            |name: &str| core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned().unwrap();
        assert_eq!(find("pods")["shortNames"], json!(["po"]));
        assert_eq!(find("pods")["categories"], json!(["all"]));
        assert_eq!(find("pods/eviction")["group"], "policy");
        assert_eq!(find("pods/log")["kind"], "Pod");
        assert!(find("componentstatuses").get("storageVersionHash").is_none());
        assert!(api_resource_list(&registry, "apps", "v2").is_none());
    }

    #[test]
    fn aggregated_documents() {
        let registry = Registry::builtin();
        let core = aggregated_core(&registry, Aggregated::V2);
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        assert_eq!(core["items"][0]["metadata"], json!({}));
        let groups = aggregated_groups(&registry, &[], Aggregated::V2Beta1);
        assert_eq!(groups["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        let apps =
            groups["items"].as_array().unwrap().iter().find(|group| group["metadata"]["name"] == "apps").unwrap();
        let apps = &apps["versions"][0];
        let deployments =
            apps["resources"].as_array().unwrap().iter().find(|r| r["resource"] == "deployments").unwrap();
        assert_eq!(deployments["responseKind"]["kind"], "Deployment");
        assert_eq!(
            deployments["subresources"][0]["responseKind"],
            json!({"group": "autoscaling", "version": "v1", "kind": "Scale"})
        );
    }
}
