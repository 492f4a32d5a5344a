//! What a ReplicaSet reports about its Pods.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use crate::{
    counts::{positive, saturate},
    hand::Failure,
    pods,
};

pub(crate) const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The status that follows from the Pods.
pub(super) fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let template_labels =
        spec.template.and_then(|template| template.metadata).and_then(|meta| meta.labels).unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let count = |counts: &dyn Fn(&Pod) -> bool| saturate(active.iter().filter(|pod| counts(pod)).count());
    let fully_labeled = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        template_labels.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    };
    let before = set.status.clone().unwrap_or_default();
    ReplicaSetStatus {
        replicas: saturate(active.len()),
        // The server leaves zeros out of these.
        fully_labeled_replicas: positive(count(&fully_labeled)),
        ready_replicas: positive(count(&pods::is_ready)),
        available_replicas: positive(count(&|pod| pods::is_available(pod, min_ready, now))),
        terminating_replicas: Some(saturate(terminating)),
        observed_generation: set.metadata.generation,
        conditions: conditions(before.conditions.unwrap_or_default(), failure, now),
    }
}

/// How long until another Pod becomes available merely because time passes.
pub(super) fn next_available(active: &[Arc<Pod>], min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    active
        .iter()
        .filter_map(|pod| pods::until_available(pod, min_ready_seconds, now))
        .filter(|left| !left.is_zero())
        .min()
}

fn conditions(
    mut conditions: Vec<ReplicaSetCondition>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let known = conditions.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        Some(failure) if !known => conditions.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.into(),
            status: "True".into(),
            reason: Some(failure.reason.into()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_reported_until_it_is_over() {
        let now = Timestamp::UNIX_EPOCH;
        let failure = Failure { reason: "FailedCreate", message: "quota".into() };
        let mut set = ReplicaSet::default();
        set.status = Some(status(&set, &[], 0, Some(&failure), now));
        let first = set.status.clone().unwrap().conditions.unwrap();
        assert_eq!(first[0].reason.as_deref(), Some("FailedCreate"));
        let again = status(&set, &[], 0, Some(&failure), now).conditions.unwrap();
        assert_eq!(again, first);
        assert_eq!(status(&set, &[], 0, None, now).conditions, None);
    }
}
