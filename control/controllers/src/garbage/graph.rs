//! The graph of owners and dependents, kept from the changes of all kinds. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;

use crate::catalog::Resource;

/// The finalizer of an owner whose dependents are to be left without it.
pub(super) const ORPHAN: &str = "orphan";
/// The finalizer of an owner that waits for its dependents to be gone.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// An object as far as ownership goes.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) resource: Arc<Resource>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) finalizers: Vec<String>,
    pub(super) deleting: bool,
}

impl Node {
    pub(super) fn of(resource: &Arc<Resource>, meta: &ObjectMeta) -> Self {
        Self {
            resource: resource.clone(),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: meta.uid.clone().unwrap_or_default(),
            version: meta.resource_version.clone().unwrap_or_default(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
        }
    }

    pub(super) fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|known| known == finalizer)
    }

    /// Being deleted, once its dependents are.
    pub(super) fn awaits_dependents(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    /// Being deleted, once its dependents know that they have no owner.
    pub(super) fn orphans_dependents(&self) -> bool {
        self.deleting && self.has(ORPHAN)
    }
}

/// An owner of an object, as the graph knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// There, and staying.
    Solid,
    /// There, and waiting for its dependents to go.
    Waiting,
    /// Not in the graph: perhaps gone, perhaps not heard of yet.
    Unknown,
}

