//! Claims and volumes: whether one is for the other. Controller, scheduler and agent decide by the same rules.
//!
//! All pure. Names of annotations and the order of preference are upstream's: a claim gets the smallest volume that is large
//! enough, unless one is reserved for it.

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use wherry_api::quantity::Quantity;

use crate::ownership;

/// On a claim: it has been bound to a volume; from then on losing that is an error.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On either side: the binding was the controller's idea and may be undone by it.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: the node of its first Pod, by the scheduler.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make its volume.
pub const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The provisioner of directories on a node's disk, which every cluster has.
pub const LOCAL_PATH: &str = "wherry.dev/local-path";
/// On a node: the directory beneath which its agent keeps the volumes of [`LOCAL_PATH`].
pub const LOCAL_PATH_DIR: &str = "wherry.dev/local-path-dir";
/// A class whose volumes nobody makes.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const HOSTNAME: &str = "kubernetes.io/hostname";
const STORAGE: &str = "storage";

/// A claim's class; empty where it asks for none. The old annotation wins.
#[must_use]
pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let old = claim.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS));
    old.or_else(|| claim.spec.as_ref()?.storage_class_name.as_ref()).map_or("", String::as_str)
}

/// A volume's class; empty where it has none.
#[must_use]
pub fn volume_class(volume: &PersistentVolume) -> &str {
    let old = volume.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS));
    old.or_else(|| volume.spec.as_ref()?.storage_class_name.as_ref()).map_or("", String::as_str)
}

/// An annotation of a claim.
#[must_use]
pub fn annotation<'a>(claim: &'a PersistentVolumeClaim, name: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The size that a claim asks for.
#[must_use]
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    requests.and_then(|all| Quantity::parse(&all.get(STORAGE)?.0).ok()).unwrap_or(Quantity::ZERO)
}

/// A volume's size.
#[must_use]
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|all| Quantity::parse(&all.get(STORAGE)?.0).ok()).unwrap_or(Quantity::ZERO)
}

/// Whether a class lets its claims wait for their first Pod.
#[must_use]
pub fn waits_for_consumer(class: Option<&StorageClass>) -> bool {
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// Whether somebody makes volumes of this class.
#[must_use]
pub fn provisions(class: Option<&StorageClass>) -> bool {
    class.is_some_and(|class| !class.provisioner.is_empty() && class.provisioner != NO_PROVISIONER)
}

/// The name of the volume that a claim is bound to, or asks for.
#[must_use]
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether a claim is bound, and knows it.
#[must_use]
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && annotation(claim, BIND_COMPLETED).is_some()
}

/// Whether a volume is reserved for this claim, be it before the claim was made.
#[must_use]
pub fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    reference(volume).is_some_and(|held| {
        held.name == claim.metadata.name
            && held.namespace == claim.metadata.namespace
            && held.uid.as_ref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

/// Whom a volume is bound to or reserved for.
#[must_use]
pub fn reference(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether both are filesystems or both are block devices.
#[must_use]
pub fn same_mode(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of_volume = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem");
    let of_claim = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem");
    of_volume == of_claim
}

/// Whether a volume can be used in every way that a claim asks for.
#[must_use]
pub fn has_access_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let has = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    let wants = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
    wants.into_iter().flatten().all(|mode| has.is_some_and(|has| has.contains(mode)))
}

/// Why a volume that a claim asks for by name cannot be its: upstream's words.
#[must_use]
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<&'static str> {
    if requested(claim) > capacity(volume) {
        Some("requested PV is too small")
    } else if class_of(claim) != volume_class(volume) {
        Some("storageClassName does not match")
    } else if !same_mode(volume, claim) {
        Some("incompatible volumeMode")
    } else if !has_access_modes(volume, claim) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// The volume for a claim: one that is reserved for it, else the smallest of those that fit. `node` says which volumes the node
/// of the claim's first Pod can reach; without a node, a claim that waits for its Pod (`waits`) gets reserved ones only.
pub fn best_match<'a, V: AsRef<PersistentVolume>>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a V>,
    node: Option<&dyn Fn(&PersistentVolume) -> bool>,
    waits: bool,
) -> Option<&'a V> {
    let wanted = requested(claim);
    let mut best: Option<(Quantity, &V)> = None;
    for candidate in volumes {
        let volume = candidate.as_ref();
        let held = reference(volume).is_some();
        let reserved = is_reserved_for(volume, claim);
        let size = capacity(volume);
        if (held && !reserved)
            || size < wanted
            || !same_mode(volume, claim)
            || volume.metadata.deletion_timestamp.is_some()
        {
            continue;
        }
        let reachable = node.is_none_or(|node| node(volume));
        if reserved {
            return reachable.then_some(candidate);
        }
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let fits = (node.is_some() || !waits)
            && phase == Some("Available")
            && reachable
            && selector.is_none_or(|selector| ownership::selects(selector, volume.metadata.labels.as_ref()))
            && volume_class(volume) == class_of(claim)
            && has_access_modes(volume, claim);
        if fits && best.as_ref().is_none_or(|(smallest, _)| size < *smallest) {
            best = Some((size, candidate));
        }
    }
    best.map(|(_, volume)| volume)
}

