//! What a Pod of a StatefulSet is called, and what it has for that: host name, labels, claims. Pure.

use k8s_openapi::api::{
    apps::v1::{StatefulSet, StatefulSetSpec},
    core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
};
use kube::api::ObjectMeta;

use crate::{hand::pod_of, history::HASH};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal of a Pod of the StatefulSet `set`; none if its name is not of the kind `set-3`.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let digits = pod.strip_prefix(set)?.strip_prefix('-')?;
    digits.parse().ok().filter(|ordinal: &i32| *ordinal >= 0 && ordinal.to_string() == digits)
}

pub(super) fn name(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

fn templates(spec: &StatefulSetSpec) -> impl Iterator<Item = (&str, &PersistentVolumeClaim)> {
    let templates = spec.volume_claim_templates.iter().flatten();
    templates.filter_map(|claim| Some((claim.metadata.name.as_deref()?, claim)))
}

/// The claims of an ordinal.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    templates(spec)
        .map(|(volume, template)| {
            let mut claim = template.clone();
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
            claim.metadata = ObjectMeta {
                name: Some(format!("{volume}-{}", name(set_name, ordinal))),
                namespace: set.metadata.namespace.clone(),
                ..claim.metadata
            };
            claim.status = None;
            claim
        })
        .collect()
}

/// The Pod of an ordinal, by a template that is the revision `revision`.
pub(super) fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = pod_of(set, template);
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    pod.metadata.generate_name = Some(format!("{set_name}-"));
    pod.metadata.name = Some(name(set_name, ordinal));
    pod.metadata.labels.get_or_insert_default().insert(HASH.to_owned(), revision.to_owned());
    pod.spec.get_or_insert_default().hostname = Some(name(set_name, ordinal));
    pod.spec.get_or_insert_default().subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    mend(set, &mut pod, ordinal);
    pod
}

/// Gives a Pod what its ordinal has and can be given at any time; true if it lacked something.
pub(super) fn mend(set: &StatefulSet, pod: &mut Pod, ordinal: i32) -> bool {
    let before = pod.clone();
    let set_name = set.metadata.name.as_deref().unwrap_or_default();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name(set_name, ordinal));
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    for (volume, _) in set.spec.as_ref().map(templates).into_iter().flatten() {
        let source = PersistentVolumeClaimVolumeSource {
            claim_name: format!("{volume}-{}", name(set_name, ordinal)),
            ..PersistentVolumeClaimVolumeSource::default()
        };
        let wanted = Volume { name: volume.to_owned(), persistent_volume_claim: Some(source), ..Volume::default() };
        // A claim takes the place of what the template has under its name.
        match volumes.iter_mut().find(|known| known.name == volume) {
            Some(known) => *known = wanted,
            None => volumes.push(wanted),
        }
    }
    if volumes.is_empty() {
        pod.spec.get_or_insert_default().volumes = before.spec.as_ref().and_then(|spec| spec.volumes.clone());
    }
    *pod != before
}

/// The revision that a Pod is of.
pub(super) fn revision(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH)).map(String::as_str).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_ordinals() {
        assert_eq!(ordinal("web", "web-12"), Some(12));
        for other in ["web-012", "web-", "web", "web-x", "other-1", "web--1"] {
            assert_eq!(ordinal("web", other), None, "{other}");
        }
    }

    #[test]
    fn a_pod_has_its_claims_for_volumes() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": { "name": "db", "namespace": "default", "uid": "u" },
            "spec": {
                "serviceName": "db",
                "selector": { "matchLabels": { "app": "db" } },
                "template": { "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [],
                    "volumes": [{ "name": "data", "emptyDir": {} }, { "name": "tmp", "emptyDir": {} }] } },
                "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
            },
        }))
        .unwrap();
        let mut pod = pod(&set, &set.spec.as_ref().unwrap().template, "db-abc", 2);
        let spec = pod.spec.clone().unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-2"), Some("db")));
        let volumes = spec.volumes.unwrap();
        assert_eq!(volumes.len(), 2);
        assert_eq!(volumes[0].persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-2");
        assert!(!mend(&set, &mut pod, 2), "nothing is amiss");
        pod.metadata.labels.as_mut().unwrap().remove(POD_NAME);
        assert!(mend(&set, &mut pod, 2));
        let claim = &claims(&set, 2)[0];
        assert_eq!(claim.metadata.name.as_deref(), Some("data-db-2"));
        assert_eq!(claim.metadata.labels.as_ref().unwrap()["app"], "db");
    }
}
