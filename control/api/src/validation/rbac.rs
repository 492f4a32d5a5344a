//! Roles and bindings (upstream: `pkg/apis/rbac/validation`).

use serde_json::Value;

use super::{At, Errors, is_set, items, names, scheduling, text};
use crate::selector::LabelSelector;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Role.
pub(crate) fn role(object: &Value, errors: &mut Errors) {
    rules(object, true, errors);
}

/// ClusterRole.
pub(crate) fn cluster_role(object: &Value, errors: &mut Errors) {
    rules(object, false, errors);
    if !is_set(object, "aggregationRule") {
        return;
    }
    let at = At::root("aggregationRule.clusterRoleSelectors");
    let selectors = items(&object["aggregationRule"], "clusterRoleSelectors");
    if selectors.is_empty() {
        errors.required(&at, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (i, selector) in selectors.iter().enumerate() {
        let at = at.index(i);
        scheduling::label_selector(selector, &at, errors);
        if LabelSelector::from_object(Some(selector)).is_err() {
            errors.invalid(&at, Value::Null, "invalid label selector.");
        }
    }
}

fn rules(object: &Value, namespaced: bool, errors: &mut Errors) {
    for (i, rule) in items(object, "rules").iter().enumerate() {
        let at = At::root("rules");
        let at = at.index(i);
        let none = |key: &str| items(rule, key).is_empty();
        if none("verbs") {
            errors.required(&at.field("verbs"), "verbs must contain at least one value");
        }
        if !none("nonResourceURLs") {
            let urls_at = at.field("nonResourceURLs");
            let urls = &rule["nonResourceURLs"];
            if namespaced {
                errors.invalid(&urls_at, urls.clone(), "namespaced rules cannot apply to non-resource URLs");
            }
            if !(none("apiGroups") && none("resources") && none("resourceNames")) {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(&urls_at, urls.clone(), why);
            }
            continue;
        }
        if none("apiGroups") {
            errors.required(&at.field("apiGroups"), "resource rules must supply at least one api group");
        }
        if none("resources") {
            errors.required(&at.field("resources"), "resource rules must supply at least one resource");
        }
    }
}

/// RoleBinding.
pub(crate) fn role_binding(object: &Value, errors: &mut Errors) {
    binding(object, true, &["Role", "ClusterRole"], errors);
}

/// ClusterRoleBinding.
pub(crate) fn cluster_role_binding(object: &Value, errors: &mut Errors) {
    binding(object, false, &["ClusterRole"], errors);
}

fn binding(object: &Value, namespaced: bool, kinds: &[&str], errors: &mut Errors) {
    let (reference, at) = (&object["roleRef"], At::root("roleRef"));
    errors.one_of(&at.field("apiGroup"), text(reference, "apiGroup"), &[GROUP]);
    errors.one_of(&at.field("kind"), text(reference, "kind"), kinds);
    required(reference, "name", names::path_segment, &at, errors);
    for (i, subject) in items(object, "subjects").iter().enumerate() {
        let at = At::root("subjects");
        self::subject(subject, namespaced, &at.index(i), errors);
    }
}

fn subject(subject: &Value, namespaced: bool, at: &At, errors: &mut Errors) {
    if text(subject, "name").is_empty() {
        errors.required(&at.field("name"), "");
    }
    let group = text(subject, "apiGroup");
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !text(subject, "name").is_empty() {
                errors.rule(&at.field("name"), text(subject, "name"), names::subdomain);
            }
            errors.one_of(&at.field("apiGroup"), group, &[""]);
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.required(&at.field("namespace"), "");
            }
        }
        "User" | "Group" => errors.one_of(&at.field("apiGroup"), group, &[GROUP]),
        other => errors.not_supported(&at.field("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// A text that must be there and follow a rule.
pub(crate) fn required(value: &Value, key: &str, rule: names::Rule, at: &At, errors: &mut Errors) {
    match text(value, key) {
        "" => errors.required(&at.field(key), ""),
        found => errors.rule(&at.field(key), found, rule),
    }
}
