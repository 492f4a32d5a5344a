//! Spread constraints that are wishes.

use super::less_is_better;
use crate::{cluster::NodeInfo, filters::Cycle};

pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let wishes: Vec<_> = cycle.spreads.iter().filter(|counts| !counts.spread.required).collect();
    if wishes.is_empty() {
        return vec![0; nodes.len()];
    }
    let count = |node: &&NodeInfo| {
        let of = |counts: &&&crate::filters::Counts| match node.labels.get(&counts.spread.topology_key) {
            Some(domain) => counts.domains.get(domain).copied().unwrap_or_default(),
            // A node outside of all domains comes last.
            None => counts.domains.values().copied().max().unwrap_or_default() + 1,
        };
        wishes.iter().map(|counts| of(&counts)).sum()
    };
    less_is_better(nodes.iter().map(count).collect())
}
