//! How a claim that is bound looks: pure. The volume's side is [`storage::bound`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::{Value, json};
use wherry_reconcile::storage;

/// The claim, bound to the volume; none where it is so already.
pub(super) fn claim(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let chosen = storage::volume_name(claim).is_empty();
    if !chosen && storage::annotation(claim, storage::BIND_COMPLETED).is_some() {
        return None;
    }
    let mut bound = claim.clone();
    if chosen {
        mark(&mut bound.metadata.annotations, storage::BOUND_BY_CONTROLLER);
        bound.spec.get_or_insert_default().volume_name.clone_from(&volume.metadata.name);
    }
    mark(&mut bound.metadata.annotations, storage::BIND_COMPLETED);
    Some(bound)
}

fn mark(annotations: &mut Option<BTreeMap<String, String>>, name: &str) {
    annotations.get_or_insert_default().insert(name.to_owned(), "yes".to_owned());
}

/// The status of a claim that is bound to the volume; none where it says so. The size is told once: from then on it follows
/// what was really made of the volume.
pub(super) fn status(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Value> {
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let spec = volume.spec.as_ref();
    (phase != Some("Bound")).then(|| {
        json!({
            "phase": "Bound",
            "accessModes": spec.and_then(|spec| spec.access_modes.as_ref()),
            "capacity": spec.and_then(|spec| spec.capacity.as_ref()),
        })
    })
}
