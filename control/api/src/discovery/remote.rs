//! What other servers serve, beside what this one does: groups and versions in the order of their priorities.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use super::local::{REGISTRATION, priorities, yields};
use crate::resource::{Registry, Version};

/// A version of a group that another server serves.
#[derive(Debug, Clone, Default)]
pub struct Remote {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The group's priority is at least this one.
    pub group_priority: i64,
    /// The version's priority in its group.
    pub version_priority: i64,
    /// Its resources in aggregated form, as they were last told; null if they never were.
    pub resources: Value,
    /// Whether they are what the server tells now.
    pub is_current: bool,
}

/// Who serves a version.
pub(super) enum Served<'a> {
    Here(&'a Version),
    There(&'a Remote),
}

impl<'a> Served<'a> {
    pub(super) fn version(&self) -> &'a str {
        match self {
            Self::Here(version) => &version.version,
            Self::There(remote) => &remote.version,
        }
    }

    fn priority(&self, group: &str) -> i64 {
        match self {
            Self::Here(version) => priorities(group, &version.version).1,
            Self::There(remote) => remote.version_priority,
        }
    }
}

/// A group of several servers.
pub(super) struct Merged<'a> {
    pub(super) name: &'a str,
    priority: i64,
    /// The preferred one first.
    pub(super) versions: Vec<Served<'a>>,
}

/// All groups but core, the preferred ones first. What somebody else serves is not served here.
pub(super) fn merged<'a>(registry: &'a Registry, remotes: &'a [Remote]) -> Vec<Merged<'a>> {
    let taken = |group: &str, version: &str| {
        group != REGISTRATION
            && remotes.iter().any(|remote| remote.group == group && (remote.version == version || yields(group)))
    };
    let mut all: Vec<Merged<'a>> = Vec::new();
    for group in registry.groups().iter().filter(|group| !group.name.is_empty()) {
        let here = group.versions.iter().filter(|version| !taken(&group.name, &version.version));
        let versions: Vec<Served<'a>> = here.map(Served::Here).collect();
        if let Some(first) = versions.first() {
            let priority = priorities(&group.name, first.version()).0;
            all.push(Merged { name: &group.name, priority, versions });
        }
    }
    for remote in remotes.iter().filter(|remote| !matches!(remote.group.as_str(), "" | REGISTRATION)) {
        let at = all.iter().position(|group| group.name == remote.group).unwrap_or_else(|| {
            all.push(Merged { name: &remote.group, priority: 0, versions: Vec::new() });
            all.len() - 1
        });
        let group = &mut all[at];
        group.priority = group.priority.max(remote.group_priority);
        group.versions.push(Served::There(remote));
        group.versions.sort_by_cached_key(|version| (Reverse(version.priority(group.name)), age(version.version())));
    }
    all.sort_by_key(|group| Reverse(group.priority));
    all
}

/// Orders versions as Kubernetes does: v10, v2, v1, v11beta2, v10beta3, v3beta1, v12alpha1, v11alpha2, foo1, foo10.
fn age(version: &str) -> (Reverse<(u8, u64, u64)>, &str) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at(end);
        let major = major.parse().ok()?;
        let minor = |rest: &str| rest.parse().ok();
        match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            _ if rest.is_empty() => Some((3, major, 0)),
            (Some(rest), _) => Some((2, major, minor(rest)?)),
            (_, Some(rest)) => Some((1, major, minor(rest)?)),
            _ => None,
        }
    };
    match parsed() {
        Some(known) => (Reverse(known), ""),
        None => (Reverse((0, 0, 0)), version),
    }
}

