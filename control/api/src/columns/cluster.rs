//! The cluster itself: nodes, namespaces, configuration, events, quotas, leases, classes.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    AGE, Column, NAME, age, count, human_duration, name, name_or_default, number, or_none, shown,
    shown_or, since, truth, wide,
};
use crate::validation::{entries, is_set, items, text};

pub(crate) const NODE: &[Column] = &[
    NAME,
    shown("Status", "The status of the node"),
    shown("Roles", "The roles of the node"),
    AGE,
    shown("Version", "The version of the node's agent."),
    wide("Internal-IP", "The node's address within the cluster."),
    wide("External-IP", "The node's address outside of the cluster."),
    wide("OS-Image", "The node's operating system."),
    wide("Kernel-Version", "The node's kernel."),
    wide("Container-Runtime", "What runs the node's containers."),
];
pub(crate) const NAMESPACE: &[Column] =
    &[NAME, shown("Status", "The status of the namespace"), AGE];
pub(crate) const CONFIG_MAP: &[Column] = &[NAME, shown("Data", "The number of entries."), AGE];
pub(crate) const SECRET: &[Column] = &[
    NAME,
    shown("Type", "What the secret is for."),
    shown("Data", "The number of entries."),
    AGE,
];
pub(crate) const EVENT: &[Column] = &[
    shown("Last Seen", "When it last happened."),
    shown("Type", "Normal or Warning."),
    shown("Reason", "Why, in one word."),
    shown("Object", "What it happened to."),
    wide("Subobject", "The part of the object."),
    wide("Source", "Who says so."),
    shown("Message", "What happened."),
    wide("First Seen", "When it first happened."),
    wide("Count", "How often it happened."),
    Column {
        priority: 1,
        ..NAME
    },
];
pub(crate) const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    shown("Request", "What may be requested, and how much of it is."),
    shown("Limit", "What limits may add up to, and how far they do."),
    AGE,
];
pub(crate) const LIMIT_RANGE: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        kind: "date",
        ..AGE
    },
];
pub(crate) const PDB: &[Column] = &[
    NAME,
    shown(
        "Min Available",
        "The minimum number of pods that must be available.",
    ),
    shown(
        "Max Unavailable",
        "The maximum number of pods that may be unavailable.",
    ),
    number(
        "Allowed Disruptions",
        "Calculated number of pods that may be disrupted at this time.",
    ),
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
pub(crate) const ROLE: &[Column] = &[
    NAME,
    Column {
        name: "Created At",
        kind: "date",
        ..AGE
    },
];
pub(crate) const ROLE_BINDING: &[Column] = &[
    NAME,
    shown("Role", "The role that is bound."),
    AGE,
    wide("Users", "Users in the binding."),
    wide("Groups", "Groups in the binding."),
    wide("ServiceAccounts", "ServiceAccounts in the binding."),
];
pub(crate) const LEASE: &[Column] = &[NAME, shown("Holder", "Who holds the lease."), AGE];
pub(crate) const RUNTIME_CLASS: &[Column] =
    &[NAME, shown("Handler", "What runs pods of this class."), AGE];
pub(crate) const PRIORITY_CLASS: &[Column] = &[
    NAME,
    number("Value", "The priority of pods of this class."),
    truth(
        "Global-Default",
        "Whether pods without a class get this one.",
    ),
    AGE,
    wide(
        "PreemptionPolicy",
        "Whether pods of this class make room for themselves.",
    ),
];
pub(crate) const CSR: &[Column] = &[
    NAME,
    AGE,
    shown("SignerName", "Who is to sign it."),
    shown("Requestor", "Who asks for it."),
    shown("RequestedDuration", "How long it should be valid."),
    shown("Condition", "What has become of it."),
];
pub(crate) const COMPONENT_STATUS: &[Column] = &[
    NAME,
    shown("Status", "Status of the component conditions"),
    shown("Message", "Message of the component conditions"),
    shown("Error", "Error of the component conditions"),
];
pub(crate) const WEBHOOKS: &[Column] = &[
    NAME,
    number("Webhooks", "The number of webhooks registered."),
    AGE,
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

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    items(&node["status"], "addresses")
        .iter()
        .find(|a| a["type"] == kind)
        .map_or("", |a| text(a, "address"))
}

fn unknown(value: &str) -> &str {
    if value.is_empty() { "<unknown>" } else { value }
}

pub(crate) fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = items(&node["status"], "conditions")
        .iter()
        .find(|c| c["type"] == "Ready");
    let mut status = match ready {
        None => "Unknown",
        Some(ready) if ready["status"] == "True" => "Ready",
        Some(_) => "NotReady",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles: Vec<&str> = entries(&node["metadata"]["labels"])
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let info = &node["status"]["nodeInfo"];
    let mut kernel = unknown(text(info, "kernelVersion")).to_owned();
    if !text(info, "architecture").is_empty() {
        kernel = format!("{kernel} ({})", text(info, "architecture"));
    }
    vec![
        name(node),
        status.into(),
        or_none(&roles.join(",")),
        age(node, now),
        text(info, "kubeletVersion").into(),
        or_none(address(node, "InternalIP")),
        or_none(address(node, "ExternalIP")),
        unknown(text(info, "osImage")).into(),
        kernel.into(),
        unknown(text(info, "containerRuntimeVersion")).into(),
    ]
}

pub(crate) fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(&object["status"], "phase").into(),
        age(object, now),
    ]
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

