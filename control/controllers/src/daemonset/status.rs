//! What a DaemonSet reports about its nodes. Pure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use super::plan::{Places, Rules, rank};
use crate::{counts::positive, pods};

/// The status that follows from nodes and Pods.
pub(super) fn status(set: &DaemonSet, places: &Places, rules: &Rules<'_>, collisions: Option<i32>) -> DaemonSetStatus {
    let mut status = DaemonSetStatus {
        collision_count: collisions,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
        observed_generation: set.metadata.generation,
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for place in places.values().filter(|place| place.exists) {
        let pod = place.pods.iter().min_by(|a, b| rank(a).cmp(&rank(b)));
        match (place.fit.run, pod) {
            (false, Some(_)) => status.number_misscheduled += 1,
            (false, None) => {}
            (true, None) => status.desired_number_scheduled += 1,
            (true, Some(pod)) => {
                status.desired_number_scheduled += 1;
                status.current_number_scheduled += 1;
                status.number_ready += i32::from(pods::is_ready(pod));
                available += i32::from(pods::is_available(pod, rules.min_ready_seconds, rules.now));
                updated += i32::from((rules.is_updated)(pod));
            }
        }
    }
    // The server leaves zeros out of these.
    status.number_available = positive(available);
    status.number_unavailable = positive(status.desired_number_scheduled - available);
    status.updated_number_scheduled = positive(updated);
    status
}

/// How long until another Pod becomes available merely because time passes.
pub(super) fn next_available(places: &Places, rules: &Rules<'_>) -> Option<Duration> {
    let pods = places.values().flat_map(|place| &place.pods);
    let left = pods.filter_map(|pod| pods::until_available(pod, rules.min_ready_seconds, rules.now));
    left.filter(|left| !left.is_zero()).min()
}
