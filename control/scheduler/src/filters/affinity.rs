//! Required affinity and anti-affinity among Pods, of the Pod itself and of those that are there already.

use std::collections::HashMap;

use super::{Cycle, Rejection, Wake};
use crate::{
    cluster::{Cluster, NodeInfo},
    matching::{Labels, PodTerm},
    pod::PodInfo,
};

const WAKE: &[Wake] = &[Wake::Node, Wake::PodGone, Wake::PodPlaced, Wake::Namespace];

/// How many Pods (of a kind, for a term) live in which domains: by topology key and value.
#[derive(Debug, Clone, Default)]
struct Domains(HashMap<String, HashMap<String, i64>>);

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

/// The topology keys of the terms by which another Pod concerns this one, whichever node it is on.
#[derive(Debug, Default)]
struct Concern<'a> {
    repelling: Vec<&'a str>,
    attracting: Vec<&'a str>,
    avoided: Vec<&'a str>,
}

impl Affinity {
    pub(crate) fn new(cluster: &Cluster, pod: &PodInfo) -> Self {
        let own = cluster.namespace_labels(&pod.key.namespace);
        let matches_itself = pod.affinity.iter().all(|term| term.matches(&pod.key.namespace, &own, &pod.labels));
        let mut affinity = Self { own, matches_itself, ..Self::default() };
        for (other, nodes) in cluster.alike.kinds() {
            let concern = affinity.concern(cluster, pod, other);
            if concern.is_none() {
                continue;
            }
            for (name, count) in nodes {
                if let Some(node) = cluster.known_node(name) {
                    affinity.take_in(&concern, node, count.all);
                }
            }
        }
        affinity
    }

    /// Counts another Pod on a node `by` times.
    pub(super) fn count(&mut self, cluster: &Cluster, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, by: i64) {
        self.take_in(&self.concern(cluster, pod, other), node, by);
    }

    fn concern<'a>(&self, cluster: &Cluster, pod: &'a PodInfo, other: &'a PodInfo) -> Concern<'a> {
        let own = &self.own;
        let key = |term: &'a PodTerm| term.topology_key.as_str();
        let repelling = other.anti_affinity.iter().filter(|t| t.matches(&pod.key.namespace, own, &pod.labels));
        let mut concern = Concern { repelling: repelling.map(key).collect(), ..Concern::default() };
        if pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
            return concern;
        }
        let theirs = cluster.namespace_labels(&other.key.namespace);
        let matches = |term: &&PodTerm| term.matches(&other.key.namespace, &theirs, &other.labels);
        if pod.affinity.iter().all(|term| matches(&term)) {
            concern.attracting = pod.affinity.iter().map(key).collect();
        }
        concern.avoided = pod.anti_affinity.iter().filter(matches).map(key).collect();
        concern
    }

    fn take_in(&mut self, concern: &Concern<'_>, node: &NodeInfo, by: i64) {
        self.repelling.count(&concern.repelling, node, by);
        self.attracting.count(&concern.attracting, node, by);
        self.avoided.count(&concern.avoided, node, by);
    }
}

impl Concern<'_> {
    fn is_none(&self) -> bool {
        self.repelling.is_empty() && self.attracting.is_empty() && self.avoided.is_empty()
    }
}

impl Domains {
    /// Counts in the domains of these keys that a node is in.
    fn count(&mut self, keys: &[&str], node: &NodeInfo, by: i64) {
        for key in keys {
            let Some(value) = node.labels.get(*key) else { continue };
            if !self.0.contains_key(*key) {
                self.0.insert((*key).to_owned(), HashMap::new());
            }
            let Some(values) = self.0.get_mut(*key) else { continue };
            match values.get_mut(value) {
                Some(count) => *count += by,
                None => drop(values.insert(value.clone(), by)),
            }
            if values.get(value) == Some(&0) {
                values.remove(value);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.values().all(HashMap::is_empty)
    }

    /// Whether a node is in one of the domains of a key.
    fn have(&self, key: &str, node: &NodeInfo) -> bool {
        let values = self.0.get(key).filter(|values| !values.is_empty());
        values.is_some_and(|values| node.labels.get(key).is_some_and(|value| values.contains_key(value)))
    }
}

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let Affinity { repelling, attracting, avoided, matches_itself, .. } = &cycle.affinity;
    let first_of_its_kind = attracting.is_empty() && *matches_itself;
    let near = cycle.pod.affinity.iter().all(|term| {
        node.labels.contains_key(&term.topology_key) && (attracting.have(&term.topology_key, node) || first_of_its_kind)
    });
    if !near {
        return Err(Rejection::of_node("node(s) didn't match pod affinity rules", WAKE));
    }
    if cycle.pod.anti_affinity.iter().any(|term| avoided.have(&term.topology_key, node)) {
        return Err(Rejection::of_pods("node(s) didn't match pod anti-affinity rules", WAKE));
    }
    if repelling.0.keys().any(|key| repelling.have(key, node)) {
        return Err(Rejection::of_pods("node(s) didn't satisfy existing pods anti-affinity rules", WAKE));
    }
    Ok(())
}
