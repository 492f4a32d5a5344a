//! Small kinds: budgets, classes, leases, quotas, ranges (upstream: the `validation` of their groups).

use serde_json::{Value, json};

use super::workload::int_or_percent;
use super::{At, Errors, entries, is_set, items, names, not_negative, resources, scheduling, text};
use crate::quantity::Quantity;
use crate::strategy::Sub;

/// PodDisruptionBudget.
pub(crate) fn budget(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    if is_set(spec, "minAvailable") && is_set(spec, "maxUnavailable") {
        errors.invalid(&at, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for key in ["minAvailable", "maxUnavailable"] {
        int_or_percent(&spec[key], &at.field(key), errors);
        let share = spec[key].as_str().and_then(|share| share.strip_suffix('%')).and_then(|n| n.parse::<i64>().ok());
        if share.is_some_and(|share| share > 100) {
            errors.invalid(&at.field(key), spec[key].clone(), "must not be greater than 100%");
        }
    }
    if is_set(spec, "selector") {
        scheduling::label_selector(&spec["selector"], &at.field("selector"), errors);
    }
    if let Some(policy) = spec["unhealthyPodEvictionPolicy"].as_str() {
        errors.one_of(&at.field("unhealthyPodEvictionPolicy"), policy, &["AlwaysAllow", "IfHealthyBudget"]);
    }
}

/// The counts and conditions of a budget's status.
pub(crate) fn budget_status(new: &Value, _: &Value, sub: Sub, errors: &mut Errors) {
    if sub != Sub::Status {
        return;
    }
    let (status, at) = (&new["status"], At::root("status"));
    super::meta::conditions(items(status, "conditions"), &at.field("conditions"), errors);
    for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        not_negative(&status[key], &at.field(key), errors);
    }
}

/// PriorityClass.
pub(crate) fn priority_class(object: &Value, errors: &mut Errors) {
    let name = text(&object["metadata"], "name");
    let value = object["value"].as_i64().unwrap_or(0);
    let known = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
    let why = match known.iter().find(|(known, _)| *known == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, must)) if *must != value => Some(format!("value of {name} PriorityClass must be {must}")),
        Some(_) if object["globalDefault"] == true => {
            Some(format!("globalDefault of {name} PriorityClass must be false"))
        }
        Some(_) => None,
    };
    if let Some(why) = why.filter(|_| name.starts_with("system-")) {
        let reserved = "priority class names with 'system-' prefix are reserved for system use only. error: ";
        errors.forbidden(&At::root("metadata.name"), format!("{reserved}{why}"));
    } else if !name.starts_with("system-") && value > 1_000_000_000 {
        errors.forbidden(&At::root("value"), "maximum allowed value of a user defined priority is 1000000000");
    }
    match object["preemptionPolicy"].as_str() {
        None => {}
        Some("") => errors.required(&At::root("preemptionPolicy"), ""),
        Some(policy) => errors.one_of(&At::root("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]),
    }
}

/// RuntimeClass.
pub(crate) fn runtime_class(object: &Value, errors: &mut Errors) {
    match text(object, "handler") {
        "" => errors.required(&At::root("handler"), ""),
        handler => errors.rule(&At::root("handler"), handler, names::label),
    }
    // Upstream checks them as the limits of a container, and says so.
    let (limits, overhead_at) = (json!({"limits": object["overhead"]["podFixed"]}), At::root("overhead"));
    resources::requirements(&limits, &Value::Null, &overhead_at, errors);
    if is_set(object, "scheduling") {
        let at = At::root("scheduling");
        super::meta::labels(&object["scheduling"]["nodeSelector"], &at.field("nodeSelector"), errors);
        scheduling::tolerations(&object["scheduling"], &at.field("tolerations"), errors);
        let (tolerations, at) = (items(&object["scheduling"], "tolerations"), at.field("tolerations"));
        for (i, found) in tolerations.iter().enumerate().filter(|(i, found)| tolerations[..*i].contains(found)) {
            errors.duplicate(&at.index(i), found.clone());
        }
    }
}

/// Lease.
pub(crate) fn lease(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        errors.invalid(&at.field("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    not_negative(&spec["leaseTransitions"], &at.field("leaseTransitions"), errors);
}

/// ControllerRevision.
pub(crate) fn revision(object: &Value, errors: &mut Errors) {
    match &object["data"] {
        Value::Null => errors.required(&At::root("data"), "data is mandatory"),
        Value::Object(_) => {}
        _ => errors.required(&At::root("data"), "data must be a valid JSON object"),
    }
    not_negative(&object["revision"], &At::root("revision"), errors);
}

const SCOPES: [&str; 6] =
    ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"];

/// ResourceQuota.
pub(crate) fn quota(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    let hard_at = at.field("hard");
    for (name, amount) in entries(&spec["hard"]) {
        for why in names::qualified(name) {
            errors.invalid(&hard_at.key(name), name.as_str(), why);
        }
        resources::quota_resource(name, &hard_at.key(name), errors);
        resources::amount(name, amount, &hard_at.key(name), errors);
    }
    let scopes: Vec<&str> = items(spec, "scopes").iter().filter_map(Value::as_str).collect();
    let fits = |scope: &str| entries(&spec["hard"]).all(|(name, _)| scope_fits(scope, name));
    let conflict = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")]
        .iter()
        .any(|(a, b)| scopes.contains(a) && scopes.contains(b));
    let scopes_at = at.field("scopes");
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.invalid(&scopes_at, spec["scopes"].clone(), "unsupported scope");
        } else if !fits(scope) {
            errors.invalid(&scopes_at, spec["scopes"].clone(), "unsupported scope applied to resource");
        }
    }
    if conflict {
        errors.invalid(&scopes_at, spec["scopes"].clone(), "conflicting scopes");
    }
    let expressions_at = at.field("scopeSelector");
    let at = expressions_at.field("matchExpressions");
    for expression in items(&spec["scopeSelector"], "matchExpressions") {
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        let scope_at = at.field("scopeName");
        if !SCOPES.contains(&scope) {
            errors.invalid(&scope_at, scope, "unsupported scope");
        } else if !fits(scope) {
            errors.invalid(&at, spec["scopeSelector"].clone(), "unsupported scope applied to resource");
        }
        if matches!(
            scope,
            "BestEffort" | "NotBestEffort" | "Terminating" | "NotTerminating" | "CrossNamespacePodAffinity"
        ) && operator != "Exists"
        {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                       ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&at.field("operator"), operator, why);
        }
        let count = items(expression, "values").len();
        match operator {
            "In" | "NotIn" if count == 0 => errors.required(
                &at.field("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if count > 0 => errors.invalid(
                &at.field("values"),
                expression["values"].clone(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&at.field("operator"), operator, "not a valid selector operator"),
        }
    }
}

/// Whether a scope says something about a resource: scopes are about Pods.
fn scope_fits(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        _ => {
            let name = resource.trim_start_matches("requests.").trim_start_matches("limits.");
            matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage" | "count/pods")
                || name.starts_with("hugepages-")
        }
    }
}

/// LimitRange.
pub(crate) fn limit_range(object: &Value, errors: &mut Errors) {
    let mut types = std::collections::BTreeSet::new();
    for (i, limit) in items(&object["spec"], "limits").iter().enumerate() {
        let at = At::root("spec.limits");
        limits(limit, &at.index(i), errors);
        if !types.insert(text(limit, "type")) {
            errors.duplicate(&at.index(i).field("type"), text(limit, "type"));
        }
    }
}

fn limits(limit: &Value, at: &At, errors: &mut Errors) {
    let kind = text(limit, "type");
    let unqualified = names::qualified(kind);
    let qualified = unqualified.is_empty();
    for why in unqualified {
        errors.invalid(&at.field("type"), kind, why);
    }
    if qualified && !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
        errors.invalid(&at.field("type"), kind, "must be a standard limit type or fully qualified");
    }
    if kind == "Pod" {
        for key in ["default", "defaultRequest"].iter().filter(|key| entries(&limit[**key]).next().is_some()) {
            errors.forbidden(&at.field(key), "may not be specified when `type` is 'Pod'");
        }
    }
    if kind == "PersistentVolumeClaim" && limit["min"]["storage"].is_null() && limit["max"]["storage"].is_null() {
        errors.required(
            &at.field("limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        );
    }
    let amount = |key: &str, name: &str| limit[key].get(name).and_then(Quantity::from_value);
    let names: std::collections::BTreeSet<&String> =
        ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"]
            .iter()
            .flat_map(|key| entries(&limit[*key]).map(|(name, _)| name))
            .collect();
    for name in names {
        let order = [
            ("min", "max", "min"),
            ("min", "defaultRequest", "defaultRequest"),
            ("defaultRequest", "max", "defaultRequest"),
            ("defaultRequest", "default", "defaultRequest"),
            ("min", "default", "default"),
            ("default", "max", "default"),
        ];
        let said = |key: &str| match key {
            "defaultRequest" => "default request value",
            "default" => "default value",
            "min" => "min value",
            _ => "max value",
        };
        if kind == "Container" {
            for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
                if limit[key].get(name.as_str()).is_some() {
                    resources::container_resource(name, &at.field(key).key(name), errors);
                }
            }
        }
        for (low, high, at_key) in order {
            if let (Some(low_amount), Some(high_amount)) = (amount(low, name), amount(high, name))
                && low_amount > high_amount
            {
                // Upstream shows the other value where the default itself is out of bounds.
                let shown_key = match (low, high) {
                    ("min", "default") => "min",
                    ("default", "max") => "max",
                    _ => at_key,
                };
                let shown = limit[shown_key][name.as_str()].clone();
                let high_said =
                    if low == "defaultRequest" && high == "default" { "default limit value" } else { said(high) };
                let why = format!("{} {low_amount} is greater than {high_said} {high_amount}", said(low));
                errors.invalid(&at.field(at_key).key(name), shown, why);
            }
        }
        if let Some(ratio) = amount("maxLimitRequestRatio", name)
            && ratio.milli_value() < 1000
        {
            let at = at.field("maxLimitRequestRatio");
            errors.invalid(&at.key(name), ratio.to_string(), format!("ratio {ratio} is less than 1"));
        }
        if let (Some(ratio), Some(min), Some(max)) =
            (amount("maxLimitRequestRatio", name), amount("min", name), amount("max", name))
            && ratio.as_f64() > max.as_f64() / min.as_f64()
        {
            let at = at.field("maxLimitRequestRatio");
            let why = format!("ratio {ratio} is greater than max/min = {:.6}", max.as_f64() / min.as_f64());
            errors.invalid(&at.key(name), ratio.to_string(), why);
        }
        if let (Some(limit), Some(request)) = (amount("default", name), amount("defaultRequest", name))
            && limit != request
            && !resources::overcommits(name)
        {
            let at = at.field("defaultRequest");
            let why = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
            errors.invalid(&at.key(name), request.to_string(), why);
        }
    }
}

/// PodTemplate.
pub(crate) fn pod_template(object: &Value, errors: &mut Errors) {
    super::pod::template(&object["template"], &At::root("template"), errors);
}
