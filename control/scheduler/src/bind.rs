//! What the scheduler writes: bindings, and why a Pod has none.

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::pod::PodInfo;

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

/// The patch that says on the Pod itself why it has no node; none if it says so already.
pub(crate) fn condition(pod: &Pod, message: &str, now: Timestamp) -> Option<Value> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let known = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let mut since = now.to_string();
    if let Some(known) = known.filter(|known| known.status == "False") {
        if known.reason.as_deref() == Some("Unschedulable") && known.message.as_deref() == Some(message) {
            return None;
        }
        since = known.last_transition_time.as_ref().map_or(since, |time| time.0.to_string());
    }
    // Seconds are all that the API keeps.
    let since = since.split_once('.').map_or(since.clone(), |(seconds, _)| format!("{seconds}Z"));
    Some(json!({
        "metadata": {"uid": pod.metadata.uid},
        "status": {"conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": since,
        }]},
    }))
}

/// Writes a [`condition`].
pub(crate) async fn report(client: Client, pod: &PodInfo, patch: Value) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    api.patch_status(&pod.key.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

/// Whether a write failed because the Pod is gone or is another one now: then the watch tells what to do.
pub(crate) fn is_stale(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404 || status.code == 409)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn the_condition_is_written_once_and_keeps_its_time() {
        let mut pod = Pod::clone(&pod("a").pod);
        let first = condition(&pod, "no", "2026-01-02T03:04:05.678Z".parse().unwrap()).unwrap();
        assert_eq!(first["status"]["conditions"][0]["lastTransitionTime"], "2026-01-02T03:04:05Z");
        pod.status = Some(serde_json::from_value(first["status"].clone()).unwrap());
        let later = "2026-01-02T04:00:00Z".parse().unwrap();
        assert!(condition(&pod, "no", later).is_none());
        let second = condition(&pod, "still no", later).unwrap();
        assert_eq!(second["status"]["conditions"][0]["lastTransitionTime"], "2026-01-02T03:04:05Z");
        assert_eq!(second["status"]["conditions"][0]["message"], "still no");
    }
}
