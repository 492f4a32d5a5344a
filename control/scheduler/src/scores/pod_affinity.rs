//! Preferred affinity and anti-affinity to Pods.

use std::collections::HashMap;

use super::MOST;
use crate::{cluster::NodeInfo, filters::Cycle};

pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let mut weights: HashMap<(&str, &str), i64> = HashMap::new();
    if !cycle.pod.preferred.is_empty() {
        for node in cycle.cluster.known() {
            for other in node.pods.values() {
                let labels = cycle.cluster.namespace_labels(&other.key.namespace);
                for (weight, term) in &cycle.pod.preferred {
                    let Some(domain) = node.labels.get(&term.topology_key) else {
                        continue;
                    };
                    if term.matches(&other.key.namespace, &labels, &other.labels) {
                        *weights.entry((&term.topology_key, domain)).or_default() += weight;
                    }
                }
            }
        }
    }
    let of = |node: &&NodeInfo| {
        let here = |((key, value), weight): (&(&str, &str), &i64)| match node.labels.get(*key) {
            Some(label) if label == value => *weight,
            _ => 0,
        };
        weights.iter().map(here).sum::<i64>()
    };
    let sums: Vec<i64> = nodes.iter().map(of).collect();
    let (least, most) = (sums.iter().min().copied(), sums.iter().max().copied());
    match (least, most) {
        (Some(least), Some(most)) if most > least => {
            sums.iter().map(|sum| (sum - least) * MOST / (most - least)).collect()
        }
        _ => vec![0; nodes.len()],
    }
}
