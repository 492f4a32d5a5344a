//! HorizontalPodAutoscaler, in its v2 form (upstream: `pkg/apis/autoscaling/validation`).

use serde_json::Value;

use super::rbac::required;
use super::{At, Errors, is_set, items, names, not_negative, text};
use crate::quantity::Quantity;

/// The sources of metrics: the field, its type, and what its target must have.
const SOURCES: [(&str, &str); 5] = [
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];
const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

/// HorizontalPodAutoscaler.
pub(crate) fn autoscaler(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    let (min, max) = (spec["minReplicas"].as_i64(), spec["maxReplicas"].as_i64().unwrap_or(0));
    if let Some(min) = min.filter(|min| *min < 0) {
        errors.invalid(&at.field("minReplicas"), min, "must be greater than or equal to 0");
    }
    let max_at = at.field("maxReplicas");
    match max {
        0 => errors.required(&max_at, "must be set and greater than 0"),
        ..0 => errors.invalid(&max_at, max, "must be greater than or equal to 1"),
        _ => {}
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(&max_at, max, "must be greater than or equal to `minReplicas`");
    }
    reference(&spec["scaleTargetRef"], true, &at.field("scaleTargetRef"), errors);
    let metrics = items(spec, "metrics");
    for (i, found) in metrics.iter().enumerate() {
        metric(found, &at.field("metrics").index(i), errors);
    }
    // Upstream leaves metrics of Pods out: where there are none, there is nothing to measure. Here a connection makes the first.
    let says_zero = |metric: &Value| matches!(text(metric, "type"), "Pods" | "Object" | "External");
    if min == Some(0) && !metrics.iter().any(says_zero) {
        let why = "must specify at least one Pods, Object or External metric to support scaling to zero replicas";
        errors.forbidden(&at.field("metrics"), why);
    }
    for direction in ["scaleUp", "scaleDown"] {
        let at = at.field("behavior");
        if is_set(&spec["behavior"], direction) {
            rules(&spec["behavior"][direction], &at.field(direction), errors);
        }
    }
}

fn reference(reference: &Value, needs_group: bool, at: &At, errors: &mut Errors) {
    for key in ["kind", "name"] {
        required(reference, key, names::path_segment, at, errors);
    }
    let version = text(reference, "apiVersion");
    if version.matches('/').count() > 1 {
        errors.invalid(&at.field("apiVersion"), version, format!("unexpected GroupVersion string: {version}"));
    } else if needs_group && version.split_once('/').is_none_or(|(group, _)| group.is_empty()) {
        errors.invalid(&at.field("apiVersion"), version, "apiVersion must specify API group");
    }
}

fn rules(rules: &Value, at: &At, errors: &mut Errors) {
    let (window, window_at) = (&rules["stabilizationWindowSeconds"], at.field("stabilizationWindowSeconds"));
    match window.as_i64() {
        Some(..0) => errors.invalid(&window_at, window.clone(), "must be greater than or equal to zero"),
        Some(3601..) => errors.invalid(&window_at, window.clone(), "must be less than or equal to 3600"),
        _ => {}
    }
    if let Some(policy) = rules["selectPolicy"].as_str() {
        errors.one_of(&at.field("selectPolicy"), policy, &["Disabled", "Max", "Min"]);
    }
    let (policies, policies_at) = (items(rules, "policies"), at.field("policies"));
    if policies.is_empty() {
        errors.required(&policies_at, "must specify at least one Policy");
    }
    for (i, policy) in policies.iter().enumerate() {
        let at = policies_at.index(i);
        errors.one_of(&at.field("type"), text(policy, "type"), &["Percent", "Pods"]);
        for key in ["value", "periodSeconds"] {
            let number = policy[key].as_i64().unwrap_or(0);
            if number <= 0 {
                errors.invalid(&at.field(key), number, "must be greater than zero");
            }
            if key == "periodSeconds" && number > 1800 {
                errors.invalid(&at.field(key), number, "must be less than or equal to 1800");
            }
        }
    }
    if let Some(tolerance) = Quantity::from_value(&rules["tolerance"]).filter(Quantity::is_negative) {
        errors.invalid(&at.field("tolerance"), tolerance.to_string(), super::NOT_NEGATIVE);
    }
}

