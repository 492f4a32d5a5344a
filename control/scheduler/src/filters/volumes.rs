//! The node must reach the volumes of the Pod's claims; claims that wait for their first Pod must find one there, or somebody
//! who makes it; a claim for a single Pod must be free. Upstream: VolumeRestrictions, VolumeBinding and VolumeZone.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use wherry_reconcile::{ObjectKey, ownership, storage};

use super::{Cycle, Rejection, Wake};
use crate::{
    cluster::{Cluster, NodeInfo},
    matching::NodeTerm,
    pod::PodInfo,
};

const ZONES: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// What a Pod's claims need of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    /// The names of the volumes that its claims have.
    bound: Vec<String>,
    /// Claims that wait for the Pod's node.
    pub(crate) unbound: Vec<Arc<PersistentVolumeClaim>>,
    /// The names of the claims that it must have alone.
    exclusive: Vec<String>,
    /// How many other Pods use such a claim.
    holders: i64,
}

/// What is to be written before a Pod may have its node.
#[derive(Debug)]
pub(crate) enum Write {
    /// A volume is the claim's.
    Reserve(Box<PersistentVolume>),
    /// A volume is to be made for the claim.
    SelectNode(Arc<PersistentVolumeClaim>),
}

impl Needs {
    /// What the Pod's claims need; else why no node will do.
    pub(crate) fn new(cluster: &Cluster, pod: &PodInfo) -> Result<Self, String> {
        let mut needs = Self::default();
        for used in &pod.claims {
            let name = &used.name;
            let Some(claim) = cluster.storage.claims.get(&ObjectKey::new(pod.key.namespace.clone(), name.clone()))
            else {
                return Err(if used.ephemeral {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                });
            };
            if used.ephemeral && !ownership::is_controlled_by(&claim.metadata, &pod.uid) {
                let namespace = &pod.key.namespace;
                return Err(format!(
                    "PVC \"{namespace}/{name}\" was not created for pod \"{}\" (pod is not the owner)",
                    pod.key
                ));
            }
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
                let volume = storage::volume_name(claim);
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                ));
            }
            if is_exclusive(claim) {
                needs.exclusive.push(name.clone());
            }
            if storage::is_bound(claim) {
                needs.bound.push(storage::volume_name(claim).to_owned());
            } else if storage::waits_for_consumer(class(cluster, claim)) && storage::volume_name(claim).is_empty() {
                needs.unbound.push(claim.clone());
            } else {
                return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
            }
        }
        if !needs.exclusive.is_empty() {
            let placed = cluster.nodes.values().flat_map(|node| node.pods.values());
            placed.for_each(|other| needs.count(pod, other, 1));
        }
        Ok(needs)
    }

    /// Counts another Pod that has a node `by` times.
    pub(super) fn count(&mut self, pod: &PodInfo, other: &PodInfo, by: i64) {
        let shares = other.uid != pod.uid
            && other.key.namespace == pod.key.namespace
            && other.claims.iter().any(|used| self.exclusive.contains(&used.name));
        self.holders += if shares { by } else { 0 };
    }
}

fn class<'a>(cluster: &'a Cluster, claim: &PersistentVolumeClaim) -> Option<&'a StorageClass> {
    cluster.storage.classes.get(storage::class_of(claim)).map(Arc::as_ref)
}

fn is_exclusive(claim: &PersistentVolumeClaim) -> bool {
    let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
}

pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
    let Ok(needs) = &cycle.needs else { return Ok(()) };
    const WAKE: &[Wake] = &[Wake::Volume, Wake::Node, Wake::PodGone];
    let refuse = |why: &str| Err(Rejection::of_node(why, WAKE));
    if needs.holders > 0 {
        let why = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
        return Err(Rejection::of_pods(why, WAKE));
    }
    for name in &needs.bound {
        let Some(volume) = cycle.cluster.storage.volumes.get(name) else {
            return refuse("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)");
        };
        if !reaches(node, volume) {
            return refuse("node(s) didn't match PersistentVolume's node affinity");
        }
        if !in_zone(node, volume) {
            return refuse("node(s) had no available volume zone");
        }
    }
    match choose(cycle.cluster, needs, node) {
        Some(_) => Ok(()),
        None => refuse("node(s) didn't find available persistent volumes to bind"),
    }
}

