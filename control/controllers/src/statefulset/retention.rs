//! persistentVolumeClaimRetentionPolicy: who takes a claim along. Pure.
//!
//! A claim that goes with the StatefulSet is owned by it; one that goes with its ordinal is owned by the last Pod of that. The
//! garbage collector does the rest.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use wherry_reconcile::ownership::owner_reference;

/// The owners that a claim should have; none if they are as they should be. `condemned` is the Pod, if its ordinal goes.
pub(super) fn owners(
    set: &StatefulSet,
    claim: &PersistentVolumeClaim,
    pod: Option<&Pod>,
    condemned: bool,
) -> Option<Vec<OwnerReference>> {
    let policy = set.spec.as_ref()?.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let deletes = |when: Option<&str>| when == Some("Delete");
    let with_set = deletes(policy.when_deleted.as_deref());
    let with_pod = deletes(policy.when_scaled.as_deref()) && condemned;
    let set_uid = set.metadata.uid.as_deref().unwrap_or_default();
    let pod_name = pod.and_then(|pod| pod.metadata.name.as_deref()).unwrap_or_default();
    let existing = claim.metadata.owner_references.clone().unwrap_or_default();
    let mut wanted: Vec<OwnerReference> = existing
        .iter()
        .filter(|owner| owner.uid != set_uid && !(owner.kind == "Pod" && owner.name == pod_name))
        .cloned()
        .collect();
    match (with_pod, pod) {
        (true, Some(pod)) => wanted.push(owner_reference(pod)),
        _ if with_set => wanted.push(owner_reference(set)),
        _ => {}
    }
    let same = wanted.len() == existing.len() && wanted.iter().all(|owner| existing.contains(owner));
    (!same).then_some(wanted)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_go_with_the_set_or_with_their_ordinal() {
        let set = |deleted: &str, scaled: &str| -> StatefulSet {
            serde_json::from_value(json!({
                "metadata": { "name": "db", "uid": "s" },
                "spec": { "selector": {}, "template": {},
                    "persistentVolumeClaimRetentionPolicy": { "whenDeleted": deleted, "whenScaled": scaled } },
            }))
            .unwrap()
        };
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "db-0", "uid": "p" } })).unwrap();
        let uids = |set: &StatefulSet, claim: &PersistentVolumeClaim, condemned| {
            let owners = owners(set, claim, Some(&pod), condemned);
            owners.map(|owners| owners.into_iter().map(|owner| owner.uid).collect::<Vec<_>>())
        };
        let mut claim = PersistentVolumeClaim::default();
        assert_eq!(uids(&set("Retain", "Retain"), &claim, true), None);
        assert_eq!(uids(&set("Retain", "Delete"), &claim, false), None);
        assert_eq!(uids(&set("Retain", "Delete"), &claim, true), Some(vec!["p".to_owned()]));
        assert_eq!(uids(&set("Delete", "Retain"), &claim, true), Some(vec!["s".to_owned()]));
        assert_eq!(uids(&set("Delete", "Delete"), &claim, true), Some(vec!["p".to_owned()]));
        claim.metadata.owner_references = Some(vec![owner_reference(&set("Delete", "Retain"))]);
        assert_eq!(uids(&set("Delete", "Delete"), &claim, false), None, "as it should be");
        assert_eq!(uids(&set("Retain", "Retain"), &claim, false), Some(vec![]));
    }
}
