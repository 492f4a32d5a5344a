//! One pass over one Deployment: what it looks at, and the ReplicaSet it would create. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use kube::api::ObjectMeta;
use wherry_reconcile::{ObjectKey, hash::pod_template_hash, ownership::owner_reference};

use super::{
    revisions::{self, Revisions, TEMPLATE_HASH},
    rolling::{self, Goal},
    status::{self, News},
};

const MAX_NAME: usize = 253;

/// One pass over one Deployment.
pub(super) struct Pass {
    pub(super) key: ObjectKey,
    pub(super) deployment: Arc<Deployment>,
    pub(super) revisions: Revisions,
    pub(super) goal: Goal,
    pub(super) news: News,
}

impl Pass {
    pub(super) fn is_paused(&self) -> bool {
        self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true)
    }

    pub(super) fn is_scaling(&self) -> bool {
        let sets: Vec<_> = self.revisions.all().map(|set| revisions::sizes(set)).collect();
        rolling::is_scaling(&self.goal, &sets)
    }

    pub(super) fn is_complete(&self) -> bool {
        let status = self.deployment.status.as_ref();
        status.is_some_and(|status| status::is_complete(&self.deployment, status))
    }

    pub(super) fn min_ready(&self) -> i32 {
        self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
    }

    pub(super) fn old_sizes(&self) -> Vec<rolling::Set> {
        self.revisions.old.iter().map(|set| revisions::sizes(set)).collect()
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<ReplicaSet>> {
        self.revisions.all().find(|set| set.metadata.name.as_deref() == Some(name)).cloned()
    }

    pub(super) fn put(&mut self, updated: ReplicaSet) {
        let updated = Arc::new(updated);
        let known = self.revisions.old.iter_mut().chain(&mut self.revisions.new);
        for set in known.filter(|set| set.metadata.uid == updated.metadata.uid) {
            *set = updated.clone();
        }
    }

    /// The ReplicaSet of the present template.
    pub(super) fn new_set(&self) -> ReplicaSet {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = pod_template_hash(&spec.template, collisions);
        let mut template = spec.template;
        let meta = template.metadata.get_or_insert_default();
        meta.labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
        let labels = meta.labels.clone();
        let mut selector = spec.selector;
        selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());

        let pods = self.revisions.old.iter().map(|set| revisions::replicas(set)).sum();
        let size = rolling::new_size(&self.goal, 0, pods);
        let mut annotations = revisions::missing_annotations(&self.deployment, &BTreeMap::new(), self.revisions.next());
        annotations.extend(revisions::size_annotations(&self.goal));
        let mut name = self.key.name.clone();
        name.truncate(MAX_NAME - hash.len() - 1);
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: Some(self.key.namespace.clone()),
                owner_references: Some(vec![owner_reference(&*self.deployment)]),
                labels,
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }
}