#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|dependent| self.nodes.get(dependent))
    }

    /// Takes in an object's newest state; returns the objects that need a look because of it.
    pub(super) fn put(&mut self, node: Node) -> Vec<String> {
        let uid = node.uid.clone();
        let before = self.nodes.get(&uid).map(|node| node.owners.clone()).unwrap_or_default();
        self.unlink(&uid);
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
        }
        let mut look: Vec<String> = Vec::new();
        if node.orphans_dependents() {
            look.push(uid.clone());
        } else if node.awaits_dependents() {
            look.push(uid.clone());
            look.extend(self.dependents(&uid).map(|dependent| dependent.uid.clone()));
        } else if !node.deleting && !node.owners.is_empty() {
            let settled = node.owners.iter().all(|owner| self.classify(&node, owner) == Owner::Solid);
            if !settled {
                look.push(uid.clone());
            }
        }
        // An owner may be waiting for this object to stop blocking it, or to let go of it.
        let waiting = node.owners.iter().chain(&before).map(|owner| &owner.uid);
        look.extend(waiting.filter(|owner| self.nodes.get(*owner).is_some_and(Node::awaits_dependents)).cloned());
        self.nodes.insert(uid, node);
        look
    }

    /// Takes out an object that is gone; returns the objects that need a look because of it.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<String> {
        let mut look: Vec<String> = self.dependents(uid).map(|dependent| dependent.uid.clone()).collect();
        if let Some(node) = self.nodes.get(uid) {
            let owners = node.owners.iter().map(|owner| &owner.uid);
            look.extend(owners.filter(|owner| self.nodes.get(*owner).is_some_and(Node::awaits_dependents)).cloned());
        }
        self.unlink(uid);
        self.nodes.remove(uid);
        look
    }

    fn unlink(&mut self, uid: &str) {
        let owners = self.nodes.get(uid).map(|node| node.owners.clone()).unwrap_or_default();
        for owner in owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    pub(super) fn classify(&self, node: &Node, owner: &OwnerReference) -> Owner {
        match self.nodes.get(&owner.uid) {
            // A namespaced owner counts only within its namespace.
            Some(known) if known.resource.namespaced && known.namespace != node.namespace => Owner::Unknown,
            Some(known) if known.awaits_dependents() => Owner::Waiting,
            Some(_) => Owner::Solid,
            None => Owner::Unknown,
        }
    }

    /// Whether an object that awaits its dependents has one left that blocks it.
    pub(super) fn is_blocked(&self, uid: &str) -> bool {
        self.dependents(uid).any(|dependent| {
            let owner = dependent.owners.iter().find(|owner| owner.uid == uid);
            owner.and_then(|owner| owner.block_owner_deletion) == Some(true)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use kube::core::ApiResource;

    use super::*;

    fn node(uid: &str, owners: &[&str], finalizers: &[&str], deleting: bool) -> Node {
        Node {
            resource: Arc::new(Resource {
                api: ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()),
                namespaced: true,
                verbs: Vec::new(),
            }),
            namespace: "default".into(),
            name: uid.into(),
            uid: uid.into(),
            version: "1".into(),
            owners: owners
                .iter()
                .map(|uid| OwnerReference {
                    uid: (*uid).into(),
                    block_owner_deletion: Some(true),
                    ..Default::default()
                })
                .collect(),
            finalizers: finalizers.iter().map(|finalizer| (*finalizer).to_owned()).collect(),
            deleting,
        }
    }

    #[test]
    fn only_what_may_be_garbage_is_looked_at() {
        let mut graph = Graph::default();
        assert!(graph.put(node("owner", &[], &[], false)).is_empty());
        assert!(graph.put(node("child", &["owner"], &[], false)).is_empty());
        assert_eq!(graph.put(node("stray", &["nobody"], &[], false)), ["stray"]);
        assert!(graph.put(node("owner", &[], &[], true)).is_empty(), "an ordinary deletion concerns no one yet");
        assert_eq!(graph.remove("owner"), ["child"]);
    }

    #[test]
    fn foreground_deletion_goes_back_and_forth() {
        let mut graph = Graph::default();
        graph.put(node("owner", &[], &[], false));
        graph.put(node("child", &["owner"], &[], false));
        assert_eq!(graph.put(node("owner", &[], &[FOREGROUND], true)), ["owner", "child"]);
        assert!(graph.is_blocked("owner"));
        assert_eq!(graph.classify(graph.get("child").unwrap(), &graph.get("child").unwrap().owners[0]), Owner::Waiting);
        assert_eq!(graph.remove("child"), ["owner"]);
        assert!(!graph.is_blocked("owner"));
    }

    #[test]
    fn an_owner_in_another_namespace_is_none() {
        let mut graph = Graph::default();
        graph.put(node("owner", &[], &[], false));
        let mut child = node("child", &["owner"], &[], false);
        child.namespace = "elsewhere".into();
        assert_eq!(graph.put(child), ["child"]);
    }

    /// What the graph says, by looking at every object.
    #[derive(Default)]
    struct Slow(std::collections::BTreeMap<String, Node>);

    impl Slow {
        fn dependents(&self, uid: &str) -> Vec<&Node> {
            self.0.values().filter(|node| node.owners.iter().any(|owner| owner.uid == uid)).collect()
        }

        fn is_blocked(&self, uid: &str) -> bool {
            self.dependents(uid).iter().any(|node| {
                node.owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
            })
        }

        /// Objects that wait for others to be gone, and need not wait any more.
        fn free(&self) -> HashSet<String> {
            let waiting = self.0.values().filter(|node| node.awaits_dependents());
            waiting.filter(|node| !self.is_blocked(&node.uid)).map(|node| node.uid.clone()).collect()
        }

        /// Objects with an owner that is not there, or waits for them to go.
        fn garbage(&self) -> HashSet<String> {
            let solid = |owner: &OwnerReference| self.0.get(&owner.uid).is_some_and(|owner| !owner.awaits_dependents());
            let candidates = self.0.values().filter(|node| !node.deleting && !node.owners.is_empty());
            candidates.filter(|node| !node.owners.iter().all(solid)).map(|node| node.uid.clone()).collect()
        }
    }

    proptest::proptest! {
        #[test]
        fn whoever_may_be_garbage_or_need_not_wait_is_looked_at(
            steps in proptest::collection::vec((0usize..6, 0u8..4, proptest::collection::vec((0usize..6, proptest::bool::ANY), 0..3)), 0..60),
        ) {
            let (mut graph, mut slow) = (Graph::default(), Slow::default());
            for (n, what, owners) in steps {
                let uid = format!("o{n}");
                let (garbage, free) = (slow.garbage(), slow.free());
                let look = if what == 0 {
                    slow.0.remove(&uid);
                    graph.remove(&uid)
                } else {
                    // Each owner once, and nobody owns itself.
                    let owners: std::collections::BTreeMap<String, bool> =
                        owners.iter().map(|(owner, blocks)| (format!("o{owner}"), *blocks)).collect();
                    let names: Vec<&str> = owners.keys().map(String::as_str).filter(|owner| *owner != uid).collect();
                    let finalizers: &[&str] = if what == 3 { &[FOREGROUND] } else { &[] };
                    let mut node = node(&uid, &names, finalizers, what >= 2);
                    for owner in &mut node.owners {
                        owner.block_owner_deletion = owners.get(&owner.uid).copied();
                    }
                    slow.0.insert(uid.clone(), node.clone());
                    graph.put(node)
                };
                for new in slow.garbage().difference(&garbage).chain(slow.free().difference(&free)) {
                    proptest::prop_assert!(look.contains(new), "{new} is not looked at after {uid}: {look:?}");
                }
                for n in 0..6 {
                    let uid = format!("o{n}");
                    let mut found: Vec<_> = graph.dependents(&uid).map(|node| node.uid.clone()).collect();
                    found.sort();
                    let wanted: Vec<_> = slow.dependents(&uid).iter().map(|node| node.uid.clone()).collect();
                    proptest::prop_assert_eq!(found, wanted);
                    proptest::prop_assert_eq!(graph.is_blocked(&uid), slow.is_blocked(&uid));
                }
            }
        }
    }

    #[test]
    fn an_owner_that_a_dependent_lets_go_of_waits_no_more() {
        let mut graph = Graph::default();
        graph.put(node("child", &["owner"], &[], false));
        graph.put(node("owner", &[], &[FOREGROUND], true));
        assert!(graph.put(node("child", &[], &[], false)).contains(&"owner".to_owned()));
    }
}
