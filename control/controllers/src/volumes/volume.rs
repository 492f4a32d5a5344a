//! What to do about a volume: pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use wherry_reconcile::storage;

use super::Told;

/// What is to be done about a volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Decision {
    /// It is in this phase.
    Phase(&'static str),
    /// Nobody holds it any more: then, by its reclaim policy.
    Release(Reclaim),
    /// Its claim took another volume: it is free again, as this.
    Unbind(Box<PersistentVolume>),
    /// Its claim has not been told of it yet.
    AskClaim,
}

/// What becomes of a volume whose claim is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reclaim {
    /// It stays, with its data.
    Keep,
    /// It goes; its provisioner's agent removes the data.
    Delete,
    /// Its policy cannot be carried out.
    Fail(Told),
}

/// Decides. `claim`: the one that the volume is bound to, by name, if it is there.
pub(super) fn decide(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Decision {
    let Some(held) = storage::reference(volume) else { return Decision::Phase("Available") };
    // Reserved, by whoever made it, for a claim to come.
    let Some(uid) = held.uid.as_deref().filter(|uid| !uid.is_empty()) else { return Decision::Phase("Available") };
    let Some(claim) = claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) else {
        return Decision::Release(reclaim(volume));
    };
    match storage::volume_name(claim) {
        "" => Decision::AskClaim,
        name if Some(name) == volume.metadata.name.as_deref() => Decision::Phase("Bound"),
        _ if provisioner(volume).is_some() && policy(volume) == "Delete" => Decision::Release(reclaim(volume)),
        _ => Decision::Unbind(Box::new(unbound(volume))),
    }
}

fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

fn provisioner(volume: &PersistentVolume) -> Option<&str> {
    volume.metadata.annotations.as_ref()?.get(storage::PROVISIONED_BY).map(String::as_str)
}

fn reclaim(volume: &PersistentVolume) -> Reclaim {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    match (policy(volume), provisioner(volume)) {
        ("Delete", Some(storage::LOCAL_PATH)) => Reclaim::Delete,
        // Who made it deletes it.
        ("Retain", _) | ("Delete", Some(_)) => Reclaim::Keep,
        ("Delete", None) => {
            let told =
                format!("error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched");
            Reclaim::Fail(Told::warning("VolumeFailedDelete", told))
        }
        ("Recycle", _) => {
            Reclaim::Fail(Told::warning("VolumeFailedRecycle", "No recycler plugin found for the volume!"))
        }
        (other, _) => {
            let told = format!("Volume has an unrecognized PersistentVolumeReclaimPolicy: {other}");
            Reclaim::Fail(Told::warning("VolumeUnknownReclaimPolicy", told))
        }
    }
}

/// The volume as it was before the controller bound it; one that was reserved for a claim stays so.
fn unbound(volume: &PersistentVolume) -> PersistentVolume {
    let mut volume = volume.clone();
    let annotations = volume.metadata.annotations.as_mut();
    let ours = annotations.is_some_and(|all| all.remove(storage::BOUND_BY_CONTROLLER).is_some());
    if let Some(spec) = &mut volume.spec {
        if ours {
            spec.claim_ref = None;
        } else if let Some(held) = &mut spec.claim_ref {
            held.uid = None;
            held.resource_version = None;
        }
    }
    volume
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(policy: &str, annotations: Value, uid: &str) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": {"name": "v", "annotations": annotations},
            "spec": {"persistentVolumeReclaimPolicy": policy, "claimRef": {"namespace": "n", "name": "c", "uid": uid}},
        }))
        .unwrap()
    }

    fn claim(volume: &str) -> PersistentVolumeClaim {
        let claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": {"volumeName": volume}});
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn a_volume_follows_its_claim() {
        let ours = json!({"pv.kubernetes.io/provisioned-by": "wherry.dev/local-path"});
        let bound = json!({"pv.kubernetes.io/bound-by-controller": "yes"});
        let plain = |policy: &str| volume(policy, json!({}), "u");
        assert_eq!(decide(&volume("Retain", json!({}), ""), None), Decision::Phase("Available"));
        assert_eq!(decide(&plain("Retain"), Some(&claim("v"))), Decision::Phase("Bound"));
        assert_eq!(decide(&plain("Retain"), Some(&claim(""))), Decision::AskClaim);
        assert_eq!(decide(&plain("Retain"), None), Decision::Release(Reclaim::Keep));
        assert_eq!(decide(&volume("Delete", ours.clone(), "u"), None), Decision::Release(Reclaim::Delete));
        assert_eq!(decide(&volume("Delete", ours.clone(), "u"), Some(&claim("w"))), Decision::Release(Reclaim::Delete));
        assert_eq!(decide(&volume("Retain", ours, "other"), Some(&claim("v"))), Decision::Release(Reclaim::Keep));
        for (policy, reason) in [("Delete", "VolumeFailedDelete"), ("Recycle", "VolumeFailedRecycle")] {
            let Decision::Release(Reclaim::Fail(told)) = decide(&plain(policy), None) else { panic!("{policy}") };
            assert_eq!(told.reason, reason);
        }
        let Decision::Unbind(freed) = decide(&volume("Retain", bound, "u"), Some(&claim("w"))) else { panic!() };
        assert!(storage::reference(&freed).is_none());
        let Decision::Unbind(freed) = decide(&plain("Retain"), Some(&claim("w"))) else { panic!() };
        assert_eq!(storage::reference(&freed).unwrap().uid, None);
    }
}
