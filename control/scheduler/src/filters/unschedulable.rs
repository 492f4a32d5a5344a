//! Nodes that were cordoned take Pods that tolerate it only.

use k8s_openapi::api::core::v1::Taint;

use super::{Cycle, Rejection, Wake};
use crate::{cluster::NodeInfo, matching::tolerates};

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    if !node.unschedulable {
        return Ok(());
    }
    let taint =
        Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
    if cycle.pod.tolerations.iter().any(|toleration| tolerates(toleration, &taint)) {
        return Ok(());
    }
    Err(Rejection::of_node("node(s) were unschedulable", &[Wake::Node]))
}
