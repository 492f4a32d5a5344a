//! Pods without a node for which room is being made on one.
//!
//! The API knows it as `status.nominatedNodeName`; a decision counts here at once, before it is written.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::pod::PodInfo;

/// Which Pods are awaited on which nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nominations {
    /// By node, then by UID.
    nodes: HashMap<String, BTreeMap<String, Arc<PodInfo>>>,
    /// The node of each Pod, by UID.
    places: HashMap<String, String>,
}

impl Nominations {
    /// A Pod is awaited on a node, and on no other.
    pub(crate) fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.uid);
        self.places.insert(pod.uid.clone(), node.to_owned());
        self.nodes.entry(node.to_owned()).or_default().insert(pod.uid.clone(), pod);
    }

    /// A Pod is awaited nowhere. Says whether it was anywhere.
    pub(crate) fn remove(&mut self, uid: &str) -> bool {
        let Some(node) = self.places.remove(uid) else { return false };
        if let Some(pods) = self.nodes.get_mut(&node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.nodes.remove(&node);
            }
        }
        true
    }

    /// Where a Pod is awaited.
    pub(crate) fn of(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(String::as_str)
    }

    /// The Pods that are awaited on a node.
    pub(crate) fn on(&self, node: &str) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nodes.get(node).into_iter().flat_map(BTreeMap::values)
    }
}
