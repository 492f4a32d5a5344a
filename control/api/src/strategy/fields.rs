//! Fields that selectors can name.

use serde_json::Value;

/// A selectable field: its name, where its value is, and what a missing one counts as.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The name in a field selector.
    pub name: &'static str,
    /// Where to look, first hit wins; dots part the steps.
    paths: &'static [&'static str],
    missing: &'static str,
}

const fn field(name: &'static str, paths: &'static [&'static str]) -> Field {
    Field { name, paths, missing: "" }
}

const fn or(name: &'static str, paths: &'static [&'static str], missing: &'static str) -> Field {
    Field { name, paths, missing }
}

/// Pod.
pub(super) const POD: &[Field] = &[
    field("spec.nodeName", &["spec.nodeName"]),
    field("spec.restartPolicy", &["spec.restartPolicy"]),
    field("spec.schedulerName", &["spec.schedulerName"]),
    field("spec.serviceAccountName", &["spec.serviceAccountName"]),
    or("spec.hostNetwork", &["spec.hostNetwork"], "false"),
    field("status.phase", &["status.phase"]),
    field("status.podIP", &["status.podIPs.0.ip", "status.podIP"]),
    field("status.podIPs", &["status.podIPs.0.ip", "status.podIP"]),
    field("status.nominatedNodeName", &["status.nominatedNodeName"]),
];
/// Node.
pub(super) const NODE: &[Field] = &[or("spec.unschedulable", &["spec.unschedulable"], "false")];
/// Namespace.
pub(super) const NAMESPACE: &[Field] = &[field("status.phase", &["status.phase"])];
/// Secret.
pub(super) const SECRET: &[Field] = &[field("type", &["type"])];
/// Service.
pub(super) const SERVICE: &[Field] =
    &[field("spec.clusterIP", &["spec.clusterIP"]), field("spec.type", &["spec.type"])];
/// ReplicaSet and ReplicationController.
pub(super) const REPLICAS: &[Field] = &[or("status.replicas", &["status.replicas"], "0")];
/// Job.
pub(super) const JOB: &[Field] = &[or("status.successful", &["status.succeeded"], "0")];
/// CertificateSigningRequest.
pub(super) const CSR: &[Field] = &[field("spec.signerName", &["spec.signerName"])];
/// PersistentVolume and PersistentVolumeClaim have an old bug that clients may rely on.
pub(super) const NAME: &[Field] = &[field("name", &["metadata.name"])];
/// Event, in the form of either of its groups.
pub(super) const EVENT: &[Field] = &[
    field("involvedObject.kind", &["involvedObject.kind", "regarding.kind"]),
    field("involvedObject.namespace", &["involvedObject.namespace", "regarding.namespace"]),
    field("involvedObject.name", &["involvedObject.name", "regarding.name"]),
    field("involvedObject.uid", &["involvedObject.uid", "regarding.uid"]),
    field("involvedObject.apiVersion", &["involvedObject.apiVersion", "regarding.apiVersion"]),
    field("involvedObject.resourceVersion", &["involvedObject.resourceVersion", "regarding.resourceVersion"]),
    field("involvedObject.fieldPath", &["involvedObject.fieldPath", "regarding.fieldPath"]),
    field("regarding.kind", &["involvedObject.kind", "regarding.kind"]),
    field("regarding.namespace", &["involvedObject.namespace", "regarding.namespace"]),
    field("regarding.name", &["involvedObject.name", "regarding.name"]),
    field("regarding.uid", &["involvedObject.uid", "regarding.uid"]),
    field("regarding.apiVersion", &["involvedObject.apiVersion", "regarding.apiVersion"]),
    field("regarding.resourceVersion", &["involvedObject.resourceVersion", "regarding.resourceVersion"]),
    field("regarding.fieldPath", &["involvedObject.fieldPath", "regarding.fieldPath"]),
    field("reason", &["reason"]),
    field("reportingComponent", &["reportingComponent", "reportingController"]),
    field("reportingController", &["reportingComponent", "reportingController"]),
    field("source", &["source.component", "deprecatedSource.component", "reportingComponent", "reportingController"]),
    field("type", &["type"]),
];

/// The value at a path of names and indices; null if there is none.
pub(crate) fn dig<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, step| match value {
        Value::Array(items) => step.parse().ok().and_then(|i: usize| items.get(i)).unwrap_or(&Value::Null),
        value => &value[step],
    })
}

pub(super) fn selectable(fields: &[Field], object: &Value) -> Vec<(&'static str, String)> {
    let text = |value: &Value| match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    let mut found = Vec::with_capacity(2 + fields.len());
    let metadata = &object["metadata"];
    found.push(("metadata.name", text(&metadata["name"]).unwrap_or_default()));
    if let Some(namespace) = text(&metadata["namespace"]) {
        found.push(("metadata.namespace", namespace));
    }
    for field in fields {
        let value = field.paths.iter().find_map(|path| text(dig(object, path)));
        found.push((field.name, value.unwrap_or_else(|| field.missing.to_owned())));
    }
    found
}
