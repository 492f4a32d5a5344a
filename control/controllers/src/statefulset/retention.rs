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

/// Whether a claim goes with an earlier Pod of this name, which is no more: the next one does not get it.
pub(super) fn goes_with_earlier(claim: &PersistentVolumeClaim, pod: &str) -> bool {
    claim.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Pod" && owner.name == pod)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn a_claim_goes_with_whom_the_policy_says_and_others_keep_it(
            with_set in any::<bool>(), with_pod in any::<bool>(), condemned in any::<bool>(),
            had in prop::collection::btree_set(0usize..5, 0..5),
        ) {
            let word = |deletes: bool| if deletes { "Delete" } else { "Retain" };
            let set: StatefulSet = serde_json::from_value(json!({
                "metadata": { "name": "db", "uid": "s" },
                "spec": { "selector": {}, "template": {},
                    "persistentVolumeClaimRetentionPolicy": { "whenDeleted": word(with_set), "whenScaled": word(with_pod) } },
            })).unwrap();
            let pod = |name: &str, uid: &str| -> Pod {
                serde_json::from_value(json!({ "metadata": { "name": name, "uid": uid } })).unwrap()
            };
            // Ours: the set, the Pod, one of its name before it. Others': a set of our name before ours, another Pod.
            let mut earlier = set.clone();
            earlier.metadata.uid = Some("s0".into());
            let all = [
                owner_reference(&set), owner_reference(&pod("db-0", "p")), owner_reference(&pod("db-0", "p0")),
                owner_reference(&earlier), owner_reference(&pod("db-1", "q")),
            ];
            let mut claim = PersistentVolumeClaim::default();
            claim.metadata.owner_references = Some(had.iter().map(|n| all[*n].clone()).collect());
            prop_assert_eq!(goes_with_earlier(&claim, "db-0"), had.contains(&1) || had.contains(&2));
            let own = pod("db-0", "p");
            if let Some(wanted) = owners(&set, &claim, Some(&own), condemned) {
                claim.metadata.owner_references = Some(wanted);
            }
            prop_assert_eq!(owners(&set, &claim, Some(&own), condemned), None, "then it rests");
            let has = |n: usize| claim.metadata.owner_references.iter().flatten().filter(|owner| **owner == all[n]).count();
            prop_assert_eq!(has(1), usize::from(with_pod && condemned));
            prop_assert_eq!(has(0), usize::from(with_set && !(with_pod && condemned)), "never two at once: it goes with the first");
            prop_assert_eq!(has(2), 0, "it does not go with a Pod that went before");
            prop_assert_eq!((has(3), has(4)), (usize::from(had.contains(&3)), usize::from(had.contains(&4))));
        }
    }

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
