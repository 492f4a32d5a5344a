//! What controllers ask of a Pod.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Pod, PodCondition},
    jiff::Timestamp,
};
use wherry_reconcile::{Informer, ownership::controller_of};

/// The index of Pods by the UID of their controller, or by [`orphans`] where they have none.
pub(crate) const BY_CONTROLLER: &str = "controller";
/// The index of Pods by the node they are bound to.
pub(crate) const BY_NODE: &str = "node";

/// Declares the indexes that the controllers read.
pub(crate) fn index(pods: &Informer<Pod>) {
    pods.index(BY_CONTROLLER, |pod| match controller_of(&pod.metadata) {
        Some(owner) => vec![owner.uid.clone()],
        None => vec![orphans(pod.metadata.namespace.as_deref().unwrap_or_default())],
    });
    pods.index(BY_NODE, |pod| node_of(pod).map(str::to_owned).into_iter().collect());
}

/// The key under which [`BY_CONTROLLER`] holds the Pods of a namespace that have no controller.
pub(crate) fn orphans(namespace: &str) -> String {
    format!("orphans in {namespace}")
}

/// The Pods that a controller owns or might adopt.
pub(crate) fn owned_and_orphans(pods: &Informer<Pod>, uid: &str, namespace: &str) -> Vec<Arc<Pod>> {
    let mut found = pods.by_index(BY_CONTROLLER, uid);
    found.extend(pods.by_index(BY_CONTROLLER, &orphans(namespace)));
    found
}

/// The node that the Pod is bound to.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    (!node.is_empty()).then_some(node)
}

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// The condition Ready, if it is true.
fn ready(pod: &Pod) -> Option<&PodCondition> {
    condition(pod, "Ready").filter(|condition| condition.status == "True")
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready(pod).is_some()
}

/// Since when the Pod has been Ready without interruption.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    ready(pod)?.last_transition_time.as_ref().map(|time| time.0)
}

/// How long until a Ready Pod counts as available; none if it is not Ready.
pub(crate) fn until_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    let ready = ready(pod)?;
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    let left = i64::from(min_ready_seconds) * 1000 - now.duration_since(since).as_millis() as i64;
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

/// Ready for at least `min_ready_seconds`.
pub(crate) fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    until_available(pod, min_ready_seconds, now).is_some_and(|left| left.is_zero())
}

/// Ran to its end, well or not.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub(crate) fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Counts as a replica: neither ended nor ending.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(pod)
}

/// Being deleted while it still runs.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && is_deleting(pod)
}

/// The highest restart count of its containers.
pub(crate) fn restarts(pod: &Pod) -> i32 {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
        .map(|container| container.restart_count)
        .max()
        .unwrap_or(0)
}
