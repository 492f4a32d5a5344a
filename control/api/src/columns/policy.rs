//! Limits, budgets, scaling, priorities.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, age, count, name, number, or_none, shown, shown_or, truth, wide};
use crate::validation::{entries, is_set, items, text};

pub(crate) const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    shown("Request", "What may be requested, and how much of it is."),
    shown("Limit", "What limits may add up to, and how far they do."),
    AGE,
];
pub(crate) const LIMIT_RANGE: &[Column] = &[NAME, Column { name: "Created At", kind: "date", ..AGE }];
pub(crate) const PDB: &[Column] = &[
    NAME,
    shown("Min Available", "The minimum number of pods that must be available."),
    shown("Max Unavailable", "The maximum number of pods that may be unavailable."),
    number("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
    AGE,
];
pub(crate) const HPA: &[Column] = &[
    NAME,
    shown("Reference", "What is scaled."),
    shown("Targets", "The metrics, as they are and as they should be."),
    shown("MinPods", "The fewest pods."),
    shown("MaxPods", "The most pods."),
    shown("Replicas", "The pods there are."),
    AGE,
];
pub(crate) const PRIORITY_CLASS: &[Column] = &[
    NAME,
    number("Value", "The priority of pods of this class."),
    truth("Global-Default", "Whether pods without a class get this one."),
    AGE,
    wide("PreemptionPolicy", "Whether pods of this class make room for themselves."),
];
pub(crate) const FLOW_SCHEMA: &[Column] = &[
    NAME,
    shown("PriorityLevel", "The priority level of its requests."),
    shown("MatchingPrecedence", "Lower ones are tried first."),
    shown("DistinguisherMethod", "How flows are told apart."),
    AGE,
    shown("MissingPL", "Whether the priority level is missing."),
];
pub(crate) const PRIORITY_LEVEL: &[Column] = &[
    NAME,
    shown("Type", "Whether requests are limited."),
    shown("NominalConcurrencyShares", "The share of the concurrency."),
    shown("Queues", "The number of queues."),
    shown("HandSize", "The number of queues a flow is dealt."),
    shown("QueueLengthLimit", "The most requests in a queue."),
    AGE,
];

pub(crate) fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut hard: Vec<_> = entries(&status["hard"]).collect();
    hard.sort_unstable_by_key(|(resource, _)| resource.as_str());
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, amount) in hard {
        let used = shown_or(&status["used"][resource.as_str()], "0");
        let line = format!("{resource}: {used}/{}", shown_or(amount, "0"));
        if resource.starts_with("limits.") { limits.push(line) } else { requests.push(line) }
    }
    vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
}

pub(crate) fn pdb(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    vec![
        name(object),
        shown_or(&spec["minAvailable"], "N/A").into(),
        shown_or(&spec["maxUnavailable"], "N/A").into(),
        count(&object["status"]["disruptionsAllowed"]),
        age(object, now),
    ]
}

fn metric(spec: &Value, status: &Value) -> String {
    let kind = text(spec, "type");
    let field = match kind {
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        "Pods" => "pods",
        "Object" => "object",
        "External" => "external",
        _ => return "<unknown type>".to_owned(),
    };
    let (target, current) = (&spec[field]["target"], &status[field]["current"]);
    let of = |key: &str| shown_or(&current[key], "<unknown>");
    let average = is_set(target, "averageValue");
    match field {
        "resource" | "containerResource" => {
            let resource = text(&spec[field], "name");
            if average {
                return format!("{resource}: {}/{}", of("averageValue"), shown_or(&target["averageValue"], ""));
            }
            let percent =
                |value: &Value, missing: &str| value.as_i64().map_or_else(|| missing.to_owned(), |n| format!("{n}%"));
            format!(
                "{resource}: {}/{}",
                percent(&current["averageUtilization"], "<unknown>"),
                percent(&target["averageUtilization"], "<auto>")
            )
        }
        "pods" => format!("{}/{}", of("averageValue"), shown_or(&target["averageValue"], "")),
        _ if average => format!("{}/{} (avg)", of("averageValue"), shown_or(&target["averageValue"], "")),
        _ => format!("{}/{}", of("value"), shown_or(&target["value"], "")),
    }
}

pub(crate) fn hpa(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    let metrics = items(spec, "metrics");
    let current = items(status, "currentMetrics");
    let shown: Vec<String> =
        metrics.iter().enumerate().take(2).map(|(i, m)| metric(m, current.get(i).unwrap_or(&Value::Null))).collect();
    let metrics_cell = match metrics.len() {
        0 => "<none>".to_owned(),
        n @ 3.. => format!("{} + {} more...", shown.join(", "), n - 2),
        _ => shown.join(", "),
    };
    vec![
        name(object),
        format!("{}/{}", text(target, "kind"), text(target, "name")).into(),
        metrics_cell.into(),
        shown_or(&spec["minReplicas"], "<unset>").into(),
        count(&spec["maxReplicas"]),
        count(&status["currentReplicas"]),
        age(object, now),
    ]
}

pub(crate) fn priority_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let default = object["globalDefault"] == true;
    vec![
        name(object),
        count(&object["value"]),
        default.into(),
        age(object, now),
        text(object, "preemptionPolicy").into(),
    ]
}

pub(crate) fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let dangling = items(&object["status"], "conditions").iter().find(|c| c["type"] == "Dangling");
    vec![
        name(object),
        text(&spec["priorityLevelConfiguration"], "name").into(),
        count(&spec["matchingPrecedence"]),
        or_none(text(&spec["distinguisherMethod"], "type")),
        age(object, now),
        dangling.map_or("?", |c| text(c, "status")).into(),
    ]
}

pub(crate) fn priority_level(object: &Value, now: Timestamp) -> Vec<Value> {
    let limited = &object["spec"]["limited"];
    let queuing = &limited["limitResponse"]["queuing"];
    let or_none = |value: &Value| {
        if value.is_null() { "<none>".into() } else { value.clone() }
    };
    vec![
        name(object),
        text(&object["spec"], "type").into(),
        or_none(&limited["nominalConcurrencyShares"]),
        or_none(&queuing["queues"]),
        or_none(&queuing["handSize"]),
        or_none(&queuing["queueLengthLimit"]),
        age(object, now),
    ]
}
