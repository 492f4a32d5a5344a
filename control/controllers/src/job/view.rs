//! A Job's Pods, sorted by what they mean to it. Pure.

use std::sync::Arc;

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    jiff::Timestamp,
};

use super::policies::{self, Verdict};
use crate::pods;

/// Keeps a Pod until it has been counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// How often Pods of an index have failed before this one.
pub(super) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How many of their failures the policy said to ignore.
pub(super) const INDEX_IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Whether the Pod has not been counted for good.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

pub(super) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The Pod's completion index.
pub(super) fn index(pod: &Pod) -> Option<i32> {
    annotation(pod, INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// How often its index had failed before it: counted, ignored.
pub(super) fn earlier_failures(pod: &Pod) -> (i32, i32) {
    let number = |key| annotation(pod, key).and_then(|text| text.parse().ok()).unwrap_or(0);
    (number(INDEX_FAILURES), number(INDEX_IGNORED))
}

/// When a Pod ended: its last container, else its deletion.
pub(super) fn ended(pod: &Pod) -> Option<Timestamp> {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ends = containers.filter_map(|c| c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let told = ends.map(|time| time.0).max();
    let ready = || pods::condition(pod, "Ready").and_then(|condition| condition.last_transition_time.as_ref());
    let else_by = || pod.metadata.deletion_timestamp.as_ref().or_else(ready).map(|time| time.0);
    told.or_else(else_by).or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// A Job and the settings that its rules read.
pub(super) struct Settings<'a> {
    pub(super) job: &'a Job,
    pub(super) completions: Option<i32>,
    pub(super) parallelism: i32,
    pub(super) indexed: bool,
    pub(super) backoff_limit: i32,
    pub(super) per_index: Option<i32>,
    pub(super) suspended: bool,
    /// A Pod counts as failed, and is replaced, only once it has ended.
    pub(super) patient: bool,
}

impl<'a> Settings<'a> {
    pub(super) fn of(job: &'a Job) -> Self {
        let spec = job.spec.as_ref();
        let get = |field: fn(&k8s_openapi::api::batch::v1::JobSpec) -> Option<i32>| spec.and_then(field);
        let text = |field: fn(&k8s_openapi::api::batch::v1::JobSpec) -> Option<&String>| spec.and_then(field).cloned();
        Self {
            job,
            completions: get(|spec| spec.completions),
            parallelism: get(|spec| spec.parallelism).unwrap_or(1),
            indexed: text(|spec| spec.completion_mode.as_ref()).as_deref() == Some("Indexed"),
            backoff_limit: get(|spec| spec.backoff_limit).unwrap_or(6),
            per_index: get(|spec| spec.backoff_limit_per_index),
            suspended: spec.and_then(|spec| spec.suspend) == Some(true),
            patient: spec.is_some_and(|spec| spec.pod_failure_policy.is_some())
                || text(|spec| spec.pod_replacement_policy.as_ref()).as_deref() == Some("Failed"),
        }
    }

    /// Whether a Pod counts as failed. One that is being deleted does at once, unless the Job is patient.
    pub(super) fn has_failed(&self, pod: &Pod) -> bool {
        match pods::phase(pod) {
            "Failed" => true,
            "Succeeded" => false,
            _ => !self.patient && pods::is_deleting(pod),
        }
    }

    pub(super) fn verdict(&self, pod: &Pod) -> Verdict {
        policies::judge(self.job, pod)
    }

    /// The Pod's index, if the Job has such a one.
    pub(super) fn valid_index(&self, pod: &Pod) -> Option<i32> {
        index(pod).filter(|index| self.completions.is_none_or(|completions| *index < completions))
    }
}

/// The Pods of a Job.
#[derive(Default)]
pub(super) struct Pods {
    pub(super) all: Vec<Arc<Pod>>,
    /// Neither ended nor ending.
    pub(super) active: Vec<Arc<Pod>>,
    /// Being deleted while they still run.
    pub(super) terminating: Vec<Arc<Pod>>,
}

impl Pods {
    pub(super) fn of(all: Vec<Arc<Pod>>) -> Self {
        let active = all.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let terminating = all.iter().filter(|pod| pods::is_terminating(pod)).cloned().collect();
        Self { all, active, terminating }
    }

    pub(super) fn ready(&self) -> usize {
        self.active.iter().filter(|pod| pods::is_ready(pod)).count()
    }
}
