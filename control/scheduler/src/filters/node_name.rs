//! A Pod that names its node goes there or nowhere.

use super::{Cycle, Rejection, Wake};
use crate::cluster::NodeInfo;

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    match &cycle.pod.node_name {
        Some(name) if *name != node.name => {
            Err(Rejection::of_node("node(s) didn't match the requested node name", &[Wake::Node]))
        }
        _ => Ok(()),
    }
}
