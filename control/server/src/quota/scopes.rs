//! Which objects a quota is about: its scopes and its scope selector. All of them must match.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::measure::Measure;

/// Whether `object` is what the quota is about. A quota without scopes is about everything.
pub(super) fn matches(measure: &Measure, quota: &Value, object: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = spec["scopes"].as_array().into_iter().flatten();
    let plain = plain.map(|scope| json!({"scopeName": scope, "operator": "Exists"}));
    let expressions = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().cloned();
    plain.chain(expressions).all(|scope| (measure.scope)(&scope, object))
}

/// Objects that no scope is about.
pub(super) fn none(_scope: &Value, _object: &Value) -> bool {
    false
}

/// The scopes of Pods.
pub(super) fn pod(scope: &Value, pod: &Value) -> bool {
    let spec = &pod["spec"];
    match scope["scopeName"].as_str().unwrap_or_default() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = spec["priorityClassName"].as_str().unwrap_or_default();
            selects(scope, &[class].into_iter().filter(|class| !class.is_empty()).collect())
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(&spec["affinity"]),
        _ => false,
    }
}

/// The scopes of claims: the attribute classes that they have or are to get.
pub(super) fn claim(scope: &Value, claim: &Value) -> bool {
    let status = &claim["status"];
    let classes = [
        &claim["spec"]["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    scope["scopeName"] == "VolumeAttributesClass"
        && selects(scope, &classes.into_iter().filter_map(Value::as_str).filter(|class| !class.is_empty()).collect())
}

/// Whether one of the values that the object has (or its having none) is what the scope's operator asks for.
fn selects(scope: &Value, present: &BTreeSet<&str>) -> bool {
    let listed = |value: &str| scope["values"].as_array().into_iter().flatten().any(|v| v == value);
    match scope["operator"].as_str().unwrap_or_default() {
        "Exists" => !present.is_empty(),
        "DoesNotExist" => present.is_empty(),
        "In" => present.iter().any(|value| listed(value)),
        "NotIn" => present.is_empty() || present.iter().any(|value| !listed(value)),
        _ => false,
    }
}

/// Whether the Pod ends by itself.
pub(super) fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

/// Whether the Pod asks for neither CPU nor memory.
fn is_best_effort(pod: &Value) -> bool {
    let spec = &pod["spec"];
    let asks = |resources: &Value| {
        ["requests", "limits"].iter().any(|side| {
            ["cpu", "memory"].iter().any(|name| {
                wherry_api::quantity::Quantity::from_value(&resources[*side][*name]).is_some_and(|q| !q.is_zero())
            })
        })
    };
    let lists = ["containers", "initContainers"].into_iter().flat_map(|key| spec[key].as_array().into_iter().flatten());
    !asks(&spec["resources"]) && !lists.map(|container| &container["resources"]).any(asks)
}

fn crosses_namespaces(affinity: &Value) -> bool {
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = |key: &str| affinity[*kind][key].as_array().cloned().unwrap_or_default();
        let required = terms("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = terms("preferredDuringSchedulingIgnoredDuringExecution");
        let all = required.iter().chain(preferred.iter().map(|term| &term["podAffinityTerm"]));
        all.into_iter().any(|term| {
            term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
                || term["namespaceSelector"].is_object()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_have_scopes() {
        let scope = |name: &str, operator: &str, values: &[&str]| json!({"scopeName": name, "operator": operator, "values": values});
        let plain = json!({"spec": {"containers": [{}]}});
        let deadline =
            json!({"spec": {"activeDeadlineSeconds": 5, "containers": [{"resources": {"limits": {"cpu": "1"}}}]}});
        let high = json!({"spec": {"priorityClassName": "high"}});
        let crossing = json!({"spec": {"affinity": {"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {"namespaceSelector": {}}}],
        }}}});
        for (scope, object, expected) in [
            (scope("Terminating", "Exists", &[]), &deadline, true),
            (scope("Terminating", "Exists", &[]), &plain, false),
            (scope("NotTerminating", "Exists", &[]), &plain, true),
            (scope("BestEffort", "Exists", &[]), &plain, true),
            (scope("BestEffort", "Exists", &[]), &deadline, false),
            (scope("NotBestEffort", "Exists", &[]), &deadline, true),
            (scope("PriorityClass", "Exists", &[]), &high, true),
            (scope("PriorityClass", "Exists", &[]), &plain, false),
            (scope("PriorityClass", "In", &["high"]), &high, true),
            (scope("PriorityClass", "In", &["low"]), &high, false),
            (scope("PriorityClass", "NotIn", &["low"]), &high, true),
            (scope("PriorityClass", "NotIn", &["low"]), &plain, true),
            (scope("PriorityClass", "DoesNotExist", &[]), &plain, true),
            (scope("CrossNamespacePodAffinity", "Exists", &[]), &crossing, true),
            (scope("CrossNamespacePodAffinity", "Exists", &[]), &plain, false),
            (scope("Unknown", "Exists", &[]), &plain, false),
        ] {
            assert_eq!(pod(&scope, object), expected, "{scope} {object}");
        }
    }
}
