//! The cluster itself: nodes, namespaces, configuration, events, quotas, leases, classes.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, age, human_duration, name, number, or_none, shown, since, wide};
use crate::validation::{entries, items, text};

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
pub(crate) const NAMESPACE: &[Column] = &[NAME, shown("Status", "The status of the namespace"), AGE];
pub(crate) const CONFIG_MAP: &[Column] = &[NAME, shown("Data", "The number of entries."), AGE];
pub(crate) const SECRET: &[Column] =
    &[NAME, shown("Type", "What the secret is for."), shown("Data", "The number of entries."), AGE];
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
    Column { priority: 1, ..NAME },
];
pub(crate) const ROLE: &[Column] = &[NAME, Column { name: "Created At", kind: "date", ..AGE }];
pub(crate) const ROLE_BINDING: &[Column] = &[
    NAME,
    shown("Role", "The role that is bound."),
    AGE,
    wide("Users", "Users in the binding."),
    wide("Groups", "Groups in the binding."),
    wide("ServiceAccounts", "ServiceAccounts in the binding."),
];
pub(crate) const LEASE: &[Column] = &[NAME, shown("Holder", "Who holds the lease."), AGE];
pub(crate) const RUNTIME_CLASS: &[Column] = &[NAME, shown("Handler", "What runs pods of this class."), AGE];
pub(crate) const CSR: &[Column] = &[
    NAME,
    AGE,
    shown("SignerName", "Who is to sign it."),
    shown("Requestor", "Who asks for it."),
    shown("RequestedDuration", "How long it should be valid."),
    shown("Condition", "What has become of it."),
];
pub(crate) const API_SERVICE: &[Column] = &[
    NAME,
    shown("Service", "The service that serves it, or that this server does."),
    shown("Available", "Whether it is served."),
    AGE,
];
pub(crate) const COMPONENT_STATUS: &[Column] = &[
    NAME,
    shown("Status", "Status of the component conditions"),
    shown("Message", "Message of the component conditions"),
    shown("Error", "Error of the component conditions"),
];
pub(crate) const WEBHOOKS: &[Column] = &[NAME, number("Webhooks", "The number of webhooks registered."), AGE];

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    items(&node["status"], "addresses").iter().find(|a| a["type"] == kind).map_or("", |a| text(a, "address"))
}

fn unknown(value: &str) -> &str {
    if value.is_empty() { "<unknown>" } else { value }
}

pub(crate) fn node(node: &Value, now: Timestamp) -> Vec<Value> {
    let ready = items(&node["status"], "conditions").iter().find(|c| c["type"] == "Ready");
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
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
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
    vec![name(object), text(&object["status"], "phase").into(), age(object, now)]
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

pub(crate) fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    let entries = size(&object["data"]) + size(&object["binaryData"]);
    vec![name(object), entries.into(), age(object, now)]
}

pub(crate) fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "type").into(), size(&object["data"]).into(), age(object, now)]
}

/// The first text that is not empty, of fields in the forms of core/v1 and events.k8s.io/v1.
fn first<'a>(texts: &[&'a str]) -> &'a str {
    texts.iter().find(|t| !t.is_empty()).copied().unwrap_or_default()
}

pub(crate) fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let at = |keys: [&str; 2]| keys.map(|key| &event[key]).into_iter().find(|v| !v.is_null()).unwrap_or(&Value::Null);
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
    let component =
        first(&[text(source, "component"), text(event, "reportingComponent"), text(event, "reportingController")]);
    let instance = first(&[text(source, "host"), text(event, "reportingInstance")]);
    let source_cell = if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") };
    vec![
        last_seen.into(),
        text(event, "type").into(),
        text(event, "reason").into(),
        target.into(),
        text(object, "fieldPath").into(),
        source_cell.into(),
        first(&[text(event, "message"), text(event, "note")]).trim().into(),
        first_seen.into(),
        times.into(),
        name(event),
    ]
}

/// Kinds that upstream prints with the time of creation itself.
pub(crate) fn created_at(object: &Value, _: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["metadata"], "creationTimestamp").into()]
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
    vec![name(object), text(&object["spec"], "holderIdentity").into(), age(object, now)]
}

pub(crate) fn runtime_class(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(object, "handler").into(), age(object, now)]
}

pub(crate) fn api_service(object: &Value, now: Timestamp) -> Vec<Value> {
    let service = &object["spec"]["service"];
    let service = match service {
        Value::Null => "Local".to_owned(),
        service => format!("{}/{}", text(service, "namespace"), text(service, "name")),
    };
    let available = items(&object["status"], "conditions").iter().find(|c| c["type"] == "Available");
    let available = match available.map(|c| (text(c, "status"), text(c, "reason"))) {
        None => "Unknown".to_owned(),
        Some((status, reason)) if status == "True" || reason.is_empty() => status.to_owned(),
        Some((status, reason)) => format!("{status} ({reason})"),
    };
    vec![name(object), service.into(), available.into(), age(object, now)]
}

pub(crate) fn csr(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let has = |kind: &str| items(status, "conditions").iter().any(|c| c["type"] == kind);
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
        spec["expirationSeconds"].as_i64().map_or_else(|| "<none>".to_owned(), human_duration).into(),
        condition.into(),
    ]
}

pub(crate) fn component_status(object: &Value, _: Timestamp) -> Vec<Value> {
    let healthy = items(object, "conditions").iter().find(|c| c["type"] == "Healthy");
    let (status, message, error) = match healthy {
        None => ("Unknown", "", ""),
        Some(c) if c["status"] == "True" => ("Healthy", text(c, "message"), text(c, "error")),
        Some(c) => ("Unhealthy", text(c, "message"), text(c, "error")),
    };
    vec![name(object), status.into(), message.into(), error.into()]
}

pub(crate) fn webhooks(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), items(object, "webhooks").len().into(), age(object, now)]
}
