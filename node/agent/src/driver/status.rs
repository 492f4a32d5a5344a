//! Writing a Pod's status: only what changed, one patch at a time, the newest state.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Map, Value, json};

use super::shared::Shared;
use crate::lifecycle::{DISRUPTION_TARGET, TERMINATION_BY_KUBELET, resize};
use wherry_reconcile::resources::RESIZE_PENDING;
use wherry_runtime::PodRef;

/// The conditions that the agent owns.
const OWN_CONDITIONS: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "AllContainersRestarting",
    resize::IN_PROGRESS,
    RESIZE_PENDING,
];
/// The fields that the agent owns.
const OWN_FIELDS: [&str; 13] = [
    "phase",
    "observedGeneration",
    "reason",
    "message",
    "startTime",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "conditions",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
];

/// Whether a condition is the agent's: one that others set as well is by its reason.
fn is_own(type_: &str, reason: Option<&str>) -> bool {
    OWN_CONDITIONS.contains(&type_) || (type_ == DISRUPTION_TARGET && reason == Some(TERMINATION_BY_KUBELET))
}

/// The part of a status that the agent writes.
pub(super) fn own(status: &PodStatus) -> Value {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(status) else { return Value::Null };
    fields.retain(|field, _| OWN_FIELDS.contains(&field.as_str()));
    if let Some(Value::Array(conditions)) = fields.get_mut("conditions") {
        conditions.retain(|condition| {
            condition["type"].as_str().is_some_and(|type_| is_own(type_, condition["reason"].as_str()))
        });
    }
    Value::Object(fields)
}

/// What the next status is computed from: others' fields and conditions as the API has them, ours as last computed.
pub(super) fn base(pod: &Pod, last: &PodStatus) -> PodStatus {
    let mut base = pod.status.clone().unwrap_or_default();
    let ours = last.conditions.iter().flatten();
    let ours = ours.filter(|condition| is_own(&condition.type_, condition.reason.as_deref()));
    let conditions = base.conditions.get_or_insert_default();
    for condition in ours {
        match conditions.iter_mut().find(|known| known.type_ == condition.type_) {
            Some(known) => *known = condition.clone(),
            None => conditions.push(condition.clone()),
        }
    }
    base.start_time = last.start_time.clone().or(base.start_time);
    base
}

/// The strategic merge patch from one to the other; none where they are equal.
pub(super) fn diff(from: &Value, to: &Value) -> Option<Value> {
    let none = Map::new();
    let (old, new) = (from.as_object().unwrap_or(&none), to.as_object().unwrap_or(&none));
    let mut patch: Map<String, Value> = new
        .iter()
        .filter(|(field, value)| old.get(*field) != Some(value))
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    if let Some(Value::Array(conditions)) = patch.get_mut("conditions") {
        conditions.iter_mut().for_each(|condition| without_leftovers(condition, &from["conditions"]));
        let left: Vec<Value> = conditions.iter().map(|condition| condition["type"].clone()).collect();
        let gone = from["conditions"].as_array().into_iter().flatten().filter(|old| !left.contains(&old["type"]));
        conditions.extend(gone.map(|old| json!({ "$patch": "delete", "type": old["type"] })));
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Conditions are merged by type: what one does not have any more is taken away by name.
fn without_leftovers(condition: &mut Value, before: &Value) {
    let old = before.as_array().and_then(|all| all.iter().find(|old| old["type"] == condition["type"]));
    let (Some(Value::Object(old)), Value::Object(new)) = (old, condition) else { return };
    for field in old.keys() {
        new.entry(field.clone()).or_insert(Value::Null);
    }
}

/// A change that nobody waits for: the Pod got its address and is about to start. It is told with the next one.
pub(super) fn is_minor(patch: &Value, from: &Value, to: &Value) -> bool {
    let Some(fields) = patch.as_object() else { return true };
    let quiet = ["podIP", "podIPs", "conditions", "observedGeneration"];
    let others = |value: &Value| -> Vec<Value> {
        let conditions = value["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().filter(|condition| condition["type"] != "PodReadyToStartContainers").collect()
    };
    !from["phase"].is_null() && fields.keys().all(|field| quiet.contains(&field.as_str())) && others(from) == others(to)
}

/// Why a status was not written.
pub(super) enum WriteError {
    /// The Pod is no longer there (or another of its name is).
    Gone,
    /// Try again.
    Failed(kube::Error),
}

/// Writes `patch`; refused by the server where the uid is another.
pub(super) async fn write(shared: &Shared, reference: &PodRef, patch: Value) -> Result<(), WriteError> {
    let Ok(_permit) = shared.limits.writes.acquire().await else { return Ok(()) };
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &reference.namespace);
    let body = Patch::Strategic(json!({ "metadata": { "uid": reference.uid }, "status": patch }));
    match api.patch_status(&reference.name, &PatchParams::default(), &body).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Err(WriteError::Gone),
        Err(error) => Err(WriteError::Failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_written() {
        let from = json!({"phase": "Pending", "reason": "x", "podIP": "10.0.0.1"});
        let to = json!({"phase": "Running", "podIP": "10.0.0.1"});
        assert_eq!(diff(&from, &to), Some(json!({"phase": "Running", "reason": null})));
        assert_eq!(diff(&to, &to), None);
    }

    #[test]
    fn a_condition_s_old_reason_goes_with_it() {
        let from = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "x", "message": "m"}, {"type": "Other", "status": "True"}]});
        let to = json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}]});
        let patch = json!({"conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}, {"type": "Other", "status": "True"}]});
        assert_eq!(diff(&from, &to), Some(patch));
        // And one that is over goes as a whole.
        let one = json!({"conditions": [{"type": "Other", "status": "True"}]});
        let patch = json!({"conditions": [{"type": "Other", "status": "True"}, {"$patch": "delete", "type": "Ready"}]});
        assert_eq!(diff(&to, &one), Some(patch));
    }

    #[test]
    fn an_address_alone_waits_for_the_next_write() {
        let from = json!({"phase": "Pending", "conditions": [{"type": "Ready", "status": "False"}]});
        let mut to = from.clone();
        to["podIP"] = json!("10.0.0.1");
        let patch = diff(&from, &to).unwrap_or_default();
        assert!(is_minor(&patch, &from, &to));
        to["conditions"][0]["status"] = json!("True");
        let patch = diff(&from, &to).unwrap_or_default();
        assert!(!is_minor(&patch, &from, &to));
    }
}
