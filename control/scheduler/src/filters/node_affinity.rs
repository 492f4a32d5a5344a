//! The node's labels must match the Pod's nodeSelector and required node affinity.

use super::{Cycle, Rejection, Wake};
use crate::{cluster::NodeInfo, pod::PodInfo};

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    if matches(cycle.pod, node) {
        return Ok(());
    }
    Err(Rejection::of_node("node(s) didn't match Pod's node affinity/selector", &[Wake::Node]))
}

/// Whether the Pod's nodeSelector and required node affinity admit the node.
pub(crate) fn matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && pod.node_required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(&node.name, &node.labels)))
}