/// The volume, bound to the claim; none where it is so already.
#[must_use]
pub fn bound(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let held = reference(volume);
    if held.is_some_and(|held| held.uid.is_some() && held.uid == claim.metadata.uid) {
        return None;
    }
    let mut bound = volume.clone();
    if held.is_none() {
        let annotations = bound.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
    }
    bound.spec.get_or_insert_default().claim_ref = Some(ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    });
    Some(bound)
}

/// Whether a volume is one of [`LOCAL_PATH`], and of which node.
#[must_use]
pub fn local_path_node(volume: &PersistentVolume) -> Option<&str> {
    let made_by = volume.metadata.annotations.as_ref()?.get(PROVISIONED_BY)?;
    let terms = &volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?.node_selector_terms;
    let mut expressions = terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
    let node = expressions.find(|expression| expression.key == HOSTNAME)?.values.as_ref()?.first()?;
    (made_by == LOCAL_PATH).then_some(node)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claim(size: &str, extra: serde_json::Value) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": size}},
        }});
        claim["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(claim).unwrap()
    }

    fn volume(name: &str, size: &str, extra: serde_json::Value) -> Arc<PersistentVolume> {
        let mut volume = json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
        }, "status": {"phase": "Available"}});
        volume["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn name(found: Option<&Arc<PersistentVolume>>) -> &str {
        found.map_or("", |volume| volume.metadata.name.as_deref().unwrap())
    }

    #[test]
    fn a_claim_gets_what_is_reserved_for_it_else_the_smallest_that_fits() {
        let volumes = [
            volume("small", "1Gi", json!({})),
            volume("large", "9Gi", json!({})),
            volume("right", "5Gi", json!({})),
            volume("classy", "3Gi", json!({"storageClassName": "gold"})),
            volume("block", "3Gi", json!({"volumeMode": "Block"})),
            volume("shared", "4Gi", json!({"accessModes": ["ReadOnlyMany"]})),
            volume("taken", "3Gi", json!({"claimRef": {"name": "x", "namespace": "n"}})),
        ];
        let find = |claim: &PersistentVolumeClaim| name(best_match(claim, &volumes, None, false)).to_owned();
        assert_eq!(find(&claim("3Gi", json!({}))), "right");
        assert_eq!(find(&claim("10Gi", json!({}))), "");
        assert_eq!(find(&claim("1Gi", json!({"selector": {"matchLabels": {"name": "large"}}}))), "large");
        assert_eq!(find(&claim("3Gi", json!({"storageClassName": "gold"}))), "classy");
        assert_eq!(find(&claim("3Gi", json!({"volumeMode": "Block"}))), "block");
        assert_eq!(find(&claim("3Gi", json!({"accessModes": ["ReadOnlyMany"]}))), "shared");
        assert_eq!(name(best_match(&claim("3Gi", json!({})), &volumes, None, true)), "", "it waits for its Pod");
        let near = |volume: &PersistentVolume| volume.metadata.name.as_deref() == Some("large");
        assert_eq!(name(best_match(&claim("3Gi", json!({})), &volumes, Some(&near), true)), "large");
        let reserved = volume("mine", "20Gi", json!({"claimRef": {"name": "c", "namespace": "n"}}));
        let all: Vec<_> = volumes.iter().cloned().chain([reserved]).collect();
        assert_eq!(name(best_match(&claim("3Gi", json!({})), &all, None, true)), "mine");
        assert_eq!(name(best_match(&claim("3Gi", json!({})), &all, Some(&near), true)), "", "out of reach");
    }

    proptest! {
        #[test]
        fn what_is_found_is_large_enough_and_nothing_smaller_would_do(
            wanted in 1u32..50,
            sizes in proptest::collection::vec((1u32..50, any::<bool>()), 0..8),
        ) {
            let volumes: Vec<_> = sizes.iter().enumerate().map(|(n, (size, taken))| {
                let held = if *taken { json!({"claimRef": {"name": "x", "namespace": "n"}}) } else { json!({}) };
                volume(&n.to_string(), &format!("{size}Gi"), held)
            }).collect();
            let smallest = sizes.iter().filter(|(size, taken)| !taken && *size >= wanted).map(|(size, _)| *size).min();
            let found = best_match(&claim(&format!("{wanted}Gi"), json!({})), &volumes, None, false);
            let found = found.map(|volume| sizes[name(Some(volume)).parse::<usize>().unwrap()].0);
            prop_assert_eq!(found, smallest);
        }
    }
}
