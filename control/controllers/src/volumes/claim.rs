//! What to do about a claim: pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use wherry_reconcile::storage;

use super::Told;

/// What is to be done about a claim.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// Bind it to this volume, or mend that binding.
    Bind(Arc<PersistentVolume>),
    /// It waits; the claim is told why.
    Pending(Option<Told>),
    /// It had a volume and has it no more.
    Lost(Told),
    /// A volume is to be made for it by the provisioner of its class.
    Provision(Arc<StorageClass>),
}

/// Decides. `find`: the volumes; `class`: the claim's class, if there is one of that name.
pub(super) fn decide(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    class: Option<&Arc<StorageClass>>,
) -> Decision {
    let name = storage::volume_name(claim);
    let volume = volumes.iter().find(|volume| !name.is_empty() && volume.metadata.name.as_deref() == Some(name));
    if storage::annotation(claim, storage::BIND_COMPLETED).is_some() {
        bound(claim, volume)
    } else {
        unbound(claim, volume, volumes, class)
    }
}

fn bound(claim: &PersistentVolumeClaim, volume: Option<&Arc<PersistentVolume>>) -> Decision {
    if storage::volume_name(claim).is_empty() {
        let told = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
        return Decision::Lost(Told::warning("ClaimLost", told));
    }
    let Some(volume) = volume else {
        let told = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
        return Decision::Lost(Told::warning("ClaimLost", told));
    };
    let held = storage::reference(volume);
    if held.is_none_or(|held| held.uid.is_some() && held.uid == claim.metadata.uid) {
        return Decision::Bind(volume.clone());
    }
    let told = "Two claims are bound to the same volume, this one is bound incorrectly";
    Decision::Lost(Told::warning("ClaimMisbound", told))
}

fn unbound(
    claim: &PersistentVolumeClaim,
    named: Option<&Arc<PersistentVolume>>,
    volumes: &[Arc<PersistentVolume>],
    class: Option<&Arc<StorageClass>>,
) -> Decision {
    if !storage::volume_name(claim).is_empty() {
        let Some(volume) = named else { return Decision::Pending(None) };
        return asked_for(claim, volume);
    }
    let waits = storage::waits_for_consumer(class.map(Arc::as_ref))
        && storage::annotation(claim, storage::SELECTED_NODE).is_none();
    if let Some(volume) = storage::best_match(claim, volumes, None, waits) {
        return Decision::Bind(volume.clone());
    }
    if waits {
        let told = "waiting for first consumer to be created before binding";
        return Decision::Pending(Some(Told::normal("WaitForFirstConsumer", told)));
    }
    match (storage::class_of(claim), class) {
        ("", _) => {
            let told = "no persistent volumes available for this claim and no storage class is set";
            Decision::Pending(Some(Told::normal("FailedBinding", told)))
        }
        (name, None) => {
            let told = format!("storageclass.storage.k8s.io {name:?} not found");
            Decision::Pending(Some(Told::warning("ProvisioningFailed", told)))
        }
        (_, Some(class)) if storage::provisions(Some(class)) => Decision::Provision(class.clone()),
        (name, Some(_)) => {
            let told = format!("no volume plugin matched the class {name:?}: its volumes are made by hand");
            Decision::Pending(Some(Told::normal("FailedBinding", told)))
        }
    }
}

/// The claim names its volume.
fn asked_for(claim: &PersistentVolumeClaim, volume: &Arc<PersistentVolume>) -> Decision {
    let name = storage::volume_name(claim);
    match storage::reference(volume) {
        None => match storage::mismatch(volume, claim) {
            None => Decision::Bind(volume.clone()),
            Some(why) => {
                let told = format!("Cannot bind to requested volume {name:?}: {why}");
                Decision::Pending(Some(Told::warning("VolumeMismatch", told)))
            }
        },
        Some(_) if storage::is_reserved_for(volume, claim) => Decision::Bind(volume.clone()),
        Some(_) => {
            let told = format!("volume {name:?} already bound to a different claim.");
            Decision::Pending(Some(Told::warning("FailedBinding", told)))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(volume: &str, class: &str, annotations: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": volume, "storageClassName": class,
                "resources": {"requests": {"storage": "2Gi"}}},
        }))
        .unwrap()
    }

    fn volume(name: &str, size: &str, held: Value) -> Arc<PersistentVolume> {
        let mut volume = json!({
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}},
            "status": {"phase": "Available"},
        });
        if !held.is_null() {
            volume["spec"]["claimRef"] = held;
        }
        Arc::new(serde_json::from_value(volume).unwrap())
    }

    fn class(provisioner: &str, mode: &str) -> Arc<StorageClass> {
        let class = json!({"metadata": {"name": "k"}, "provisioner": provisioner, "volumeBindingMode": mode});
        Arc::new(serde_json::from_value(class).unwrap())
    }

    fn reason(decision: &Decision) -> &str {
        match decision {
            Decision::Bind(volume) => volume.metadata.name.as_deref().unwrap(),
            Decision::Pending(None) => "-",
            Decision::Pending(Some(told)) | Decision::Lost(told) => told.reason,
            Decision::Provision(_) => "provision",
        }
    }

    #[test]
    fn a_claim_is_bound_made_for_or_told_why_not() {
        let none = json!({});
        let selected = json!({"volume.kubernetes.io/selected-node": "n1"});
        let done = json!({"pv.kubernetes.io/bind-completed": "yes"});
        let by = |uid: &str| json!({"namespace": "n", "name": "c", "uid": uid});
        let immediate = class("p", "Immediate");
        let lazy = class("p", "WaitForFirstConsumer");
        let manual = class("kubernetes.io/no-provisioner", "WaitForFirstConsumer");
        for (claim, volumes, class, wanted) in [
            (claim("", "", none.clone()), vec![volume("v", "3Gi", Value::Null)], None, "v"),
            (claim("", "", none.clone()), vec![volume("v", "1Gi", Value::Null)], None, "FailedBinding"),
            (claim("", "k", none.clone()), vec![], None, "ProvisioningFailed"),
            (claim("", "k", none.clone()), vec![], Some(&immediate), "provision"),
            (claim("", "k", none.clone()), vec![], Some(&lazy), "WaitForFirstConsumer"),
            (claim("", "k", selected.clone()), vec![], Some(&lazy), "provision"),
            (claim("", "k", selected), vec![], Some(&manual), "FailedBinding"),
            (claim("v", "", none.clone()), vec![], None, "-"),
            (claim("v", "", none.clone()), vec![volume("v", "2Gi", Value::Null)], None, "v"),
            (claim("v", "", none.clone()), vec![volume("v", "1Gi", Value::Null)], None, "VolumeMismatch"),
            (claim("v", "", none.clone()), vec![volume("v", "2Gi", by(""))], None, "v"),
            (claim("v", "", none), vec![volume("v", "2Gi", by("other"))], None, "FailedBinding"),
            (claim("v", "", done.clone()), vec![volume("v", "2Gi", by("u"))], None, "v"),
            (claim("v", "", done.clone()), vec![volume("v", "2Gi", by("other"))], None, "ClaimMisbound"),
            (claim("v", "", done.clone()), vec![], None, "ClaimLost"),
            (claim("", "", done), vec![volume("v", "2Gi", Value::Null)], None, "ClaimLost"),
        ] {
            assert_eq!(reason(&decide(&claim, &volumes, class)), wanted, "{claim:?}");
        }
    }
}
