//! Taints keep Pods away that do not tolerate them.

use super::{Cycle, Rejection, Wake};
use crate::{cluster::NodeInfo, matching::untolerated};

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let effects = ["NoSchedule", "NoExecute"];
    match untolerated(&node.taints, &cycle.pod.tolerations, &effects).next() {
        Some(_) => Err(Rejection::of_node("node(s) had untolerated taint(s)", &[Wake::Node])),
        None => Ok(()),
    }
}
