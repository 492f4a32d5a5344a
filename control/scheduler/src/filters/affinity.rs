//! Required affinity and anti-affinity among Pods, of the Pod itself and of those that are there already.

use std::collections::HashMap;

use super::{Cycle, Rejection, Wake};
use crate::{
    cluster::{Cluster, NodeInfo},
    matching::{Labels, PodTerm},
    pod::PodInfo,
};

const WAKE: &[Wake] = &[Wake::Node, Wake::PodGone, Wake::PodPlaced, Wake::Namespace];

/// A topology key and value.
type Domain = (String, String);

/// How many Pods (of a kind, for a term) live in which domains.
type Domains = HashMap<Domain, i64>;

/// The domains that matter to a Pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Affinity {
    /// Where Pods live whose anti-affinity speaks of this one.
    repelling: Domains,
    /// For each affinity term, where all terms are matched by one Pod.
    attracting: Domains,
    /// For the anti-affinity terms, where matching Pods live.
    avoided: Domains,
    /// The labels of the Pod's namespace.
    own: Labels,
    /// Whether the Pod matches its own affinity: then the first of its kind may go anywhere.
    matches_itself: bool,
}

impl Affinity {
    pub(crate) fn new(cluster: &Cluster, pod: &PodInfo) -> Self {
        let own = cluster.namespace_labels(&pod.key.namespace);
        let matches_itself = pod.affinity.iter().all(|term| term.matches(&pod.key.namespace, &own, &pod.labels));
        let mut affinity = Self { own, matches_itself, ..Self::default() };
        if pod.affinity.is_empty() && pod.anti_affinity.is_empty() && cluster.repelling == 0 {
            return affinity;
        }
        for node in cluster.known() {
            for other in node.pods.values() {
                affinity.count(cluster, pod, node, other, 1);
            }
        }
        affinity
    }

    /// Counts another Pod on a node `by` times.
    pub(super) fn count(&mut self, cluster: &Cluster, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, by: i64) {
        let domain = |term: &PodTerm| domain(node, term);
        let own = &self.own;
        let repelling = other.anti_affinity.iter().filter(|t| t.matches(&pod.key.namespace, own, &pod.labels));
        count(&mut self.repelling, repelling.filter_map(domain), by);
        if pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return;
        }
        let theirs = cluster.namespace_labels(&other.key.namespace);
        let matches = |term: &&PodTerm| term.matches(&other.key.namespace, &theirs, &other.labels);
        if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| matches(&term)) {
            count(&mut self.attracting, pod.affinity.iter().filter_map(domain), by);
        }
        count(&mut self.avoided, pod.anti_affinity.iter().filter(matches).filter_map(domain), by);
    }
}

fn domain(node: &NodeInfo, term: &PodTerm) -> Option<Domain> {
    node.labels.get(&term.topology_key).map(|value| (term.topology_key.clone(), value.clone()))
}

fn count(domains: &mut Domains, which: impl Iterator<Item = Domain>, by: i64) {
    for domain in which {
        let pods = domains.entry(domain.clone()).or_default();
        *pods += by;
        if *pods == 0 {
            domains.remove(&domain);
        }
    }
}

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let Affinity { repelling, attracting, avoided, matches_itself, .. } = &cycle.affinity;
    let first_of_its_kind = attracting.is_empty() && *matches_itself;
    let near = cycle.pod.affinity.iter().all(|term| match domain(node, term) {
        Some(domain) => attracting.contains_key(&domain) || first_of_its_kind,
        None => false,
    });
    if !near {
        return Err(Rejection::of_node("node(s) didn't match pod affinity rules", WAKE));
    }
    let own = cycle.pod.anti_affinity.iter();
    if own.filter_map(|term| domain(node, term)).any(|domain| avoided.contains_key(&domain)) {
        return Err(Rejection::of_pods("node(s) didn't match pod anti-affinity rules", WAKE));
    }
    if repelling.keys().any(|(key, value)| node.labels.get(key) == Some(value)) {
        return Err(Rejection::of_pods("node(s) didn't satisfy existing pods anti-affinity rules", WAKE));
    }
    Ok(())
}
