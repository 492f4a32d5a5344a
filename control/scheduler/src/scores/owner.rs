//! Pods of one owner are better on different nodes.

use super::less_is_better;
use crate::{cluster::NodeInfo, filters::Cycle};

pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let Some(owner) = &cycle.pod.owner else {
        return vec![0; nodes.len()];
    };
    // A Pod with constraints of its own says itself how it spreads.
    if !cycle.pod.spreads.is_empty() {
        return vec![0; nodes.len()];
    }
    let siblings = |node: &&NodeInfo| {
        let count = node.pods.values().filter(|pod| pod.owner.as_ref() == Some(owner) && !pod.terminating).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    };
    less_is_better(nodes.iter().map(siblings).collect())
}
