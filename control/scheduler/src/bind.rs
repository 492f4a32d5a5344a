//! What the scheduler writes: bindings, why a Pod has none and where it is awaited, and that a Pod leaves for another.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Map, Value, json};

use crate::pod::{DISRUPTION_TARGET, PREEMPTION, PodInfo};

/// Gives a Pod its node.
pub(crate) async fn bind(client: Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.key.name, "namespace": pod.key.namespace, "uid": pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let _: Value = api.create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await?;
    Ok(())
}

/// The patch that says on the Pod itself why it has no node, and on which one it is awaited; none if it says so already.
pub(crate) fn unplaced(pod: &Pod, message: &str, awaited: Option<&str>, now: Timestamp) -> Option<Value> {
    let mut status = Map::new();
    if let Some(condition) = condition(pod, message, now) {
        status.insert("conditions".to_owned(), json!([condition]));
    }
    let known = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    if known.unwrap_or_default() != awaited.unwrap_or_default() {
        status.insert("nominatedNodeName".to_owned(), json!(awaited));
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": pod.metadata.uid}, "status": status}))
}

/// The condition PodScheduled; none if the Pod has it already.
fn condition(pod: &Pod, message: &str, now: Timestamp) -> Option<Value> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let known = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let mut since = now;
    if let Some(known) = known.filter(|known| known.status == "False") {
        if known.reason.as_deref() == Some("Unschedulable") && known.message.as_deref() == Some(message) {
            return None;
        }
        since = known.last_transition_time.as_ref().map_or(since, |time| time.0);
    }
    Some(json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": seconds(since),
    }))
}

/// Seconds are all that the API keeps.
fn seconds(time: Timestamp) -> String {
    let text = time.to_string();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

/// Writes a patch of the status.
pub(crate) async fn report(client: Client, pod: &PodInfo, patch: Value) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// Says on a Pod that it is awaited on no node.
pub(crate) async fn clear_nomination(client: Client, pod: &PodInfo) -> Result<(), kube::Error> {
    report(client, pod, json!({"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": null}})).await
}

/// Tells a Pod that it leaves for one of higher priority, and deletes it with the grace that it has.
pub(crate) async fn preempt(client: Client, pod: &PodInfo, scheduler: &str) -> Result<(), kube::Error> {
    let condition = json!({
        "type": DISRUPTION_TARGET,
        "status": "True",
        "reason": PREEMPTION,
        "message": format!("{scheduler}: preempting to accommodate a higher priority pod"),
        "lastTransitionTime": seconds(Timestamp::now()),
    });
    let told = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    report(client.clone(), pod, told).await?;
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    let same = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    api.delete(&pod.key.name, &params).await.map(drop)
}

/// Whether a write failed because the Pod is gone or is another one now: then the watch tells what to do.
pub(crate) fn is_stale(error: &kube::Error) -> bool {
    is_gone(error) || matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// Whether a write failed because the Pod is gone.
pub(crate) fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn what_is_written_is_written_once_and_keeps_its_time() {
        let mut pod = Pod::clone(&pod("a").pod);
        let first = unplaced(&pod, "no", None, "2026-01-02T03:04:05.678Z".parse().unwrap()).unwrap();
        assert_eq!(first["status"]["conditions"][0]["lastTransitionTime"], "2026-01-02T03:04:05Z");
        assert!(first["status"].get("nominatedNodeName").is_none());
        pod.status = Some(serde_json::from_value(first["status"].clone()).unwrap());
        let later = "2026-01-02T04:00:00Z".parse().unwrap();
        assert!(unplaced(&pod, "no", None, later).is_none());
        let second = unplaced(&pod, "still no", Some("n"), later).unwrap();
        assert_eq!(second["status"]["conditions"][0]["lastTransitionTime"], "2026-01-02T03:04:05Z");
        assert_eq!(second["status"]["conditions"][0]["message"], "still no");
        assert_eq!(second["status"]["nominatedNodeName"], "n");
        pod.status = Some(serde_json::from_value(second["status"].clone()).unwrap());
        assert!(unplaced(&pod, "still no", Some("n"), later).is_none());
        let third = unplaced(&pod, "still no", None, later).unwrap();
        assert_eq!(third["status"], json!({"nominatedNodeName": null}));
    }
}
