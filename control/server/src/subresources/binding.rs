//! POST pods/binding: the scheduler's decision. Sets `spec.nodeName` and the condition PodScheduled, once, and clears
//! `status.nominatedNodeName`.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use wherry_api::facts::Schema;
use wherry_api::meta;
use wherry_api::status::Status;
use wherry_api::strategy::Sub;

use crate::engine::{Call, read_body};
use crate::verbs::mutate::Mutation;
use crate::{input, objects, times};

pub(super) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let mut dry_run = call.query().dry_run()?;
    let binding = input::document(call, &read_body(body).await?, schema())?;
    dry_run |= binding["dryRun"].as_array().is_some_and(|d| !d.is_empty());
    let node = target(&binding)?;
    let uid = meta::uid(&binding).to_owned();
    if !matches!(meta::name(&binding), "") && meta::name(&binding) != call.name() {
        return Err(Status::bad_request("the name of the binding does not match the name of the pod"));
    }
    let mutation = Mutation { call, sub: Sub::Other, subresource: "binding", dry_run, manager: None };
    let change = |pod: &Value, _: &mut Vec<String>| bind(call, pod, &binding, &node, &uid);
    mutation.run(&mut Vec::new(), change).await?;
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    objects::status_response(accepted, StatusCode::CREATED, &status, &call.headers)
}

/// The type of the body.
pub(super) fn schema() -> Option<Schema> {
    Schema::builtin("v1", "Binding")
}

/// The node that the binding names.
fn target(binding: &Value) -> Result<String, Status> {
    let target = &binding["target"];
    let kind = target["kind"].as_str().unwrap_or_default();
    let name = target["name"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node" | "Minion") {
        return Err(Status::bad_request(format!("binding target must be a Node, not {kind:?}")));
    }
    if name.is_empty() {
        use wherry_api::field::{FieldError, Path};
        let error = FieldError::required(&Path::new("target.name"), "");
        return Err(Status::invalid("", "Binding", meta::name(binding), &[error]));
    }
    Ok(name.to_owned())
}

fn bind(call: &Call, pod: &Value, binding: &Value, node: &str, uid: &str) -> Result<Value, Status> {
    let refused = |why: String| {
        let name = call.name();
        Err(Status::conflict(&wherry_api::status::GroupResource::new("", "pods/binding"), name, why))
    };
    let name = call.name();
    if !uid.is_empty() && uid != meta::uid(pod) {
        return refused(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::uid(pod)
        ));
    }
    if meta::deletion_timestamp(pod).is_some() {
        return refused(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let present = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if !present.is_empty() {
        return refused(format!("pod {name} is already assigned to node {present:?}"));
    }
    if pod["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return refused(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut bound = pod.clone();
    meta::map_mut(&mut bound, "spec").insert("nodeName".to_owned(), node.into());
    // Annotations and labels of the binding are added to the Pod.
    for key in ["annotations", "labels"] {
        let Some(added) = binding["metadata"][key].as_object() else {
            continue;
        };
        let slot = meta::metadata_mut(&mut bound).entry(key).or_insert_with(|| json!({}));
        if let Some(map) = slot.as_object_mut() {
            map.extend(added.clone());
        }
    }
    let status = meta::map_mut(&mut bound, "status");
    // No room needs to be made for it any more.
    status.remove("nominatedNodeName");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|c| c["type"] != "PodScheduled");
        conditions.push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": times::now()}));
    }
    Ok(bound)
}
