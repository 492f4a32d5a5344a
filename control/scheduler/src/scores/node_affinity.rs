//! Preferred node affinity.

use super::more_is_better;
use crate::{cluster::NodeInfo, filters::Cycle};

pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let sum = |node: &&NodeInfo| {
        let terms = cycle.pod.node_preferred.iter();
        terms.filter(|(_, term)| term.matches(&node.name, &node.labels)).map(|(weight, _)| weight).sum()
    };
    more_is_better(nodes.iter().map(sum).collect())
}
