//! What this server serves, as APIServices: upstream registers its own groups, too, so that all are seen in one list.
//!
//! `metrics.k8s.io` and `custom.metrics.k8s.io` are built in here, but elsewhere they are always somebody else's: they have no
//! APIService, so that whoever installs a server for them finds the name free, and they yield to it as a whole.

use serde_json::{Value, json};

use crate::meta;
use crate::resource::Registry;

/// The group of APIServices themselves, which nobody can take over.
pub const REGISTRATION: &str = "apiregistration.k8s.io";
/// The groups that yield.
const YIELDING: [&str; 2] = ["metrics.k8s.io", "custom.metrics.k8s.io"];
/// Whether an APIService is kept by the server: made at each start, or all the time.
pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Kubernetes' own groups by preference, and the priority of their first version.
const PRIORITIES: &[(&str, i64, i64)] = &[
    (REGISTRATION, 20_000, 15),
    ("", 18_000, 1),
    ("apps", 17_800, 15),
    ("events.k8s.io", 17_750, 15),
    ("authentication.k8s.io", 17_700, 15),
    ("authorization.k8s.io", 17_600, 15),
    ("autoscaling", 17_500, 15),
    ("batch", 17_400, 15),
    ("certificates.k8s.io", 17_300, 15),
    ("networking.k8s.io", 17_200, 15),
    ("policy", 17_100, 15),
    ("rbac.authorization.k8s.io", 17_000, 15),
    ("storage.k8s.io", 16_800, 15),
    ("apiextensions.k8s.io", 16_700, 15),
    ("admissionregistration.k8s.io", 16_700, 15),
    ("scheduling.k8s.io", 16_600, 15),
    ("coordination.k8s.io", 16_500, 15),
    ("node.k8s.io", 16_300, 15),
    ("resource.k8s.io", 16_200, 21),
    ("discovery.k8s.io", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", 16_100, 21),
    ("metrics.k8s.io", 100, 100),
    ("custom.metrics.k8s.io", 100, 100),
];
/// The priorities of what is not Kubernetes' own: of custom resources.
const CUSTOM: (i64, i64) = (1_000, 100);

/// The priorities of a group and of one of its versions.
pub(super) fn priorities(group: &str, version: &str) -> (i64, i64) {
    if (group, version) == ("autoscaling", "v2") {
        return (17_500, 30);
    }
    PRIORITIES.iter().find(|(name, ..)| *name == group).map_or(CUSTOM, |(_, group, version)| (*group, *version))
}

/// Whether what is built in of `group` is not served where somebody else serves any version of it.
pub fn yields(group: &str) -> bool {
    YIELDING.contains(&group)
}

/// Reason and message of the condition of what is served here.
pub const LOCAL: (&str, &str) = ("Local", "Local APIServices are always available");

/// That condition.
pub fn local_condition(now: &str) -> Value {
    let (reason, message) = LOCAL;
    json!({
        "type": "Available", "status": "True", "lastTransitionTime": now, "reason": reason, "message": message,
    })
}

/// The APIServices of all that `registry` serves.
pub fn api_services(registry: &Registry) -> impl Iterator<Item = Value> {
    let groups = registry.groups().iter().filter(|group| group.name != REGISTRATION && !yields(&group.name));
    groups.flat_map(|group| group.versions.iter().map(move |version| api_service(&group.name, &version.version)))
}

fn api_service(group: &str, version: &str) -> Value {
    let (group_priority, version_priority) = priorities(group, version);
    let own = PRIORITIES.iter().any(|(name, ..)| *name == group);
    json!({
        "apiVersion": meta::join_api_version(REGISTRATION, "v1"), "kind": "APIService",
        "metadata": {
            "name": format!("{version}.{group}"), "labels": {AUTOMANAGED: if own { "onstart" } else { "true" }},
        },
        "spec": {
            "group": group, "version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::strategy;

    #[test]
    fn each_version_has_one_that_is_valid() {
        let registry = Registry::builtin();
        let all: Vec<Value> = api_services(&registry).collect();
        let names: Vec<&str> = all.iter().map(meta::name).collect();
        assert!(names.contains(&"v1.") && names.contains(&"v2.autoscaling") && names.contains(&"v1.apps"), "{names:?}");
        assert!(!names.iter().any(|name| name.ends_with("metrics.k8s.io") || name.ends_with(REGISTRATION)));
        for service in &all {
            assert!(strategy(REGISTRATION, "APIService").validate(service).is_empty(), "{service}");
            assert_eq!(service["metadata"]["labels"][AUTOMANAGED], "onstart", "{service}");
        }
        // The registry's order is that of upstream's priorities.
        let order: Vec<i64> = all.iter().filter_map(|s| s["spec"]["groupPriorityMinimum"].as_i64()).collect();
        assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
    }
}
