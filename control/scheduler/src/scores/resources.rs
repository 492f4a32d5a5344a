//! Nodes with more left, and with CPU and memory used evenly, are better.

use super::MOST;
use crate::{cluster::NodeInfo, filters::Cycle};

/// CPU and memory of a node with the Pod on it: (used, there is).
fn with_pod(cycle: &Cycle<'_>, node: &NodeInfo) -> [(i64, i64); 2] {
    let (cpu, memory) = cycle.pod.weights;
    [(node.weights.0 + cpu, node.allocatable.milli_cpu), (node.weights.1 + memory, node.allocatable.memory)]
}

/// The mean share that would be left.
pub(super) fn least_allocated(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let left = |(used, has): (i64, i64)| match has {
        has if has <= 0 || used > has => 0,
        has => i64::try_from(i128::from(has - used) * i128::from(MOST) / i128::from(has)).unwrap_or_default(),
    };
    nodes.iter().map(|node| with_pod(cycle, node).map(left).iter().sum::<i64>() / 2).collect()
}

/// How near the used shares of CPU and memory would be.
pub(super) fn balanced(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let share = |(used, has): (i64, i64)| {
        if has <= 0 { 1.0 } else { (used as f64 / has as f64).min(1.0) }
    };
    nodes
        .iter()
        .map(|node| {
            let [cpu, memory] = with_pod(cycle, node).map(share);
            // The standard deviation of two numbers is half their distance.
            ((1.0 - (cpu - memory).abs() / 2.0) * MOST as f64) as i64
        })
        .collect()
}
