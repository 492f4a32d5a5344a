//! The decision: which node takes a Pod, or why none does.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cluster::{Cluster, NodeInfo},
    filters::{self, Cycle, Wake},
    pod::PodInfo,
    scores,
};

/// Below this number of nodes all are looked at.
const ENOUGH: usize = 100;

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The node that takes the Pod.
    Node(String),
    /// No node does.
    None {
        /// Why, as `kubectl describe` shows it.
        message: String,
        /// What may change that.
        wake: BTreeSet<Wake>,
        /// The nodes that might take it if some of their Pods left.
        resolvable: Vec<String>,
    },
}

/// Decides where a Pod goes. `turn` differs from call to call: it says where to begin among many nodes and how to choose
/// among equals; the same arguments give the same decision.
pub fn decide(cluster: &Cluster, pod: &PodInfo, turn: u64) -> Decision {
    let nodes: Vec<&NodeInfo> = cluster.known().collect();
    if nodes.is_empty() {
        let wake = BTreeSet::from([Wake::Node]);
        return Decision::None { message: "no nodes available to schedule pods".into(), wake, resolvable: Vec::new() };
    }
    let cycle = Cycle::new(cluster, pod);
    if let Err(why) = &cycle.needs {
        let message = format!("0/{} nodes are available: {why}.", nodes.len());
        return Decision::None { message, wake: BTreeSet::from([Wake::Volume]), resolvable: Vec::new() };
    }
    // Where room was made for it is where it goes, if it can.
    let nominated = cluster.nominations.of(&pod.uid).and_then(|name| nodes.iter().find(|node| node.name == name));
    if let Some(node) = nominated.filter(|node| filters::fits(&cycle, node).is_ok()) {
        return Decision::Node(node.name.clone());
    }
    let wanted = sample(nodes.len());
    let start = usize::try_from(turn % nodes.len() as u64).unwrap_or_default();
    let (mut feasible, mut resolvable) = (Vec::new(), Vec::new());
    let mut reasons = Reasons::default();
    let mut wake = BTreeSet::new();
    for node in nodes[start..].iter().chain(&nodes[..start]) {
        match filters::fits(&cycle, node) {
            Ok(()) => feasible.push(*node),
            Err(rejection) => {
                wake.extend(rejection.wake);
                if rejection.resolvable {
                    resolvable.push(node.name.clone());
                }
                reasons.add(rejection.reasons, 1);
            }
        }
        if feasible.len() >= wanted {
            break;
        }
    }
    match best(&cycle, &feasible, turn) {
        Some(node) => Decision::Node(node.name.clone()),
        None => Decision::None { message: reasons.message(nodes.len()), wake, resolvable },
    }
}

/// How many fitting nodes suffice: in large clusters a share of the nodes is compared, not all.
fn sample(nodes: usize) -> usize {
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    if nodes < ENOUGH { nodes } else { (nodes * percent / 100).max(ENOUGH) }
}

/// Why nodes do not take a Pod: how many have which reason.
#[derive(Debug, Default)]
pub(crate) struct Reasons(BTreeMap<String, usize>);

impl Reasons {
    /// So many nodes more have these reasons.
    pub(crate) fn add(&mut self, reasons: Vec<String>, nodes: usize) {
        for reason in reasons {
            *self.0.entry(reason).or_default() += nodes;
        }
    }

    /// Upstream's text, where none of so many nodes takes the Pod.
    pub(crate) fn message(&self, nodes: usize) -> String {
        let mut parts: Vec<_> = self.0.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        format!("0/{nodes} nodes are available: {}.", parts.join(", "))
    }
}

fn best<'a>(cycle: &Cycle<'_>, feasible: &[&'a NodeInfo], turn: u64) -> Option<&'a NodeInfo> {
    if feasible.len() < 2 {
        return feasible.first().copied();
    }
    let totals = scores::total(cycle, feasible);
    let top = totals.iter().max()?;
    let equals: Vec<_> = feasible.iter().zip(&totals).filter(|(_, total)| *total == top).collect();
    let chosen = usize::try_from(turn % equals.len() as u64).unwrap_or_default();
    equals.get(chosen).map(|(node, _)| **node)
}
