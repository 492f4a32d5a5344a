//! Preferred affinity and anti-affinity to Pods.

use std::collections::HashMap;

use super::MOST;
use crate::{cluster::NodeInfo, filters::Cycle};

pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let mut weights: HashMap<(&str, &str), i64> = HashMap::new();
    if !cycle.pod.preferred.is_empty() {
        for (other, nodes) in cycle.cluster.alike.kinds() {
            let (namespace, labels) = (&other.key.namespace, cycle.cluster.namespace_labels(&other.key.namespace));
            let terms = cycle.pod.preferred.iter().filter(|(_, term)| term.matches(namespace, &labels, &other.labels));
            let terms: Vec<_> = terms.map(|(weight, term)| (*weight, term.topology_key.as_str())).collect();
            if terms.is_empty() {
                continue;
            }
            for (name, count) in nodes {
                let Some(node) = cycle.cluster.known_node(name) else { continue };
                for (weight, key) in &terms {
                    if let Some(domain) = node.labels.get(*key) {
                        *weights.entry((*key, domain.as_str())).or_default() += weight * count.all;
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