pub(crate) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let entries = size(&object["data"]) + size(&object["binaryData"]);
    vec![name(object), entries.into(), age(object, now)]
}

pub(crate) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, "type").into(),
        size(&object["data"]).into(),
        age(object, now),
    ]
}

/// The first text that is not empty, of fields in the forms of core/v1 and events.k8s.io/v1.
fn first<'a>(texts: &[&'a str]) -> &'a str {
    texts
        .iter()
        .find(|t| !t.is_empty())
        .copied()
        .unwrap_or_default()
}

pub(crate) fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let at = |keys: [&str; 2]| {
        keys.map(|key| &event[key])
            .into_iter()
            .find(|v| !v.is_null())
            .unwrap_or(&Value::Null)
    };
    let first_seen = match at(["firstTimestamp", "deprecatedFirstTimestamp"]) {
        Value::Null => since(&event["eventTime"], now),
        time => since(time, now),
    };
    let mut last_seen = match at(["lastTimestamp", "deprecatedLastTimestamp"]) {
        Value::Null => first_seen.clone(),
        time => since(time, now),
    };
    let mut times = at(["count", "deprecatedCount"]).as_i64().unwrap_or(0);
    let series = &event["series"];
    if !series.is_null() {
        last_seen = since(&series["lastObservedTime"], now);
        times = series["count"].as_i64().unwrap_or(0);
    } else if times == 0 {
        times = 1;
    }
    let object = at(["involvedObject", "regarding"]);
    let target = match text(object, "name") {
        "" => text(object, "kind").to_lowercase(),
        name => format!("{}/{name}", text(object, "kind").to_lowercase()),
    };
    let source = at(["source", "deprecatedSource"]);
    let component = first(&[
        text(source, "component"),
        text(event, "reportingComponent"),
        text(event, "reportingController"),
    ]);
    let instance = first(&[text(source, "host"), text(event, "reportingInstance")]);
    let source_cell = if instance.is_empty() {
        component.to_owned()
    } else {
        format!("{component}, {instance}")
    };
    vec![
        last_seen.into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        target.into(),
        text(object, "fieldPath").into(),
        source_cell.into(),
        first(&[text(event, "message"), text(event, "note")])
            .trim()
            .into(),
        first_seen.into(),
        times.into(),
        name(event),
    ]
}

pub(crate) fn resource_quota(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = &object["status"];
    let mut hard: Vec<_> = entries(&status["hard"]).collect();
    hard.sort_unstable_by_key(|(resource, _)| resource.as_str());
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, amount) in hard {
        let used = shown_or(&status["used"][resource.as_str()], "0");
        let line = format!("{resource}: {used}/{}", shown_or(amount, "0"));
        if resource.starts_with("limits.") {
            limits.push(line)
        } else {
            requests.push(line)
        }
    }
    vec![
        name(object),
        requests.join(", ").into(),
        limits.join(", ").into(),
        age(object, now),
    ]
}

