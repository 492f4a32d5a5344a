//! What the scheduler knows of the cluster, kept up to date by events and by its own decisions.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node, Taint};
use wherry_reconcile::{nodes, resources::Resources};

use crate::{alike::Alike, matching::Labels, nominations::Nominations, pod::PodInfo, storage::Storage};

/// The label with which a node says whether it runs containers.
const CONTAINERS: &str = "wherry.dev/containers";

/// A node, and the Pods that are or will be on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    /// None while only Pods speak of the node.
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) labels: Labels,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Resources,
    pub(crate) requested: Resources,
    pub(crate) weights: (i64, i64),
    /// By UID.
    pub(crate) pods: BTreeMap<String, Arc<PodInfo>>,
    /// Images on the node, by each of their names.
    pub(crate) images: HashMap<String, Held>,
}

/// An image on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Bytes.
    pub(crate) size: i64,
    /// Containers start from it with nothing more to be made of it.
    pub(crate) prepared: bool,
}

impl NodeInfo {
    fn set(&mut self, node: Arc<Node>) {
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        self.labels = node.metadata.labels.clone().unwrap_or_default();
        self.taints = spec.taints.unwrap_or_default();
        self.unschedulable = spec.unschedulable.unwrap_or_default();
        self.allocatable = Resources::read(status.allocatable.as_ref().or(status.capacity.as_ref()));
        self.images = status
            .images
            .iter()
            .flatten()
            .flat_map(|image| {
                let held = Held { size: image.size_bytes.unwrap_or_default(), prepared: nodes::is_prepared(image) };
                image.names.iter().flatten().map(move |name| (name.clone(), held))
            })
            .collect();
        self.node = Some(node);
    }

    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.weights.0 += pod.weights.0;
        self.weights.1 += pod.weights.1;
        self.pods.insert(pod.uid.clone(), pod);
    }

    pub(crate) fn remove(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else {
            return;
        };
        self.requested.subtract(&pod.requests);
        self.weights.0 -= pod.weights.0;
        self.weights.1 -= pod.weights.1;
    }

    /// Whether it runs Wasm alone.
    pub(crate) fn is_wasm_only(&self) -> bool {
        self.labels.get(CONTAINERS).is_some_and(|value| value == "false")
    }
}

/// The nodes with their Pods, and the namespaces' labels.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub(crate) nodes: BTreeMap<String, NodeInfo>,
    pub(crate) namespaces: HashMap<String, Labels>,
    /// Claims, volumes and their classes.
    pub(crate) storage: Storage,
    /// Pods without a node for which room is being made.
    pub(crate) nominations: Nominations,
    /// The UIDs of placed Pods that were asked to leave for another and may not be seen ending yet.
    leaving: HashSet<String>,
    /// The node of each Pod, by UID.
    places: HashMap<String, String>,
    /// The placed Pods by kind.
    pub(crate) alike: Alike,
}

impl Cluster {
    /// Takes in a node as it is now.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = self.nodes.entry(name.clone()).or_default();
        info.name = name;
        info.set(node);
    }

    /// Forgets a node. Its Pods are remembered until they are gone themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(info) = self.nodes.get_mut(name) else {
            return;
        };
        if info.pods.is_empty() {
            self.nodes.remove(name);
        } else {
            let pods = std::mem::take(&mut info.pods);
            *info = NodeInfo { name: name.to_owned(), ..NodeInfo::default() };
            pods.into_values().for_each(|pod| info.add(pod));
        }
    }

    /// Takes in a namespace's labels, or that it is gone.
    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    /// Puts a Pod on a node, from where it was before, if anywhere. It needs no room elsewhere any more.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.take_off(&pod.uid);
        self.nominations.remove(&pod.uid);
        self.places.insert(pod.uid.clone(), node.to_owned());
        self.alike.add(&pod, node);
        let info = self.nodes.entry(node.to_owned()).or_default();
        info.name = node.to_owned();
        info.add(pod);
    }

    /// Takes a Pod off its node. Says whether it was on one.
    pub fn remove(&mut self, uid: &str) -> bool {
        self.leaving.remove(uid);
        self.take_off(uid)
    }

    fn take_off(&mut self, uid: &str) -> bool {
        let Some(node) = self.places.remove(uid) else {
            return false;
        };
        let Some(info) = self.nodes.get_mut(&node) else {
            return false;
        };
        if let Some(pod) = info.pods.get(uid) {
            self.alike.remove(pod, &node);
        }
        info.remove(uid);
        if info.node.is_none() && info.pods.is_empty() {
            self.nodes.remove(&node);
        }
        true
    }

    /// A placed Pod has been asked to leave for another.
    pub(crate) fn ask_to_leave(&mut self, uid: &str) {
        if self.places.contains_key(uid) {
            self.leaving.insert(uid.to_owned());
        }
    }

    /// A Pod could not be asked to leave.
    pub(crate) fn spare(&mut self, uid: &str) {
        self.leaving.remove(uid);
    }

    /// Whether a placed Pod is leaving to make room for another.
    pub(crate) fn is_preempted(&self, pod: &PodInfo) -> bool {
        pod.preempted || self.leaving.contains(&pod.uid)
    }

    /// Where a Pod is.
    pub(crate) fn place_of(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(String::as_str)
    }

    /// The nodes that exist.
    pub(crate) fn known(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.values().filter(|info| info.node.is_some())
    }

    /// A node that exists.
    pub(crate) fn known_node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name).filter(|info| info.node.is_some())
    }

    pub(crate) fn namespace_labels(&self, name: &str) -> Labels {
        self.namespaces.get(name).cloned().unwrap_or_default()
    }
}