/// What is to be written so that the Pod can have this node.
pub(crate) fn writes(cluster: &Cluster, needs: &Needs, node: &NodeInfo) -> Vec<Write> {
    choose(cluster, needs, node).unwrap_or_default()
}

/// For each unbound claim the volume that it gets on the node, or the order to make one; none where one would have neither.
fn choose(cluster: &Cluster, needs: &Needs, node: &NodeInfo) -> Option<Vec<Write>> {
    let mut writes = Vec::new();
    let mut chosen: BTreeSet<&String> = BTreeSet::new();
    // The smallest first, so that it does not take what only fits the larger.
    let mut unbound: Vec<_> = needs.unbound.iter().collect();
    unbound.sort_by_key(|claim| storage::requested(claim));
    for claim in unbound {
        let selected = storage::annotation(claim, storage::SELECTED_NODE);
        if selected.is_some_and(|selected| selected != node.name) {
            return None;
        }
        let free = cluster.storage.volumes.iter().filter(|(name, _)| !chosen.contains(name)).map(|(_, volume)| volume);
        let here = |volume: &PersistentVolume| reaches(node, volume);
        if let Some(volume) = storage::best_match(claim, free, Some(&here), true) {
            if let Some((name, _)) =
                cluster.storage.volumes.get_key_value(volume.metadata.name.as_deref().unwrap_or_default())
            {
                chosen.insert(name);
            }
            writes.extend(storage::bound(volume, claim).map(|volume| Write::Reserve(Box::new(volume))));
        } else if storage::provisions(class(cluster, claim)) && is_allowed(class(cluster, claim), node) {
            if selected.is_none() {
                writes.push(Write::SelectNode(claim.clone()));
            }
        } else {
            return None;
        }
    }
    Some(writes)
}

fn reaches(node: &NodeInfo, volume: &PersistentVolume) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|required| {
        required.node_selector_terms.iter().any(|term| NodeTerm::new(term).matches(&node.name, &node.labels))
    })
}

/// A volume's zone labels hold values separated by `__`. A node without any zone is anywhere.
fn in_zone(node: &NodeInfo, volume: &PersistentVolume) -> bool {
    if !ZONES.iter().any(|zone| node.labels.contains_key(*zone)) {
        return true;
    }
    let labels = volume.metadata.labels.iter().flatten().filter(|(key, _)| ZONES.contains(&key.as_str()));
    labels
        .into_iter()
        .all(|(key, values)| node.labels.get(key).is_some_and(|have| values.split("__").any(|value| value == have)))
}

