//! Required affinity and anti-affinity among Pods, of the Pod itself and of those that are there already.

use std::collections::HashSet;

use super::{Cycle, Rejection, Wake};
use crate::{
    cluster::{Cluster, NodeInfo},
    matching::PodTerm,
    pod::PodInfo,
};

const WAKE: &[Wake] = &[Wake::Node, Wake::PodGone, Wake::PodPlaced, Wake::Namespace];

/// A topology key and value.
type Domain = (String, String);

/// The domains that matter to a Pod.
pub(crate) struct Affinity {
    /// Where Pods live whose anti-affinity speaks of this one.
    repelling: HashSet<Domain>,
    /// For each affinity term, where all terms are matched by one Pod.
    attracting: HashSet<Domain>,
    /// Whether the Pod is the first of a group that wants to be together.
    first_of_its_kind: bool,
    /// For the anti-affinity terms, where matching Pods live.
    avoided: HashSet<Domain>,
}

impl Affinity {
    pub(crate) fn new(cluster: &Cluster, pod: &PodInfo) -> Self {
        let mut affinity = Self {
            repelling: HashSet::new(),
            attracting: HashSet::new(),
            first_of_its_kind: false,
            avoided: HashSet::new(),
        };
        if pod.affinity.is_empty() && pod.anti_affinity.is_empty() && cluster.repelling == 0 {
            return affinity;
        }
        let own = cluster.namespace_labels(&pod.key.namespace);
        for node in cluster.known() {
            for other in node.pods.values() {
                affinity.meet(cluster, pod, &own, node, other);
            }
        }
        let matches_itself = pod.affinity.iter().all(|term| term.matches(&pod.key.namespace, &own, &pod.labels));
        affinity.first_of_its_kind = affinity.attracting.is_empty() && matches_itself;
        affinity
    }

    fn meet(
        &mut self,
        cluster: &Cluster,
        pod: &PodInfo,
        own: &crate::matching::Labels,
        node: &NodeInfo,
        other: &PodInfo,
    ) {
        let domain = |term: &PodTerm| {
            node.labels.get(&term.topology_key).map(|value| (term.topology_key.clone(), value.clone()))
        };
        let repelling = other.anti_affinity.iter().filter(|t| t.matches(&pod.key.namespace, own, &pod.labels));
        self.repelling.extend(repelling.filter_map(domain));
        if pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return;
        }
        let theirs = cluster.namespace_labels(&other.key.namespace);
        let matches = |term: &&PodTerm| term.matches(&other.key.namespace, &theirs, &other.labels);
        if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| matches(&term)) {
            self.attracting.extend(pod.affinity.iter().filter_map(domain));
        }
        self.avoided.extend(pod.anti_affinity.iter().filter(matches).filter_map(domain));
    }
}

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let Affinity { repelling, attracting, first_of_its_kind, avoided } = &cycle.affinity;
    let domain =
        |term: &PodTerm| node.labels.get(&term.topology_key).map(|value| (term.topology_key.clone(), value.clone()));
    let near = cycle.pod.affinity.iter().all(|term| match domain(term) {
        Some(domain) => attracting.contains(&domain) || *first_of_its_kind,
        None => false,
    });
    if !near {
        return Err(Rejection::new("node(s) didn't match pod affinity rules", WAKE));
    }
    if cycle.pod.anti_affinity.iter().filter_map(domain).any(|domain| avoided.contains(&domain)) {
        return Err(Rejection::new("node(s) didn't match pod anti-affinity rules", WAKE));
    }
    if repelling.iter().any(|(key, value)| node.labels.get(key) == Some(value)) {
        return Err(Rejection::new("node(s) didn't satisfy existing pods anti-affinity rules", WAKE));
    }
    Ok(())
}
