//! Nodes that have the Pod's images already, weighed by size.

use super::MOST;
use crate::{cluster::NodeInfo, filters::Cycle};

/// Below this nothing is gained.
const LEAST: i64 = 23 << 20;
/// Above this a container, nothing more is.
const ENOUGH: i64 = 1000 << 20;

pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<i64> {
    let images: Vec<String> = cycle.pod.images.iter().map(|image| normalized(image)).collect();
    let most = ENOUGH * i64::try_from(images.len().max(1)).unwrap_or(i64::MAX / ENOUGH);
    // An image that many nodes have counts for more: it should not make one node a magnet.
    let total = i64::try_from(nodes.len().max(1)).unwrap_or(i64::MAX);
    let spread = |image: &String| {
        let holders = nodes.iter().filter(|node| node.images.contains_key(image)).count();
        i64::try_from(holders).unwrap_or_default()
    };
    let shares: Vec<i64> = images.iter().map(spread).collect();
    let sum = |node: &&NodeInfo| {
        let sizes = images.iter().zip(&shares);
        sizes
            .map(|(image, share)| node.images.get(image).map_or(0, |held| held.size.saturating_mul(*share) / total))
            .sum::<i64>()
    };
    nodes.iter().map(|node| (sum(node).clamp(LEAST, most) - LEAST) * MOST / (most - LEAST)).collect()
}

/// A reference without a tag means `latest`.
pub(super) fn normalized(image: &str) -> String {
    let tagged = image.rsplit('/').next().is_some_and(|last| last.contains(':') || last.contains('@'));
    if tagged { image.to_owned() } else { format!("{image}:latest") }
}
