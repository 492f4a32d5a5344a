//! Placed Pods, by what affinity and spread ask of them: what holds for one Pod of a Deployment holds for all, so that a decision asks
//! once a kind and not once a Pod.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::pod::PodInfo;

/// How many Pods of a kind are on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) all: i64,
    /// Those of them that are not being deleted.
    pub(crate) staying: i64,
}

/// One Pod for all that are like it: in one namespace, with the same labels, keeping the same others away.
#[derive(Debug, Clone)]
struct Kind(Arc<PodInfo>);

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.key.namespace == b.key.namespace && a.labels == b.labels && a.anti_affinity == b.anti_affinity
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.namespace.hash(state);
        self.0.labels.hash(state);
    }
}

/// All placed Pods, by kind and node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alike(HashMap<Kind, HashMap<String, Count>>);

impl Alike {
    /// Counts a Pod on a node.
    pub(crate) fn add(&mut self, pod: &Arc<PodInfo>, node: &str) {
        let nodes = self.0.entry(Kind(pod.clone())).or_default();
        if !nodes.contains_key(node) {
            nodes.insert(node.to_owned(), Count::default());
        }
        if let Some(count) = nodes.get_mut(node) {
            count.all += 1;
            count.staying += i64::from(!pod.terminating);
        }
    }

    /// Counts it no more.
    pub(crate) fn remove(&mut self, pod: &Arc<PodInfo>, node: &str) {
        let kind = Kind(pod.clone());
        let Some(nodes) = self.0.get_mut(&kind) else { return };
        if let Some(count) = nodes.get_mut(node) {
            count.all -= 1;
            count.staying -= i64::from(!pod.terminating);
            if count.all == 0 {
                nodes.remove(node);
            }
        }
        if nodes.is_empty() {
            self.0.remove(&kind);
        }
    }

    /// One Pod of each kind, and the nodes that have some.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&PodInfo, impl Iterator<Item = (&str, Count)>)> {
        self.0.iter().map(|(kind, nodes)| (&*kind.0, nodes.iter().map(|(node, count)| (node.as_str(), *count))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{labelled, pod};

    fn counts(alike: &Alike) -> Vec<(String, i64, i64)> {
        let all = alike.kinds().flat_map(|(_, nodes)| nodes);
        let mut all: Vec<_> = all.map(|(node, count)| (node.to_owned(), count.all, count.staying)).collect();
        all.sort();
        all
    }

    #[test]
    fn pods_are_counted_by_kind_and_node_until_they_go() {
        let mut alike = Alike::default();
        let web = |name: &str| Arc::new(labelled(name, json!({"app": "web"}), json!({})));
        let mut leaving = labelled("c", json!({"app": "web"}), json!({}));
        leaving.terminating = true;
        let leaving = Arc::new(leaving);
        alike.add(&web("a"), "n");
        alike.add(&web("b"), "n");
        alike.add(&leaving, "m");
        assert_eq!((alike.kinds().count(), counts(&alike)), (1, vec![("m".into(), 1, 0), ("n".into(), 2, 2)]));
        alike.add(&Arc::new(pod("other")), "n");
        assert_eq!(alike.kinds().count(), 2);
        alike.remove(&web("a"), "n");
        alike.remove(&leaving, "m");
        alike.remove(&Arc::new(pod("other")), "n");
        assert_eq!(counts(&alike), [("n".into(), 1, 1)]);
        alike.remove(&web("b"), "n");
        assert_eq!(alike.kinds().count(), 0, "nothing is kept of what is gone");
    }
}
