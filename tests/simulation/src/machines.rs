//! What really runs: the processes of all nodes, whatever the API says of them.
//!
//! Invariant: of one Pod of a StatefulSet, by its name, there is never a process on two machines, nor two on one.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use parking_lot::Mutex;

use crate::witness::Witness;

struct Process {
    namespace: String,
    name: String,
    /// Whether its Pod belongs to a StatefulSet.
    ordinal: bool,
    serving: bool,
}

/// The processes of all nodes, by node and UID of the Pod.
pub(crate) struct Machines {
    processes: Mutex<BTreeMap<(String, String), Process>>,
    witness: Arc<Witness>,
}

fn key(node: &str, uid: &str) -> (String, String) {
    (node.to_owned(), uid.to_owned())
}

impl Machines {
    pub(crate) fn new(witness: Arc<Witness>) -> Self {
        Self { processes: Mutex::default(), witness }
    }

    /// Starts a Pod's process, which does not serve yet.
    pub(crate) fn start(&self, node: &str, pod: &Pod) {
        let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        let process = Process {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            ordinal: owner.is_some_and(|owner| owner.kind == "StatefulSet"),
            serving: false,
        };
        let mut processes = self.processes.lock();
        if process.ordinal {
            let twin = processes
                .iter()
                .find(|(_, other)| other.ordinal && other.name == process.name && other.namespace == process.namespace);
            if let Some(((elsewhere, _), _)) = twin {
                self.witness.accuse(format!("{} starts on {node} while it runs on {elsewhere}", process.name));
            }
        }
        processes.insert(key(node, &pod.uid().unwrap_or_default()), process);
    }

    /// Whether there is a process of a Pod, and if so whether it serves.
    pub(crate) fn serves(&self, node: &str, uid: &str) -> Option<bool> {
        self.processes.lock().get(&key(node, uid)).map(|process| process.serving)
    }

    pub(crate) fn set_serving(&self, node: &str, uid: &str, serving: bool) {
        if let Some(process) = self.processes.lock().get_mut(&key(node, uid)) {
            process.serving = serving;
        }
    }

    /// Ends a Pod's process.
    pub(crate) fn end(&self, node: &str, uid: &str) {
        self.processes.lock().remove(&key(node, uid));
    }

    /// The Pods that have a process on a node.
    pub(crate) fn on(&self, node: &str) -> Vec<String> {
        self.processes.lock().keys().filter(|(on, _)| on == node).map(|(_, uid)| uid.clone()).collect()
    }

    /// The machine loses its power.
    pub(crate) fn power_off(&self, node: &str) {
        self.processes.lock().retain(|(on, _), _| on != node);
    }
}
