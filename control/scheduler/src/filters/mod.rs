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
}

impl Rejection {
    fn new(reason: impl Into<String>, wake: &'static [Wake]) -> Self {
        Self { reasons: vec![reason.into()], wake }
    }
}

/// What is worked out once a decision rather than once a node.
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

/// Whether a node can take the cycle's Pod.
pub(crate) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    FILTERS.iter().try_for_each(|filter| filter(cycle, node))
}
