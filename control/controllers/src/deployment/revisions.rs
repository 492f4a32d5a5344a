//! Revisions: every ReplicaSet remembers which revision of the Deployment it is. `kubectl rollout history` reads them, and
//! `kubectl rollout undo` copies an old template back, which makes its ReplicaSet the newest revision again. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::PodTemplateSpec,
};

use super::rolling::{Goal, Set};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";
/// The history annotation does not grow beyond this many characters.
const MAX_HISTORY: usize = 2000;
/// Annotations that belong to the Deployment alone.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];

/// A Deployment's ReplicaSets, sorted into the one of its present template and all others, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Revisions {
    pub(super) new: Option<Arc<ReplicaSet>>,
    pub(super) old: Vec<Arc<ReplicaSet>>,
}

impl Revisions {
    pub(super) fn of(deployment: &Deployment, mut sets: Vec<Arc<ReplicaSet>>) -> Self {
        sets.sort_by(|a, b| age(a).cmp(&age(b)));
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        // If two sets have the template, the older is the one.
        let position = sets.iter().position(|set| {
            let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            own.zip(template).is_some_and(|(own, template)| same_template(own, template))
        });
        let new = position.map(|position| sets.remove(position));
        Self { new, old: sets }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// The number that the present template's revision must at least have.
    pub(super) fn next(&self) -> i64 {
        self.old.iter().filter_map(|set| revision(set)).max().unwrap_or(0) + 1
    }

    /// The old sets beyond the Deployment's history limit that hold nothing and can go.
    pub(super) fn expired(&self, deployment: &Deployment) -> Vec<Arc<ReplicaSet>> {
        let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
        let mut alive: Vec<_> =
            self.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).cloned().collect();
        let surplus = alive.len().saturating_sub(limit);
        alive.sort_by_key(|set| revision(set).unwrap_or(0));
        alive.into_iter().take(surplus).filter(|set| is_empty(set)).collect()
    }
}

/// Wants no Pods, has none, and its controller has seen that.
fn is_empty(set: &ReplicaSet) -> bool {
    let status = set.status.clone().unwrap_or_default();
    replicas(set) == 0 && status.replicas == 0 && is_observed(set)
}

/// Whether the status was reported for the present spec.
fn is_observed(set: &ReplicaSet) -> bool {
    let observed = set.status.as_ref().and_then(|status| status.observed_generation);
    observed.unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
}

fn age(set: &ReplicaSet) -> (Option<k8s_openapi::jiff::Timestamp>, &str) {
    let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (created, set.metadata.name.as_deref().unwrap_or_default())
}

/// Equal but for the hash label that the controller adds.
pub(super) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    if a.spec != b.spec {
        return false;
    }
    let stripped = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        let mut labels = meta.labels.unwrap_or_default();
        labels.remove(TEMPLATE_HASH);
        meta.labels = Some(labels);
        meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
        meta
    };
    stripped(a) == stripped(b)
}

/// spec.replicas, which the server defaults.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn annotation<'a>(set: &'a ReplicaSet, name: &str) -> Option<&'a String> {
    set.metadata.annotations.as_ref()?.get(name)
}

pub(super) fn revision(set: &ReplicaSet) -> Option<i64> {
    annotation(set, REVISION)?.parse().ok()
}

/// The sizes of a ReplicaSet.
pub(super) fn sizes(set: &ReplicaSet) -> Set {
    let number = |name| annotation(set, name).and_then(|value| value.parse().ok());
    let status = set.status.clone().unwrap_or_default();
    Set {
        name: set.metadata.name.clone().unwrap_or_default(),
        replicas: replicas(set),
        reported: status.replicas,
        observed: is_observed(set),
        available: status.available_replicas.unwrap_or(0),
        desired: number(DESIRED_REPLICAS),
        max: number(MAX_REPLICAS),
    }
}

/// The annotations that record the Deployment's size on a ReplicaSet.
pub(super) fn size_annotations(goal: &Goal) -> BTreeMap<String, String> {
    BTreeMap::from([
        (DESIRED_REPLICAS.to_owned(), goal.replicas.to_string()),
        (MAX_REPLICAS.to_owned(), goal.max().to_string()),
    ])
}

