//! Filters: why a node cannot take a Pod. One file a filter; the order is upstream's, and the first to object speaks.

mod affinity;
mod containers;
mod host_ports;
mod node_affinity;
mod node_name;
mod resources;
mod taints;
mod topology_spread;
mod unschedulable;
mod volumes;

use std::sync::Arc;

use crate::{
    cluster::{Cluster, NodeInfo},
    pod::PodInfo,
};
pub(crate) use affinity::Affinity;
pub(crate) use node_affinity::matches as node_affinity_matches;
pub(crate) use topology_spread::Counts;
pub(crate) use volumes::{Needs, Write, writes};

/// What in the cluster may make a Pod schedulable that was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// A node was added or changed.
    Node,
    /// A Pod left its node.
    PodGone,
    /// A Pod was placed, or its labels changed.
    PodPlaced,
    /// A namespace's labels changed.
    Namespace,
    /// A claim, a volume or a class of volumes came, changed or went.
    Volume,
}

/// Why a node cannot take a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reasons: Vec<String>,
    pub(crate) wake: &'static [Wake],
    /// Whether it might take the Pod if some of those on it left.
    pub(crate) resolvable: bool,
}

impl Rejection {
    /// A reason that lies with the node: it stays, whichever Pods leave.
    pub(crate) fn of_node(reason: impl Into<String>, wake: &'static [Wake]) -> Self {
        Self { reasons: vec![reason.into()], wake, resolvable: false }
    }

    /// A reason that lies with the Pods on the node.
    fn of_pods(reason: impl Into<String>, wake: &'static [Wake]) -> Self {
        Self { reasons: vec![reason.into()], wake, resolvable: true }
    }
}

/// What is worked out once a decision rather than once a node.
#[derive(Clone)]
pub(crate) struct Cycle<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) pod: &'a PodInfo,
    affinity: Affinity,
    pub(crate) spreads: Vec<Counts>,
    /// What its claims need of a node; else why no node will do.
    pub(crate) needs: Result<Needs, String>,
}

impl<'a> Cycle<'a> {
    pub(crate) fn new(cluster: &'a Cluster, pod: &'a PodInfo) -> Self {
        let affinity = Affinity::new(cluster, pod);
        let spreads = pod.spreads.iter().map(|spread| Counts::new(cluster, pod, spread)).collect();
        Self { cluster, pod, affinity, spreads, needs: Needs::new(cluster, pod) }
    }

    /// Supposes another Pod on a node.
    pub(crate) fn add(&mut self, node: &mut NodeInfo, other: Arc<PodInfo>) {
        self.count(node, &other, 1);
        node.add(other);
    }

    /// Supposes that a Pod has left a node.
    pub(crate) fn remove(&mut self, node: &mut NodeInfo, other: &PodInfo) {
        self.count(node, other, -1);
        node.remove(&other.uid);
    }

    fn count(&mut self, node: &NodeInfo, other: &PodInfo, by: i64) {
        self.affinity.count(self.cluster, self.pod, node, other, by);
        self.spreads.iter_mut().for_each(|counts| counts.count(self.pod, node, other, by));
        if let Ok(needs) = &mut self.needs {
            needs.count(self.pod, other, by);
        }
    }
}

type Filter = fn(&Cycle<'_>, &NodeInfo) -> Result<(), Rejection>;

const FILTERS: [Filter; 10] = [
    unschedulable::check,
    node_name::check,
    taints::check,
    node_affinity::check,
    containers::check,
    host_ports::check,
    resources::check,
    volumes::check,
    topology_spread::check,
    affinity::check,
];

/// Whether a node can take the cycle's Pod beside those that are on it.
fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    FILTERS.iter().try_for_each(|filter| filter(cycle, node))
}

/// The same, where room is being made on the node for Pods that come first: it must take the Pod with them there (they will
/// come) and without (the Pod may not depend on them).
pub(crate) fn fits(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let (cluster, pod) = (cycle.cluster, cycle.pod);
    let awaited = cluster.nominations.on(&node.name);
    let mut first = awaited.filter(|other| other.uid != pod.uid && other.priority >= pod.priority).peekable();
    if first.peek().is_some() {
        let (mut cycle, mut node) = (cycle.clone(), node.clone());
        first.for_each(|other| cycle.add(&mut node, other.clone()));
        check(&cycle, &node)?;
    }
    check(cycle, node)
}
