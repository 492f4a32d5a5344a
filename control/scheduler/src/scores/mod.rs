//! Scores: how well each fitting node would suit a Pod. One file a score, from 0 to 100; the weights are upstream's,
//! which has no [`prepared`].

mod images;
mod node_affinity;
mod owner;
mod pod_affinity;
mod prepared;
mod resources;
mod taints;
mod topology_spread;

use crate::{cluster::NodeInfo, filters::Cycle};

/// The best a single score gives.
const MOST: i64 = 100;

type Score = fn(&Cycle<'_>, &[&NodeInfo]) -> Vec<i64>;

const SCORES: [(i64, Score); 9] = [
    (1, resources::least_allocated),
    (1, resources::balanced),
    (3, taints::score),
    (2, node_affinity::score),
    (2, pod_affinity::score),
    (2, topology_spread::score),
    (2, owner::score),
    (1, images::score),
    (1, prepared::score),
];

/// The weighted sum of all scores of each node.
pub(crate) fn total(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for (weight, score) in SCORES {
        for (total, score) in totals.iter_mut().zip(score(cycle, nodes)) {
            *total += weight * score.clamp(0, MOST);
        }
    }
    totals
}

/// Stretches counts so that the largest becomes the best score.
fn more_is_better(counts: Vec<i64>) -> Vec<i64> {
    match counts.iter().max() {
        Some(most) if *most > 0 => counts.iter().map(|count| count * MOST / most).collect(),
        _ => vec![0; counts.len()],
    }
}

/// The same, where the smallest is the best.
fn less_is_better(counts: Vec<i64>) -> Vec<i64> {
    let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
    match (least, most) {
        (Some(least), Some(most)) if most > least => {
            counts.iter().map(|count| (most - count) * MOST / (most - least)).collect()
        }
        _ => vec![MOST; counts.len()],
    }
}