/// Kinds that upstream prints with the time of creation itself.
pub(crate) fn created_at(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(&object["metadata"], "creationTimestamp").into(),
    ]
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
                return format!(
                    "{resource}: {}/{}",
                    of("averageValue"),
                    shown_or(&target["averageValue"], "")
                );
            }
            let percent = |value: &Value, missing: &str| {
                value
                    .as_i64()
                    .map_or_else(|| missing.to_owned(), |n| format!("{n}%"))
            };
            format!(
                "{resource}: {}/{}",
                percent(&current["averageUtilization"], "<unknown>"),
                percent(&target["averageUtilization"], "<auto>")
            )
        }
        "pods" => format!(
            "{}/{}",
            of("averageValue"),
            shown_or(&target["averageValue"], "")
        ),
        _ if average => format!(
            "{}/{} (avg)",
            of("averageValue"),
            shown_or(&target["averageValue"], "")
        ),
        _ => format!("{}/{}", of("value"), shown_or(&target["value"], "")),
    }
}

pub(crate) fn hpa(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let target = &spec["scaleTargetRef"];
    let metrics = items(spec, "metrics");
    let current = items(status, "currentMetrics");
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .take(2)
        .map(|(i, m)| metric(m, current.get(i).unwrap_or(&Value::Null)))
        .collect();
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

pub(crate) fn role_binding(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = &object["roleRef"];
    let subjects = |kind: &str| {
        let all: Vec<String> = items(object, "subjects")
            .iter()
            .filter(|s| s["kind"] == kind)
            .map(|s| {
                if kind == "ServiceAccount" {
                    format!("{}/{}", text(s, "namespace"), text(s, "name"))
                } else {
                    text(s, "name").to_owned()
                }
            })
            .collect();
        Value::String(all.join(", "))
    };
    vec![
        name(object),
        format!("{}/{}", text(role, "kind"), text(role, "name")).into(),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ]
}

pub(crate) fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(&object["spec"], "holderIdentity").into(),
        age(object, now),
    ]
}

pub(crate) fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        text(object, "handler").into(),
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

pub(crate) fn csr(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let has = |kind: &str| {
        items(status, "conditions")
            .iter()
            .any(|c| c["type"] == kind)
    };
    let mut condition = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        condition.push_str(",Failed");
    }
    if !text(status, "certificate").is_empty() {
        condition.push_str(",Issued");
    }
    vec![
        name(object),
        age(object, now),
        or_none(text(spec, "signerName")),
        text(spec, "username").into(),
        spec["expirationSeconds"]
            .as_i64()
            .map_or_else(|| "<none>".to_owned(), human_duration)
            .into(),
        condition.into(),
    ]
}

pub(crate) fn component_status(object: &Value, _: Timestamp) -> Vec<Value> {
    let healthy = items(object, "conditions")
        .iter()
        .find(|c| c["type"] == "Healthy");
    let (status, message, error) = match healthy {
        None => ("Unknown", "", ""),
        Some(c) if c["status"] == "True" => ("Healthy", text(c, "message"), text(c, "error")),
        Some(c) => ("Unhealthy", text(c, "message"), text(c, "error")),
    };
    vec![name(object), status.into(), message.into(), error.into()]
}

pub(crate) fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        name(object),
        items(object, "webhooks").len().into(),
        age(object, now),
    ]
}

pub(crate) fn flow_schema(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let dangling = items(&object["status"], "conditions")
        .iter()
        .find(|c| c["type"] == "Dangling");
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
        if value.is_null() {
            "<none>".into()
        } else {
            value.clone()
        }
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

/// IngressClass and StorageClass mark the default one.
pub(crate) fn storage_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let or = |key: &str, missing: &'static str| {
        if is_set(object, key) {
            text(object, key).into()
        } else {
            missing.into()
        }
    };
    vec![
        name_or_default(object, "storageclass.kubernetes.io/is-default-class"),
        text(object, "provisioner").into(),
        or("reclaimPolicy", "Delete"),
        or("volumeBindingMode", "Immediate"),
        (object["allowVolumeExpansion"] == true).into(),
        age(object, now),
    ]
}
