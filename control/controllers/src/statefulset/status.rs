//! What a StatefulSet reports about its Pods. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetStatus},
        core::v1::Pod,
    },
    jiff::Timestamp,
};

use super::identity::revision;
use crate::{counts::positive, pods};

/// The names of the revisions that Pods are of, or are brought to.
pub(super) struct Names<'a> {
    pub(super) current: &'a str,
    pub(super) update: &'a str,
    pub(super) collisions: Option<i32>,
}

/// The status that follows from the Pods.
pub(super) fn status(
    set: &StatefulSet,
    existing: &BTreeMap<i32, Arc<Pod>>,
    names: &Names<'_>,
    now: Timestamp,
) -> StatefulSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let running = |pod: &Pod| pods::phase(pod) == "Running";
    let counted = |counts: &dyn Fn(&Pod) -> bool| -> i32 { existing.values().map(|pod| i32::from(counts(pod))).sum() };
    let of = |name: &str| counted(&|pod| revision(pod) == name && !pods::is_deleting(pod));
    let mut status = StatefulSetStatus {
        observed_generation: set.metadata.generation,
        replicas: counted(&|_| true),
        ready_replicas: positive(counted(&|pod| running(pod) && pods::is_ready(pod))),
        available_replicas: positive(counted(&|pod| running(pod) && pods::is_available(pod, min_ready, now))),
        current_replicas: positive(of(names.current)),
        updated_replicas: positive(of(names.update)),
        current_revision: Some(names.current.to_owned()),
        update_revision: Some(names.update.to_owned()),
        collision_count: names.collisions,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    let all = |count: Option<i32>| count.unwrap_or(0) == status.replicas;
    let on_delete = spec.update_strategy.and_then(|strategy| strategy.type_).as_deref() == Some("OnDelete");
    if !on_delete
        && status.replicas == spec.replicas.unwrap_or(1)
        && all(status.updated_replicas)
        && all(status.ready_replicas)
    {
        status.current_revision = status.update_revision.clone();
        status.current_replicas = status.updated_replicas;
    }
    status
}