/// Whether a class may have volumes made for this node.
fn is_allowed(class: Option<&StorageClass>, node: &NodeInfo) -> bool {
    let terms = class.and_then(|class| class.allowed_topologies.as_ref());
    terms.is_none_or(|terms| {
        terms.is_empty()
            || terms.iter().any(|term| {
                let mut expressions = term.match_label_expressions.iter().flatten();
                expressions.all(|e| node.labels.get(&e.key).is_some_and(|value| e.values.contains(value)))
            })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Decision, decide, testing};

    fn claim(cluster: &mut Cluster, name: &str, class: &str, annotations: Value, extra: Value) {
        let mut claim = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name, "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
                "resources": {"requests": {"storage": "1Gi"}}},
        });
        claim["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        cluster
            .storage
            .set_claim(ObjectKey::new("default", name), Some(Arc::new(serde_json::from_value(claim).unwrap())));
    }

    fn volume(cluster: &mut Cluster, name: &str, class: &str, node: &str) {
        let volume = json!({
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class, "capacity": {"storage": "1Gi"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}},
            "status": {"phase": "Available"},
        });
        cluster.storage.set_volume(name.to_owned(), Some(Arc::new(serde_json::from_value(volume).unwrap())));
    }

    fn class(cluster: &mut Cluster, name: &str, provisioner: &str, mode: &str) {
        let class = json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode});
        cluster.storage.set_class(name.to_owned(), Some(Arc::new(serde_json::from_value(class).unwrap())));
    }

    fn pod(claims: &[&str]) -> PodInfo {
        let volumes: Vec<_> =
            claims.iter().map(|c| json!({"name": c, "persistentVolumeClaim": {"claimName": c}})).collect();
        testing::pod_with("p", json!({ "volumes": volumes }))
    }

    fn outcome(cluster: &Cluster, pod: &PodInfo) -> String {
        match decide(cluster, pod, 0) {
            Decision::Node(node) => node,
            Decision::None { message, .. } => message,
        }
    }

    #[test]
    fn a_pod_goes_where_its_volumes_are() {
        let mut cluster = testing::cluster(&["n1", "n2"]);
        class(&mut cluster, "now", "p", "Immediate");
        class(&mut cluster, "lazy", "p", "WaitForFirstConsumer");
        class(&mut cluster, "manual", "kubernetes.io/no-provisioner", "WaitForFirstConsumer");
        volume(&mut cluster, "v2", "manual", "n2");
        let done = json!({"pv.kubernetes.io/bind-completed": "yes"});
        claim(&mut cluster, "bound", "lazy", done.clone(), json!({"volumeName": "v2"}));
        claim(&mut cluster, "dangling", "lazy", done, json!({"volumeName": "v9"}));
        claim(&mut cluster, "unbound", "now", json!({}), json!({}));
        claim(&mut cluster, "made", "lazy", json!({}), json!({}));
        claim(&mut cluster, "chosen", "lazy", json!({"volume.kubernetes.io/selected-node": "n2"}), json!({}));
        claim(&mut cluster, "found", "manual", json!({}), json!({}));
        claim(&mut cluster, "second", "manual", json!({}), json!({}));
        for (claims, wanted) in [
            (&["bound"][..], "n2"),
            (&["chosen"], "n2"),
            (&["found"], "n2"),
            (&["none"], "0/2 nodes are available: persistentvolumeclaim \"none\" not found."),
            (&["unbound"], "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
            (
                &["dangling"],
                "0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).",
            ),
            (
                &["found", "second"],
                "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.",
            ),
        ] {
            assert_eq!(outcome(&cluster, &pod(claims)), wanted, "{claims:?}");
        }
        assert!(["n1", "n2"].contains(&&*outcome(&cluster, &pod(&["made"]))));
        let mut small = testing::cluster(&["n1"]);
        small.storage = cluster.storage.clone();
        assert_eq!(
            outcome(&small, &pod(&["bound"])),
            "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity."
        );
    }

    #[test]
    fn what_is_written_reserves_a_volume_or_has_one_made() {
        let mut cluster = testing::cluster(&["n1"]);
        class(&mut cluster, "lazy", "p", "WaitForFirstConsumer");
        class(&mut cluster, "manual", "kubernetes.io/no-provisioner", "WaitForFirstConsumer");
        volume(&mut cluster, "v", "manual", "n1");
        claim(&mut cluster, "found", "manual", json!({}), json!({}));
        claim(&mut cluster, "made", "lazy", json!({}), json!({}));
        let pod = pod(&["found", "made"]);
        let needs = Needs::new(&cluster, &pod).unwrap();
        let writes = writes(&cluster, &needs, &cluster.nodes["n1"]);
        let [Write::Reserve(volume), Write::SelectNode(claim)] = &writes[..] else { panic!("{writes:?}") };
        assert_eq!(storage::reference(volume).unwrap().name.as_deref(), Some("found"));
        assert_eq!(claim.metadata.name.as_deref(), Some("made"));
    }

    #[test]
    fn a_claim_for_a_single_pod_takes_one() {
        let mut cluster = testing::cluster(&["n1"]);
        class(&mut cluster, "lazy", "p", "WaitForFirstConsumer");
        claim(&mut cluster, "single", "lazy", json!({}), json!({"accessModes": ["ReadWriteOncePod"]}));
        let holder = PodInfo { uid: "other".into(), ..pod(&["single"]) };
        assert_eq!(outcome(&cluster, &pod(&["single"])), "n1");
        cluster.place(Arc::new(holder), "n1");
        let told = "0/1 nodes are available: 1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.";
        assert_eq!(outcome(&cluster, &pod(&["single"])), told);
    }
}
