//! Which labels a node may give itself.

use serde_json::Value;
use wherry_api::meta;

/// Labels of Kubernetes' own domains that an agent sets.
const ALLOWED: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
/// Domains in which an agent may set any label.
const ALLOWED_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The domain that is for the administrator alone: Pods can be bound to nodes by its labels.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// The labels that differ between two versions of a Node and are not for it to change.
pub(super) fn forbidden(new: &Value, old: &Value) -> Vec<String> {
    let (new, old) = (meta::labels(new), meta::labels(old));
    let mut changed: Vec<String> =
        new.iter().filter(|(key, value)| old.get(*key) != Some(value)).map(|(key, _)| key.clone()).collect();
    changed.extend(old.keys().filter(|key| !new.contains_key(*key)).cloned());
    changed.retain(|key| is_forbidden(key));
    changed.sort();
    changed
}

fn is_forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |suffix: &str| domain == suffix || domain.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let allowed = ALLOWED.contains(&label) || ALLOWED_DOMAINS.into_iter().any(within);
    within(RESTRICTED) || kubernetes && !allowed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kubernetes_own_labels_are_forbidden_but_for_some() {
        for (label, expected) in [
            ("plain", false),
            ("example.com/x", false),
            ("notkubernetes.io/x", false),
            ("kubernetes.io/os", false),
            ("kubernetes.io/other", true),
            ("x.k8s.io/other", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("node.kubernetes.io/any", false),
            ("x.kubelet.kubernetes.io/any", false),
            ("node-restriction.kubernetes.io/a", true),
            ("x.node-restriction.kubernetes.io/a", true),
        ] {
            assert_eq!(is_forbidden(label), expected, "{label}");
        }
    }

    #[test]
    fn only_changes_count() {
        let node = |labels: Value| json!({"metadata": {"labels": labels}});
        let old = node(json!({"x.k8s.io/a": "1", "x.k8s.io/b": "1", "x.k8s.io/c": "1", "d": "1"}));
        let new = node(json!({"x.k8s.io/a": "1", "x.k8s.io/b": "2", "x.k8s.io/e": "1", "d": "2"}));
        assert_eq!(forbidden(&new, &old), ["x.k8s.io/b", "x.k8s.io/c", "x.k8s.io/e"]);
        assert!(forbidden(&old, &old).is_empty());
    }
}