/// The resources of an `APIResourceList` in aggregated form; `None` if it is none.
pub fn aggregated_resources(list: &Value) -> Option<Value> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let kind = |entry: &Value| json!({"group": text(entry, "group"), "version": text(entry, "version"), "kind": text(entry, "kind")});
    let scope = |entry: &Value| if entry["namespaced"] == true { "Namespaced" } else { "Cluster" };
    let verbs = |entry: &Value| if entry["verbs"].is_array() { entry["verbs"].clone() } else { json!([]) };
    let mut all: Vec<Map<String, Value>> = Vec::new();
    for entry in list["resources"].as_array().filter(|_| list["kind"] == "APIResourceList")? {
        let name = text(entry, "name");
        let (plural, part) = name.split_once('/').map_or((name.as_str(), None), |(plural, part)| (plural, Some(part)));
        let at = all.iter().position(|known| known["resource"] == plural).unwrap_or_else(|| {
            // A part may be told before, or without, what it is a part of.
            let fresh = json!({"resource": plural, "scope": scope(entry), "singularResource": "", "verbs": []});
            all.push(fresh.as_object().cloned().unwrap_or_default());
            all.len() - 1
        });
        let resource = &mut all[at];
        if let Some(part) = part {
            let part = json!({"subresource": part, "responseKind": kind(entry), "verbs": verbs(entry)});
            let parts = resource.entry("subresources").or_insert_with(|| json!([]));
            if let Some(parts) = parts.as_array_mut() {
                parts.push(part);
            }
            continue;
        }
        resource.insert("responseKind".into(), kind(entry));
        resource.insert("scope".into(), scope(entry).into());
        resource.insert("singularResource".into(), text(entry, "singularName").into());
        resource.insert("verbs".into(), verbs(entry));
        for key in ["shortNames", "categories"] {
            if entry[key].is_array() {
                resource.insert(key.into(), entry[key].clone());
            }
        }
    }
    Some(all.into_iter().map(Value::Object).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn remote(group: &str, version: &str, group_priority: i64, version_priority: i64) -> Remote {
        let (group, version) = (group.to_owned(), version.to_owned());
        Remote { group, version, group_priority, version_priority, ..Remote::default() }
    }

    #[test]
    fn versions_are_in_kubernetes_order() {
        let sorted = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
        let mut versions = sorted;
        versions.reverse();
        versions.sort_by_key(|version| age(*version));
        assert_eq!(versions, sorted);
    }

    #[test]
    fn somebody_elses_groups_stand_by_priority() {
        let registry = Registry::builtin();
        let remotes = [
            remote("apps", "v2", 1, 100),
            remote("custom.metrics.k8s.io", "v1beta1", 100, 100),
            remote("first.io", "v1", 19_000, 1),
            remote("last.io", "v1", 1, 1),
            remote("last.io", "v1beta1", 1, 1),
            remote("last.io", "v2alpha1", 1, 9),
            remote(REGISTRATION, "v1", 1, 1),
        ];
        let all = merged(&registry, &remotes);
        let names: Vec<&str> = all.iter().map(|group| group.name).collect();
        assert_eq!(names[..3], [REGISTRATION, "first.io", "apps"]);
        assert_eq!(names.last(), Some(&"last.io"));
        let versions = |name: &str| -> Vec<(String, bool)> {
            let group = all.iter().find(|group| group.name == name).unwrap();
            let there = |version: &Served<'_>| matches!(version, Served::There(_));
            group.versions.iter().map(|version| (version.version().to_owned(), there(version))).collect()
        };
        assert_eq!(versions("apps"), [("v2".to_owned(), true), ("v1".to_owned(), false)]);
        assert_eq!(versions("custom.metrics.k8s.io"), [("v1beta1".to_owned(), true)], "what is built in has yielded");
        assert_eq!(versions("metrics.k8s.io"), [("v1beta1".to_owned(), false)]);
        assert_eq!(versions(REGISTRATION), [("v1".to_owned(), false)]);
        let order = versions("last.io").into_iter().map(|(version, _)| version).collect::<Vec<_>>();
        assert_eq!(order, ["v2alpha1", "v1", "v1beta1"]);
    }

    #[test]
    fn a_list_of_resources_is_brought_into_the_aggregated_form() {
        let list = json!({"kind": "APIResourceList", "groupVersion": "x.io/v1", "resources": [
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {
                "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"],
                "shortNames": ["fl"], "categories": ["all"],
            },
            {"name": "fischers", "namespaced": false, "kind": "Fischer", "group": "y.io", "version": "v2", "verbs": null},
        ]});
        let expected = json!([
            {
                "resource": "flunders", "scope": "Namespaced", "singularResource": "flunder", "verbs": ["get", "list"],
                "responseKind": {"group": "", "version": "", "kind": "Flunder"}, "shortNames": ["fl"], "categories": ["all"],
                "subresources": [{
                    "subresource": "status", "verbs": ["get"], "responseKind": {"group": "", "version": "", "kind": "Flunder"},
                }],
            },
            {
                "resource": "fischers", "scope": "Cluster", "singularResource": "", "verbs": [],
                "responseKind": {"group": "y.io", "version": "v2", "kind": "Fischer"},
            },
        ]);
        assert_eq!(aggregated_resources(&list), Some(expected));
        assert_eq!(aggregated_resources(&json!({"kind": "Status"})), None);
    }
}
