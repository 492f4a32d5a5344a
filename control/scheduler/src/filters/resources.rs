//! A node must have left what the Pod requests, and room for one more Pod.

use super::{Cycle, Rejection, Wake};
use crate::cluster::NodeInfo;

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let (wanted, has, used) = (&cycle.pod.requests, &node.allocatable, &node.requested);
    let lacks = |wanted: i64, has: i64, used: i64| wanted > 0 && wanted > has - used;
    let mut reasons = Vec::new();
    // What the empty node would not have either does not come from the Pods on it.
    let mut resolvable = true;
    if lacks(wanted.pods, has.pods, used.pods) {
        reasons.push("Too many pods".to_owned());
    }
    for (name, wanted, has, used) in [
        ("cpu", wanted.milli_cpu, has.milli_cpu, used.milli_cpu),
        ("memory", wanted.memory, has.memory, used.memory),
        ("ephemeral-storage", wanted.ephemeral, has.ephemeral, used.ephemeral),
    ] {
        if lacks(wanted, has, used) {
            reasons.push(format!("Insufficient {name}"));
            resolvable &= wanted <= has;
        }
    }
    for (name, wanted) in &wanted.extended {
        let of = |resources: &std::collections::BTreeMap<String, i64>| resources.get(name).copied().unwrap_or_default();
        if lacks(*wanted, of(&has.extended), of(&used.extended)) {
            reasons.push(format!("Insufficient {name}"));
            resolvable &= *wanted <= of(&has.extended);
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Rejection { reasons, wake: &[Wake::PodGone, Wake::Node], resolvable })
}
