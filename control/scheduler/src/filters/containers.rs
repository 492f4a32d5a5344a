//! A Pod with an OCI image needs a node with a container runtime.

use super::{Cycle, Rejection, Wake};
use crate::cluster::NodeInfo;

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    if cycle.pod.needs_containers && node.is_wasm_only() {
        return Err(Rejection::of_node("node(s) can't run containers (no containerd or no root)", &[Wake::Node]));
    }
    Ok(())
}
