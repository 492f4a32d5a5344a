//! The book-keeping of a Job's Pods: each is counted exactly once, whatever crashes in between. Pure.
//!
//! A Pod that ended goes through three states, each a write: *uncounted* in the status, while it has its finalizer; then
//! without it; then in a counter, and no longer among the uncounted. Successes of an indexed Job skip the middle: an index is
//! completed or not, however often it is told.
//!
//! So a Pod can vanish only after the status knows of it, and a counter moves only with the uncounted entry that it replaces.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    batch::v1::{JobStatus, UncountedTerminatedPods},
    core::v1::Pod,
};

use wherry_reconcile::status::Precondition;

use super::{
    indexes::{self, Indexes},
    policies::Verdict,
    view::{Pods, Settings, earlier_failures, is_tracked, uid},
};
use crate::{counts::saturate, pods};

/// Counts are written at the version that they go on from. An earlier write may be stored although its answer was lost, and the
/// cache not show it yet; or it may arrive after a later one. Either way a Pod would be counted twice, or never.
pub(super) const AT: Precondition = Precondition::Version;
/// The most Pods that wait in the status to be counted.
const MOST: usize = 500;

/// A Job's counts.
#[derive(Debug, Default)]
pub(super) struct Account {
    succeeded: i32,
    failed: i32,
    uncounted_succeeded: Vec<String>,
    uncounted_failed: Vec<String>,
    pub(super) completed: Indexes,
    pub(super) given_up: Indexes,
    /// Pods whose finalizer may go once the status is written.
    pub(super) settled: Vec<Arc<Pod>>,
    /// Whether there are more than fit.
    pub(super) more: bool,
}

impl Account {
    /// What the status says, with everything counted whose finalizer is gone.
    pub(super) fn open(settings: &Settings<'_>, pods: &Pods) -> Self {
        let status = settings.job.status.clone().unwrap_or_default();
        let tracked: BTreeSet<&str> = pods.all.iter().filter(|pod| is_tracked(pod)).map(|pod| uid(pod)).collect();
        let waiting = status.uncounted_terminated_pods.unwrap_or_default();
        let split = |uids: Option<Vec<String>>| -> (Vec<String>, i32) {
            let (wait, done): (Vec<_>, Vec<_>) =
                uids.unwrap_or_default().into_iter().partition(|uid| tracked.contains(uid.as_str()));
            (wait, saturate(done.len()))
        };
        let (uncounted_succeeded, succeeded) = split(waiting.succeeded);
        let (uncounted_failed, failed) = split(waiting.failed);
        let completions = settings.completions.unwrap_or(i32::MAX);
        let read = |text: Option<String>| indexes::parse(text.as_deref().unwrap_or_default(), completions);
        Self {
            succeeded: status.succeeded.unwrap_or(0) + succeeded,
            failed: status.failed.unwrap_or(0) + failed,
            uncounted_succeeded,
            uncounted_failed,
            completed: if settings.indexed { read(status.completed_indexes) } else { Indexes::new() },
            given_up: if settings.per_index.is_some() { read(status.failed_indexes) } else { Indexes::new() },
            ..Self::default()
        }
    }

    /// Enters the Pods that ended. With `all`, every Pod that has not succeeded has failed: the Job has.
    pub(super) fn enter(&mut self, settings: &Settings<'_>, pods: &Pods, all: bool) {
        self.settled.clear();
        let mut entered = 0;
        for pod in pods.all.iter().filter(|pod| is_tracked(pod)) {
            let known = self.uncounted_succeeded.iter().chain(&self.uncounted_failed).any(|known| known == uid(pod));
            let succeeded = pods::phase(pod) == "Succeeded";
            if !known && !succeeded && !all && !settings.has_failed(pod) {
                continue;
            }
            if known {
                self.settled.push(pod.clone());
                continue;
            }
            if entered + self.uncounted_succeeded.len() + self.uncounted_failed.len() >= MOST {
                self.more = true;
                break;
            }
            match (succeeded, settings.indexed) {
                (true, true) => {
                    self.completed.extend(settings.valid_index(pod));
                    entered += 1;
                }
                (true, false) => self.uncounted_succeeded.push(uid(pod).to_owned()),
                (false, indexed) => self.enter_failure(settings, pod, indexed),
            }
            self.settled.push(pod.clone());
        }
        // An index that succeeded after all has not failed.
        self.given_up.retain(|index| !self.completed.contains(index));
    }

    fn enter_failure(&mut self, settings: &Settings<'_>, pod: &Pod, indexed: bool) {
        let index = settings.valid_index(pod);
        if indexed && index.is_none() {
            return;
        }
        let verdict = settings.verdict(pod);
        if let (Some(limit), Some(index)) = (settings.per_index, index) {
            let (failures, _) = earlier_failures(pod);
            let counted = verdict != Verdict::Ignore;
            let over = verdict == Verdict::FailIndex || (counted && failures + 1 > limit);
            if over && settings.has_failed(pod) {
                self.given_up.insert(index);
            }
        }
        if verdict != Verdict::Ignore {
            self.uncounted_failed.push(uid(pod).to_owned());
        }
    }

    pub(super) fn succeeded(&self, settings: &Settings<'_>) -> i32 {
        if settings.indexed {
            saturate(self.completed.len())
        } else {
            self.succeeded + saturate(self.uncounted_succeeded.len())
        }
    }

    pub(super) fn failed(&self) -> i32 {
        self.failed + saturate(self.uncounted_failed.len())
    }

    /// Nothing waits to be counted.
    pub(super) fn is_closed(&self) -> bool {
        self.settled.is_empty() && self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty() && !self.more
    }

    /// Writes the counts into the status.
    pub(super) fn report(&self, settings: &Settings<'_>, status: &mut JobStatus) {
        let positive = |count: i32| (count > 0).then_some(count);
        status.failed = positive(self.failed);
        if settings.indexed {
            status.succeeded = positive(saturate(self.completed.len()));
            let text = indexes::format(&self.completed);
            status.completed_indexes = (!text.is_empty()).then_some(text);
        } else {
            status.succeeded = positive(self.succeeded);
        }
        status.failed_indexes = settings.per_index.map(|_| indexes::format(&self.given_up));
        let list = |uids: &[String]| (!uids.is_empty()).then(|| uids.to_vec());
        status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
            failed: list(&self.uncounted_failed),
            succeeded: list(&self.uncounted_succeeded),
        });
    }
}
