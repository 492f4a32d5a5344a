//! Pod: its first status, quality of service, grace, warnings.

use serde_json::{Value, json};

use super::base::SPEC_STATUS;
use super::{Strategy, Sub, fields, pod_parts};
use crate::columns;
use crate::defaults::{self, Object};
use crate::quantity::Quantity;
use crate::validation::{self, CONTAINER_LISTS, is_set, items, names, text};

pub(super) const POD: Strategy = Strategy {
    check: validation::pod::pod,
    check_update: validation::pod::update,
    columns: columns::POD,
    row: columns::pod,
    fields: fields::POD,
    default: defaults::pod,
    create,
    update,
    warn: warnings,
    grace,
    ..SPEC_STATUS
};

fn create(pod: &mut Object) {
    let spec = pod.get_mut("spec").and_then(Value::as_object_mut);
    // Admission may have named the account since the defaults were set.
    if let Some(spec) = spec
        && let Some(account) = spec.get("serviceAccountName").cloned()
        && spec.get("serviceAccount") != Some(&account)
    {
        spec.insert("serviceAccount".into(), account);
    }
    if let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) {
        drop_disabled(spec);
    }
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(spec)});
    if !items(spec, "schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "lastProbeTime": null, "lastTransitionTime": null,
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    pod.insert("status".into(), status);
}

/// Drops the fields that upstream drops while their features are not yet on: signals to stop with, and projections of trust
/// bundles and Pod certificates.
fn drop_disabled(spec: &mut Object) {
    for list in CONTAINER_LISTS {
        defaults::each(spec, list, |container| {
            if let Some(lifecycle) = defaults::child(container, "lifecycle") {
                lifecycle.remove("stopSignal");
                if lifecycle.is_empty() {
                    container.remove("lifecycle");
                }
            }
        });
    }
    defaults::each(spec, "volumes", |volume| {
        if let Some(projected) = defaults::child(volume, "projected") {
            defaults::each(projected, "sources", |source| {
                source.remove("clusterTrustBundle");
                source.remove("podCertificate");
            });
        }
    });
}

fn update(new: &mut Object, old: &Value, sub: Sub) {
    match sub {
        Sub::Status => {}
        Sub::Ephemeral => return pod_parts::ephemeral(new, old),
        Sub::Resize => return pod_parts::resize(new, old),
        _ => return,
    }
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        match &old["metadata"]["ownerReferences"] {
            Value::Null => drop(metadata.remove("ownerReferences")),
            owners => drop(metadata.insert("ownerReferences".into(), owners.clone())),
        }
    }
    if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut) {
        let before = &old["status"];
        for key in ["qosClass", "observedGeneration"] {
            if status.get(key).is_none_or(|v| v.is_null() || v == "" || v == 0) && is_set(before, key) {
                status.insert(key.into(), before[key].clone());
            }
        }
    }
}

fn grace(pod: &Value, asked: Option<i64>) -> i64 {
    let unbound = text(&pod["spec"], "nodeName").is_empty();
    if unbound || matches!(text(&pod["status"], "phase"), "Failed" | "Succeeded") {
        return 0;
    }
    let seconds = asked.unwrap_or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(0));
    if seconds < 0 { 1 } else { seconds }
}

/// How a Pod is treated when its node runs short: `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let counted =
        |value: &Value, resource: &str| value.get(resource).and_then(Quantity::from_value).filter(|q| !q.is_zero());
    let class = |all: &mut dyn Iterator<Item = &Value>| {
        let (mut any, mut guaranteed) = (false, true);
        for resources in all {
            let (requests, limits) = (&resources["requests"], &resources["limits"]);
            for resource in ["cpu", "memory"] {
                let (request, limit) = (counted(requests, resource), counted(limits, resource));
                any |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some() && (request.is_none() || request == limit);
            }
        }
        match (any, guaranteed) {
            (false, _) => "BestEffort",
            (true, true) => "Guaranteed",
            (true, false) => "Burstable",
        }
    };
    if is_set(spec, "resources") {
        let pod_level = class(&mut std::iter::once(&spec["resources"]));
        if pod_level != "BestEffort" {
            return pod_level;
        }
    }
    class(&mut items(spec, "containers").iter().chain(items(spec, "initContainers")).map(|c| &c["resources"]))
}

fn warnings(pod: &Value, warnings: &mut Vec<String>) {
    name_warning(pod, "the Pod's hostname", warnings);
    super::warnings::pod(pod, "", warnings);
}

/// Warnings about the template of what makes Pods.
pub(super) fn template_warnings(object: &Value, warnings: &mut Vec<String>) {
    super::warnings::pod(&object["spec"]["template"], "spec.template.", warnings);
}

/// The same for a PodTemplate.
pub(super) fn pod_template_warnings(object: &Value, warnings: &mut Vec<String>) {
    super::warnings::pod(&object["template"], "template.", warnings);
}

/// The same for a StatefulSet, which may keep old revisions for ever.
pub(super) fn stateful_set_warnings(object: &Value, warnings: &mut Vec<String>) {
    template_warnings(object, warnings);
    if object["spec"]["revisionHistoryLimit"].as_i64().is_some_and(|limit| limit < 0) {
        warnings.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
}

/// The same for a Job, Deployment or ReplicaSet, whose name goes into that of its Pods.
pub(super) fn named_warnings(object: &Value, warnings: &mut Vec<String>) {
    name_warning(object, "Pod names and hostnames", warnings);
    template_warnings(object, warnings);
}

/// A name that is no DNS label where it is used as one.
fn name_warning(object: &Value, used: &str, warnings: &mut Vec<String>) {
    let errors = names::label(text(&object["metadata"], "name"));
    if !errors.is_empty() {
        let errors = errors.join(" ");
        warnings.push(format!(
            "metadata.name: this is used in {used}, which can result in surprising behavior; a DNS label is recommended: [{errors}]"
        ));
    }
}
