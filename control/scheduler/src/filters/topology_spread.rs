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
    /// Whether the Pod itself will count.
    counts_itself: bool,
}

impl Counts {
    pub(crate) fn new(cluster: &Cluster, pod: &PodInfo, spread: &Spread) -> Self {
        let mut domains = HashMap::new();
        for node in cluster.known() {
            let Some(domain) = domain(pod, node, spread) else { continue };
            let matching = node.pods.values().filter(|other| is_counted(pod, other, spread)).count();
            *domains.entry(domain.clone()).or_default() += i64::try_from(matching).unwrap_or(i64::MAX);
        }
        Self { spread: spread.clone(), domains, counts_itself: spread.selector.matches(&pod.labels) }
    }

    /// Counts another Pod on a node `by` times.
    pub(super) fn count(&mut self, pod: &PodInfo, node: &NodeInfo, other: &PodInfo, by: i64) {
        if is_counted(pod, other, &self.spread)
            && let Some(domain) = domain(pod, node, &self.spread)
        {
            *self.domains.entry(domain.clone()).or_default() += by;
        }
    }

    /// How far ahead a domain would be with the Pod in it.
    fn skew(&self, domain: &str) -> i64 {
        let few = i64::try_from(self.domains.len()).unwrap_or(i64::MAX) < self.spread.min_domains;
        let least = if few { 0 } else { self.domains.values().copied().min().unwrap_or_default() };
        self.domains.get(domain).copied().unwrap_or_default() + i64::from(self.counts_itself) - least
    }
}

/// The domain for which a node counts; none where it counts for none.
fn domain<'n>(pod: &PodInfo, node: &'n NodeInfo, spread: &Spread) -> Option<&'n String> {
    // A node must have the keys of all constraints of the same kind to count for any.
    let mut same = pod.spreads.iter().filter(|other| other.required == spread.required);
    let complete = same.all(|other| node.labels.contains_key(&other.topology_key));
    node.labels.get(&spread.topology_key).filter(|_| complete && eligible(pod, node, spread))
}

fn is_counted(pod: &PodInfo, other: &PodInfo, spread: &Spread) -> bool {
    other.key.namespace == pod.key.namespace && !other.terminating && spread.selector.matches(&other.labels)
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
