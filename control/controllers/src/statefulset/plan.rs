//! The next steps towards all ordinals running, in order, and up to date. Pure.
//!
//! In order means: one step a pass, and none while a Pod before it is not as it should be. In parallel, all steps at once;
//! only updates go on one after the other.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use super::identity::revision;
use crate::pods;

/// What is wanted of the Pods.
pub(super) struct Goal<'a> {
    pub(super) ordinals: Range<i32>,
    pub(super) parallel: bool,
    pub(super) min_ready_seconds: i32,
    /// From which ordinal on Pods are brought to the newest revision, and how many may be unavailable for that; none for
    /// OnDelete.
    pub(super) update: Option<Update>,
    /// The name of the newest revision.
    pub(super) newest: &'a str,
    pub(super) now: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) from: i32,
    pub(super) unavailable: usize,
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Create the Pod of an ordinal; by the newest revision, or by the one before.
    Create { ordinal: i32, newest: bool },
    /// Delete a Pod that ended, to make room for another.
    Replace(Arc<Pod>),
    /// Delete a Pod that is not wanted, or not as it is.
    Delete(Arc<Pod>),
}

/// The steps of a pass.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// When a Pod counts as available merely because time passes.
    pub(super) again: Option<Duration>,
}

impl Plan {
    fn only(step: Step) -> Self {
        Self { steps: vec![step], again: None }
    }

    fn wait(again: Option<Duration>) -> Self {
        Self { steps: Vec::new(), again: again.filter(|left| !left.is_zero()) }
    }
}

/// Created, running and ready for long enough.
fn is_available(goal: &Goal<'_>, pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_available(pod, goal.min_ready_seconds, goal.now)
}

fn is_healthy(goal: &Goal<'_>, pod: &Pod) -> bool {
    is_available(goal, pod) && !pods::is_deleting(pod)
}

/// Decides. `existing` are the Pods there are, by ordinal.
pub(super) fn plan(goal: &Goal<'_>, existing: &BTreeMap<i32, Arc<Pod>>) -> Plan {
    let mut plan = Plan::default();
    for ordinal in goal.ordinals.clone() {
        let next = replica(goal, ordinal, existing.get(&ordinal));
        match next {
            Next::Fine => {}
            Next::Wait(left) if !goal.parallel => return Plan::wait(left),
            Next::Wait(left) => plan.again = sooner(plan.again, left),
            Next::Step(step) if !goal.parallel => return Plan::only(step),
            Next::Step(step) => plan.steps.push(step),
        }
    }
    let condemned: Vec<&Arc<Pod>> =
        existing.iter().filter(|(ordinal, _)| !goal.ordinals.contains(ordinal)).map(|(_, pod)| pod).collect();
    if goal.parallel {
        plan.steps.extend(condemned.into_iter().filter(|pod| !pods::is_deleting(pod)).cloned().map(Step::Delete));
    } else if let Some(last) = condemned.last() {
        return shrink(goal, &condemned, last);
    }
    if plan.steps.is_empty()
        && let Some(update) = goal.update
    {
        plan.steps = outdated(goal, update, existing).into_iter().map(Step::Delete).collect();
    }
    plan
}

enum Next {
    Fine,
    Wait(Option<Duration>),
    Step(Step),
}

/// What an ordinal needs.
fn replica(goal: &Goal<'_>, ordinal: i32, pod: Option<&Arc<Pod>>) -> Next {
    let Some(pod) = pod else {
        let newest = goal.update.is_none_or(|update| ordinal >= update.from);
        return Next::Step(Step::Create { ordinal, newest });
    };
    if pods::is_deleting(pod) {
        return Next::Wait(None);
    }
    if pods::is_terminal(pod) {
        return Next::Step(Step::Replace(pod.clone()));
    }
    if is_available(goal, pod) {
        return Next::Fine;
    }
    Next::Wait(pods::until_available(pod, goal.min_ready_seconds, goal.now).filter(|left| !left.is_zero()))
}

/// Takes the last Pod away, once the one before that was taken is gone. An unhealthy Pod is waited for, unless there is no
/// other.
fn shrink(goal: &Goal<'_>, condemned: &[&Arc<Pod>], last: &Arc<Pod>) -> Plan {
    if pods::is_deleting(last) {
        return Plan::default();
    }
    let first_unhealthy = condemned.iter().find(|pod| !is_healthy(goal, pod));
    if !is_available(goal, last) && !first_unhealthy.is_some_and(|first| Arc::ptr_eq(first, last)) {
        return Plan::wait(pods::until_available(last, goal.min_ready_seconds, goal.now));
    }
    Plan::only(Step::Delete(last.clone()))
}

/// Pods of older revisions that go now: from the last ordinal on, as many as may be unavailable.
fn outdated(goal: &Goal<'_>, update: Update, existing: &BTreeMap<i32, Arc<Pod>>) -> Vec<Arc<Pod>> {
    let replicas = existing.range(goal.ordinals.clone());
    let unavailable = replicas.clone().filter(|(_, pod)| !is_healthy(goal, pod)).count();
    let mut left = update.unavailable.saturating_sub(unavailable);
    let mut going = Vec::new();
    for (_, pod) in replicas.rev().take_while(|(ordinal, _)| **ordinal >= update.from) {
        if revision(pod) == goal.newest || pods::is_deleting(pod) {
            continue;
        }
        // One that is unavailable anyhow costs nothing.
        if is_healthy(goal, pod) {
            if left == 0 {
                continue;
            }
            left -= 1;
        }
        going.push(pod.clone());
    }
    going
}

fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