/// The annotations that the ReplicaSet of the present template lacks: the Deployment's own (such as the change cause) and
/// its revision. Empty if it has them all.
pub(super) fn missing_annotations(
    deployment: &Deployment,
    existing: &BTreeMap<String, String>,
    next: i64,
) -> BTreeMap<String, String> {
    let mut missing: BTreeMap<String, String> = deployment
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(name, value)| !OWN.contains(&name.as_str()) && existing.get(*name) != Some(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let before = existing.get(REVISION);
    // A revision that is not a number was not written by us: leave it.
    let number = match before.map(|before| before.parse::<i64>()) {
        None => 0,
        Some(Ok(number)) => number,
        Some(Err(_)) => return missing,
    };
    if number < next {
        missing.insert(REVISION.to_owned(), next.to_string());
        if let Some(before) = before {
            let history = existing.get(REVISION_HISTORY).map(String::as_str).unwrap_or_default();
            missing.insert(REVISION_HISTORY.to_owned(), append(history, before));
        }
    }
    missing
}

/// Adds a revision to a comma-separated history, forgetting the oldest ones where it grows too long.
fn append(history: &str, revision: &str) -> String {
    let mut entries: Vec<&str> = history.split(',').filter(|entry| !entry.is_empty()).collect();
    entries.push(revision);
    let mut joined = entries.join(",");
    while joined.len() > MAX_HISTORY && entries.len() > 1 {
        entries.remove(0);
        joined = entries.join(",");
    }
    joined
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use k8s_openapi::{
        api::{
            apps::v1::{DeploymentSpec, ReplicaSetSpec},
            core::v1::PodSpec,
        },
        apimachinery::pkg::apis::meta::v1::Time,
        jiff::Timestamp,
    };
    use kube::api::ObjectMeta;

    use super::*;

    fn template(image: &str, hash: Option<&str>) -> PodTemplateSpec {
        let mut labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        labels.extend(hash.map(|hash| (TEMPLATE_HASH.to_owned(), hash.to_owned())));
        PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(labels), ..Default::default() }),
            spec: Some(PodSpec { node_name: Some(image.into()), ..Default::default() }),
        }
    }

    fn set(name: &str, image: &str, revision: i64, replicas: i32) -> Arc<ReplicaSet> {
        Arc::new(ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.into()),
                creation_timestamp: Some(Time(Timestamp::from_second(revision).unwrap())),
                annotations: Some([(REVISION.to_owned(), revision.to_string())].into()),
                ..Default::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                template: Some(template(image, Some(name))),
                ..Default::default()
            }),
            status: None,
        })
    }

    fn deployment(image: &str, limit: i32) -> Deployment {
        Deployment {
            metadata: ObjectMeta {
                annotations: Some([("kubernetes.io/change-cause".to_owned(), "why".to_owned())].into()),
                ..Default::default()
            },
            spec: Some(DeploymentSpec {
                template: template(image, None),
                revision_history_limit: Some(limit),
                ..Default::default()
            }),
            status: None,
        }
    }

    #[test]
    fn finds_the_present_template_whatever_its_hash() {
        let sets = vec![set("c", "v3", 3, 0), set("a", "v1", 1, 2), set("b", "v2", 2, 0)];
        let revisions = Revisions::of(&deployment("v2", 10), sets);
        assert_eq!(revisions.new.as_ref().unwrap().metadata.name.as_deref(), Some("b"));
        let old: Vec<_> = revisions.old.iter().filter_map(|set| set.metadata.name.clone()).collect();
        assert_eq!(old, ["a", "c"]);
        assert_eq!(revisions.next(), 4);
    }

    #[test]
    fn going_back_renumbers_and_remembers() {
        let existing = BTreeMap::from([(REVISION.to_owned(), "2".to_owned())]);
        let missing = missing_annotations(&deployment("v2", 10), &existing, 4);
        assert_eq!(missing[REVISION], "4");
        assert_eq!(missing[REVISION_HISTORY], "2");
        assert_eq!(missing["kubernetes.io/change-cause"], "why");
        let mut all = existing.clone();
        all.extend(missing);
        assert!(missing_annotations(&deployment("v2", 10), &all, 4).is_empty());
        assert_eq!(append("1,3", "5"), "1,3,5");
        assert!(append(&"1234,".repeat(500), "9").len() <= MAX_HISTORY);
    }

    #[test]
    fn only_empty_sets_beyond_the_limit_expire() {
        let sets = vec![set("a", "v1", 1, 0), set("b", "v2", 2, 1), set("c", "v3", 3, 0), set("d", "v4", 4, 0)];
        let revisions = Revisions::of(&deployment("v5", 1), sets);
        let expired: Vec<_> =
            revisions.expired(&deployment("v5", 1)).iter().filter_map(|set| set.metadata.name.clone()).collect();
        assert_eq!(expired, ["a", "c"]);
    }
}
