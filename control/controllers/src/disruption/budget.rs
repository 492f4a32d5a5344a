//! How many of a budget's Pods may be disrupted now. Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        core::v1::Pod,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::{
        apis::meta::v1::{Condition, Time},
        util::intstr::IntOrString,
    },
    jiff::Timestamp,
};

use crate::{
    counts::{portion, saturate},
    pods,
};

/// How long a Pod that was evicted may take to be seen ending.
const DELETION: Duration = Duration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

/// How many Pods there should be, and how many of them healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    pub(super) expected: i32,
    pub(super) healthy: i32,
}

/// Whether the size of the Pods' owners has to be known.
pub(super) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.clone().unwrap_or_default();
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What the budget asks for, of `pods` whose owners want `scale` of them.
pub(super) fn needs(budget: &PodDisruptionBudget, pods: usize, scale: i32) -> Needs {
    let spec = budget.spec.clone().unwrap_or_default();
    match (spec.max_unavailable, spec.min_available) {
        (Some(most), _) => Needs { expected: scale, healthy: (scale - portion(&most, scale, true)).max(0) },
        (None, Some(IntOrString::Int(least))) => Needs { expected: saturate(pods), healthy: least },
        (None, Some(least)) => Needs { expected: scale, healthy: portion(&least, scale, true) },
        (None, None) => Needs { expected: saturate(pods), healthy: 0 },
    }
}

/// Pods that were evicted and are still to be seen ending; those that should have been by now; and when the next one should.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Disrupted {
    pub(super) pending: BTreeMap<String, Time>,
    pub(super) overdue: Vec<Arc<Pod>>,
    pub(super) again: Option<Duration>,
}

pub(super) fn disrupted(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], now: Timestamp) -> Disrupted {
    let known = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    let mut found = Disrupted::default();
    for pod in pods.iter().filter(|pod| !pods::is_deleting(pod)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(since) = known.get(&name) else { continue };
        let passed = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
        match DELETION.checked_sub(passed).filter(|left| !left.is_zero()) {
            Some(left) => {
                found.again = Some(found.again.map_or(left, |again| again.min(left)));
                found.pending.insert(name, since.clone());
            }
            None => found.overdue.push(pod.clone()),
        }
    }
    found
}

/// The Pods that are healthy and going to stay so. One that has ended is not, whatever its condition still says: nobody corrects it where
/// its Node was gone when it ended.
pub(super) fn healthy(pods: &[Arc<Pod>], disrupted: &Disrupted) -> i32 {
    let staying = pods.iter().filter(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        pods::is_active(pod) && !disrupted.pending.contains_key(name)
    });
    saturate(staying.filter(|pod| pods::is_ready(pod)).count())
}

/// The status that follows.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    needs: Needs,
    healthy: i32,
    disrupted: Disrupted,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let allowed = if needs.expected > 0 { (healthy - needs.healthy).max(0) } else { 0 };
    let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    PodDisruptionBudgetStatus {
        conditions: Some(conditions(budget, value, reason, "", now)),
        current_healthy: Some(healthy),
        desired_healthy: Some(needs.healthy),
        disrupted_pods: (!disrupted.pending.is_empty()).then_some(disrupted.pending),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(needs.expected),
        observed_generation: budget.metadata.generation,
    }
}

/// The status where it is not known what may be disrupted: nothing may.
pub(super) fn unknown(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    PodDisruptionBudgetStatus {
        conditions: Some(conditions(budget, "False", "SyncFailed", why, now)),
        disruptions_allowed: Some(0),
        observed_generation: budget.metadata.generation,
        ..budget.status.clone().unwrap_or_default()
    }
}

fn conditions(
    budget: &PodDisruptionBudget,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let before = all.iter().position(|condition| condition.type_ == ALLOWED).map(|at| all.remove(at));
    let since = before.filter(|before| before.status == value).map(|before| before.last_transition_time);
    all.push(Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since.unwrap_or(Time(now)),
    });
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn budget(spec: serde_json::Value, disrupted: serde_json::Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": { "generation": 2 }, "spec": spec,
            "status": { "disruptedPods": disrupted, "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0,
                "expectedPods": 0 },
        }))
        .unwrap()
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name }, "status": { "conditions": [{ "type": "Ready", "status": status }] },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn budgets_in_numbers_and_portions() {
        let of = |spec| needs(&budget(spec, json!({})), 3, 10);
        assert_eq!(of(json!({ "minAvailable": 2 })), Needs { expected: 3, healthy: 2 });
        assert_eq!(of(json!({ "minAvailable": "25%" })), Needs { expected: 10, healthy: 3 });
        assert_eq!(of(json!({ "maxUnavailable": 1 })), Needs { expected: 10, healthy: 9 });
        assert_eq!(of(json!({ "maxUnavailable": "25%" })), Needs { expected: 10, healthy: 7 });
        assert_eq!(of(json!({ "maxUnavailable": 20 })), Needs { expected: 10, healthy: 0 });
    }

    #[test]
    fn who_has_ended_is_not_healthy() {
        let mut failed = (*pod("a", true)).clone();
        failed.status.get_or_insert_default().phase = Some("Failed".to_owned());
        assert_eq!(healthy(&[Arc::new(failed), pod("b", true)], &Disrupted::default()), 1);
    }

    #[test]
    fn evicted_pods_are_not_healthy_until_they_are_overdue() {
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().unwrap();
        let known = json!({ "a": "2026-01-01T00:01:00Z", "b": "2025-12-31T00:00:00Z", "gone": "2026-01-01T00:01:00Z" });
        let budget = budget(json!({ "minAvailable": 1 }), known);
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        let found = disrupted(&budget, &pods, now);
        assert_eq!(found.pending.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!((found.overdue.len(), found.again), (1, Some(Duration::from_secs(60))));
        assert_eq!(healthy(&pods, &found), 1);
        let status = status(&budget, needs(&budget, 3, 0), 1, found, now);
        assert_eq!((status.disruptions_allowed, status.observed_generation), (Some(0), Some(2)));
        assert_eq!(status.conditions.unwrap()[0].reason, "InsufficientPods");
    }

    proptest! {
        #[test]
        fn what_is_allowed_leaves_enough(least in 0i32..12, ready in prop::collection::vec(any::<bool>(), 0..12)) {
            let budget = budget(json!({ "minAvailable": least }), json!({}));
            let pods: Vec<_> = ready.iter().enumerate().map(|(n, ready)| pod(&n.to_string(), *ready)).collect();
            let healthy = healthy(&pods, &Disrupted::default());
            let needs = needs(&budget, pods.len(), 0);
            let status = status(&budget, needs, healthy, Disrupted::default(), Timestamp::UNIX_EPOCH);
            let allowed = status.disruptions_allowed.unwrap();
            prop_assert!(allowed >= 0);
            prop_assert!(allowed == 0 || healthy - allowed >= least);
        }
    }
}