fn metric(metric: &Value, at: &At, errors: &mut Errors) {
    let kind = text(metric, "type");
    let type_at = at.field("type");
    if kind.is_empty() {
        errors.required(&type_at, "must specify a metric source type");
    }
    let present: Vec<&str> = SOURCES.iter().map(|(key, _)| *key).filter(|key| is_set(metric, key)).collect();
    if !TYPES.contains(&kind) {
        // Upstream says so twice.
        errors.not_supported(&type_at, kind, &TYPES);
        errors.not_supported(&type_at, kind, &TYPES);
    }
    // Only the first is looked at.
    if let Some(key) = present.first() {
        source(key, &metric[*key], &at.field(key), errors);
    }
    let expected = SOURCES.iter().find(|(_, of)| *of == kind).map(|(key, _)| *key);
    if let Some(key) = expected.filter(|key| !present.contains(key)) {
        errors.required(&at.field(key), "must populate information for the given metric source");
    }
    if present.len() != 1 {
        for key in present.iter().filter(|key| Some(**key) != expected) {
            errors.forbidden(&at.field(key), "must populate the given metric source only");
        }
    }
}

fn source(kind: &str, source: &Value, at: &At, errors: &mut Errors) {
    let (target, target_at) = (&source["target"], at.field("target"));
    let has = |key: &str| is_set(target, key);
    match kind {
        "object" => {
            reference(&source["describedObject"], false, &at.field("describedObject"), errors);
            identifier(source, at, errors);
        }
        "external" | "pods" => identifier(source, at, errors),
        _ => {
            if text(source, "name").is_empty() {
                errors.required(&at.field("name"), "must specify a resource name");
            }
            if kind == "containerResource" {
                match text(source, "container") {
                    "" => errors.required(&at.field("container"), "must specify a container"),
                    container => errors.rule(&at.field("container"), container, names::label),
                }
            }
        }
    }
    self::target(target, &target_at, errors);
    let (average, value, share) =
        (target_at.field("averageValue"), target_at.field("value"), target_at.field("averageUtilization"));
    match kind {
        "object" if !has("value") && !has("averageValue") => {
            errors.required(&average, "must set either a target value or averageValue");
        }
        "external" if !has("value") && !has("averageValue") => {
            errors.required(&average, "must set either a target value for metric or a per-pod target");
        }
        "external" if has("value") && has("averageValue") => {
            errors.forbidden(&value, "may not set both a target value for metric and a per-pod target");
        }
        "pods" if !has("averageValue") => {
            errors.required(&average, "must specify a positive target averageValue");
        }
        "resource" | "containerResource" if !has("averageUtilization") && !has("averageValue") => {
            errors.required(&share, "must set either a target raw value or a target utilization");
        }
        "resource" | "containerResource" if has("averageUtilization") && has("averageValue") => {
            errors.forbidden(&average, "may not set both a target raw value and a target utilization");
        }
        _ => {}
    }
}

fn identifier(source: &Value, at: &At, errors: &mut Errors) {
    let (metric, at) = (&source["metric"], at.field("metric"));
    match text(metric, "name") {
        "" => errors.required(&at.field("name"), "must specify a metric name"),
        name => errors.rule(&at.field("name"), name, names::path_segment),
    }
}

fn target(target: &Value, at: &At, errors: &mut Errors) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.required(&at.field("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(&at.field("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    for key in ["value", "averageValue"] {
        if let Some(amount) = Quantity::from_value(&target[key]).filter(|q| q.is_negative() || q.milli_value() == 0) {
            errors.invalid(&at.field(key), amount.to_string(), "must be positive");
        }
    }
    if let Some(share) = target["averageUtilization"].as_i64().filter(|share| *share < 1) {
        errors.invalid(&at.field("averageUtilization"), share, "must be greater than 0");
    }
}

/// The counts of a status are not negative.
pub(crate) fn status(new: &Value, _: &Value, sub: crate::strategy::Sub, errors: &mut Errors) {
    if sub == crate::strategy::Sub::Status {
        for key in ["currentReplicas", "desiredReplicas"] {
            not_negative(&new["status"][key], &At::root("status").field(key), errors);
        }
    }
}
