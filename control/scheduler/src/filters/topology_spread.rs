//! Required spread constraints: no domain may get too far ahead of the emptiest one.

use std::collections::HashMap;

use super::{Cycle, Rejection, Wake, node_affinity_matches};
use crate::{
    cluster::{Cluster, NodeInfo},
    matching::untolerated,
    pod::{PodInfo, Spread},
};

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const WAKE: &[Wake] = &[Wake::Node, Wake::PodGone, Wake::PodPlaced];

/// How many matching Pods each domain of a constraint holds.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    pub(crate) spread: Spread,
    pub(crate) domains: HashMap<String, i64>,
    /// How many the emptiest domain holds; 0 where there are too few domains.
    least: i64,
    /// Whether the Pod itself will count.
    counts_itself: bool,
}

impl Counts {
    pub(crate) fn new(cluster: &Cluster, pod: &PodInfo, spread: &Spread) -> Self {
        let counts_itself = spread.selector.matches(&pod.labels);
        let mut counts = Self { spread: spread.clone(), domains: HashMap::new(), least: 0, counts_itself };
        for node in cluster.known() {
            if let Some(domain) = domain(pod, node, spread) {
                counts.add(domain, 0);
            }
        }
        let counted = cluster.alike.kinds().filter(|(other, _)| matches(pod, other, spread));
        for (name, count) in counted.flat_map(|(_, nodes)| nodes).filter(|(_, count)| count.staying > 0) {
            if let Some(domain) = cluster.known_node(name).and_then(|node| domain(pod, node, spread)) {
                counts.add(domain, count.staying);
            }
        }
        counts.find_least();
        counts
    }

    /// Counts another Pod on a node `by` times.
    pub(super) fn count(&mut self, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, by: i64) {
        if !other.terminating
            && matches(pod, other, &self.spread)
            && let Some(domain) = domain(pod, node, &self.spread)
        {
            self.add(domain, by);
            self.find_least();
        }
    }

    fn add(&mut self, domain: &str, by: i64) {
        match self.domains.get_mut(domain) {
            Some(count) => *count += by,
            None => drop(self.domains.insert(domain.to_owned(), by)),
        }
    }

    fn find_least(&mut self) {
        let few = i64::try_from(self.domains.len()).unwrap_or(i64::MAX) < self.spread.min_domains;
        self.least = if few { 0 } else { self.domains.values().copied().min().unwrap_or_default() };
    }

    /// How far ahead a domain would be with the Pod in it.
    fn skew(&self, domain: &str) -> i64 {
        self.domains.get(domain).copied().unwrap_or_default() + i64::from(self.counts_itself) - self.least
    }
}

/// The domain for which a node counts; none where it counts for none.
fn domain<'n>(pod: &PodInfo, node: &'n NodeInfo, spread: &Spread) -> Option<&'n String> {
    // A node must have the keys of all constraints of the same kind to count for any.
    let mut same = pod.spreads.iter().filter(|other| other.required == spread.required);
    let complete = same.all(|other| node.labels.contains_key(&other.topology_key));
    node.labels.get(&spread.topology_key).filter(|_| complete && eligible(pod, node, spread))
}

fn matches(pod: &PodInfo, other: &PodInfo, spread: &Spread) -> bool {
    other.key.namespace == pod.key.namespace && spread.selector.matches(&other.labels)
}

fn eligible(pod: &PodInfo, node: &NodeInfo, spread: &Spread) -> bool {
    let effects = ["NoSchedule", "NoExecute"];
    (!spread.honor_affinity || node_affinity_matches(pod, node))
        && (!spread.honor_taints || untolerated(&node.taints, &pod.tolerations, &effects).next().is_none())
}

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    for counts in cycle.spreads.iter().filter(|counts| counts.spread.required) {
        let Some(domain) = node.labels.get(&counts.spread.topology_key) else {
            return Err(Rejection::of_node(format!("{REASON} (missing required label)"), WAKE));
        };
        if counts.skew(domain) > counts.spread.max_skew {
            return Err(Rejection::of_pods(REASON, WAKE));
        }
    }
    Ok(())
}
