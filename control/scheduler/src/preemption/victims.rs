//! Who must leave a node so that a Pod fits there.

use std::cmp::Reverse;

use super::{
    Candidate,
    budgets::{self, Budget},
    since,
};
use crate::{
    cluster::NodeInfo,
    filters::{self, Cycle, Rejection},
    pod::PodInfo,
};

/// All Pods of lower priority leave; then each that can stays after all: those first whose leaving breaks a budget, and the
/// most important ones first.
pub(super) fn on(cycle: &Cycle<'_>, node: &NodeInfo, budgets: &[Budget]) -> Result<Candidate, Rejection> {
    let lower = node.pods.values().filter(|other| other.priority < cycle.pod.priority);
    let mut leaving: Vec<_> = lower.cloned().collect();
    if leaving.is_empty() {
        return Err(Rejection::of_node("No preemption victims found for incoming pod", &[]));
    }
    let (mut cycle, mut node) = (cycle.clone(), node.clone());
    leaving.iter().for_each(|other| cycle.remove(&mut node, other));
    filters::fits(&cycle, &node)?;
    leaving.sort_by_key(|other| importance(other));
    let (harmful, harmless) = budgets::split(leaving, budgets);
    let breaking = harmful.len();
    let mut victims = Vec::new();
    let mut violations = 0;
    for (turn, other) in harmful.into_iter().chain(harmless).enumerate() {
        cycle.add(&mut node, other.clone());
        if filters::fits(&cycle, &node).is_err() {
            cycle.remove(&mut node, &other);
            violations += usize::from(turn < breaking);
            victims.push(other);
        }
    }
    victims.sort_by_key(|other| importance(other));
    Ok(Candidate { node: node.name, victims, violations })
}

/// Orders Pods: the higher priority first, then those that have run longer.
fn importance(pod: &PodInfo) -> impl Ord + use<> {
    (Reverse(pod.priority), since(pod))
}
