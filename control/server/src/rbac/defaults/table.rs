//! From the table of facts to objects.

use serde_json::{Map, Value, json};

const TABLE: &str = include_str!("table.txt");
const GROUP: &str = "rbac.authorization.k8s.io";

/// All default roles and bindings.
pub(super) fn objects() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in TABLE.lines() {
        match line.strip_prefix("  ") {
            None => objects.push(object(line)),
            Some(line) => {
                if let Some(Value::Array(rules)) = objects.last_mut().and_then(|object| object.get_mut("rules")) {
                    rules.push(rule(line));
                }
            }
        }
    }
    objects
}

fn object(line: &str) -> Value {
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    let place = words.next().unwrap_or_default();
    let mut metadata = json!({
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
    });
    match place.split_once('/').filter(|_| !kind.starts_with("Cluster")) {
        Some((namespace, name)) => {
            metadata["namespace"] = namespace.into();
            metadata["name"] = name.into();
        }
        None => metadata["name"] = place.into(),
    }
    let mut object = json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind});
    if kind.ends_with("Binding") {
        let (role_kind, role) = words.next().and_then(|word| word.split_once('/')).unwrap_or_default();
        object["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
        object["subjects"] = words.map(subject).collect();
    } else {
        object["rules"] = json!([]);
        for word in words {
            let (relation, role) = word.split_once(':').unwrap_or_default();
            let label = format!("{GROUP}/aggregate-to-{role}");
            if relation == "to" {
                metadata["labels"][label] = "true".into();
            } else {
                object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
            }
        }
    }
    object["metadata"] = metadata;
    object
}

fn subject(word: &str) -> Value {
    let (kind, name) = word.split_once(':').unwrap_or_default();
    match kind {
        "account" => {
            let (namespace, name) = name.split_once('/').unwrap_or_default();
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
        "group" => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        _ => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
    }
}

fn rule(line: &str) -> Value {
    let words: Vec<&str> = line.split(' ').collect();
    let keys: &[&str] = if words.get(1) == Some(&"url") {
        &["verbs", "", "nonResourceURLs"]
    } else {
        &["verbs", "apiGroups", "resources", "resourceNames"]
    };
    let mut rule = Map::new();
    for (key, word) in keys.iter().zip(words).filter(|(key, _)| !key.is_empty()) {
        let list = word.split(',').map(|text| if text == "-" { "" } else { text });
        rule.insert((*key).to_owned(), list.collect());
    }
    rule.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use wherry_api::meta;

    use super::*;

    fn find(kind: &str, name: &str) -> Value {
        objects().into_iter().find(|o| meta::kind(o) == kind && meta::name(o) == name).unwrap()
    }

    #[test]
    fn a_role_may_be_part_of_several() {
        let labels = &find("ClusterRole", "system:aggregated-metrics-reader")["metadata"]["labels"];
        for role in ["view", "edit", "admin"] {
            assert_eq!(labels[format!("{GROUP}/aggregate-to-{role}")], "true", "{labels}");
        }
    }

    #[test]
    fn lines_become_objects() {
        assert_eq!(
            find("ClusterRole", "edit"),
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {
                    "name": "edit",
                    "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
                    "labels": {
                        "kubernetes.io/bootstrapping": "rbac-defaults",
                        "rbac.authorization.k8s.io/aggregate-to-admin": "true",
                    },
                },
                "aggregationRule": {"clusterRoleSelectors": [
                    {"matchLabels": {"rbac.authorization.k8s.io/aggregate-to-edit": "true"}},
                ]},
                "rules": [],
            })
        );
        assert_eq!(
            find("ClusterRole", "system:basic-user")["rules"],
            json!([
                {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
                {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
            ])
        );
        let admin = find("ClusterRole", "cluster-admin");
        assert_eq!(admin["rules"][1], json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        let reader = find("Role", "extension-apiserver-authentication-reader");
        assert_eq!(meta::namespace(&reader), "kube-system");
        assert_eq!(
            reader["rules"],
            json!([{
                "verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["configmaps"],
                "resourceNames": ["extension-apiserver-authentication"],
            }])
        );
        let binding = find("RoleBinding", "system::leader-locking-kube-scheduler");
        assert_eq!(binding["roleRef"]["kind"], "Role");
        assert_eq!(
            binding["subjects"],
            json!([
                {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-scheduler"},
                {"kind": "ServiceAccount", "name": "kube-scheduler", "namespace": "kube-system"},
            ])
        );
    }

    #[test]
    fn every_binding_has_its_role() {
        let objects = objects();
        for binding in objects.iter().filter(|o| meta::kind(o).ends_with("Binding")) {
            let role = &binding["roleRef"];
            let there = |o: &&Value| {
                o["kind"] == role["kind"]
                    && meta::name(o) == role["name"]
                    && (role["kind"] == "ClusterRole" || meta::namespace(o) == meta::namespace(binding))
            };
            assert!(objects.iter().any(|o| there(&o)), "{binding}");
        }
    }
}
