//! A port of the node belongs to one Pod.

use wherry_reconcile::host_ports::NO_FREE_PORTS;

use super::{Cycle, Rejection, Wake};
use crate::cluster::NodeInfo;

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let wanted = &cycle.pod.ports;
    if wanted.is_empty() {
        return Ok(());
    }
    let taken = node.pods.values().flat_map(|pod| &pod.ports).any(|port| wanted.iter().any(|w| w.conflicts(port)));
    if taken {
        return Err(Rejection::of_pods(NO_FREE_PORTS, &[Wake::PodGone, Wake::Node]));
    }
    Ok(())
}
