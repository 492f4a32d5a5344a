//! A Job counts every Pod, and every index, once, and what it has counted it keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use serde_json::Value;

use super::State;
use crate::tree;

/// What became of the Pods of Jobs, by the Job's UID.
#[derive(Default)]
pub(super) struct Truth(BTreeMap<String, Ended>);

#[derive(Default)]
struct Ended {
    succeeded: BTreeSet<String>,
    /// Failed, or asked to go before their end, which counts as failure however they end then.
    failed: BTreeSet<String>,
    indexes: BTreeSet<i64>,
}

impl State {
    /// Notes how a Pod of a Job ended.
    pub(super) fn note_ended(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let Some(pod) = new.or(old) else { return };
        let Some(owner) = tree::controller(pod).filter(|owner| owner["kind"] == "Job") else { return };
        let ended = self.jobs.0.entry(tree::text(owner, "/uid").to_owned()).or_default();
        let uid = tree::uid(pod).to_owned();
        match tree::text(pod, "/status/phase") {
            "Succeeded" => {
                ended.succeeded.insert(uid);
                let index = &pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"];
                ended.indexes.extend(index.as_str().and_then(|index| index.parse::<i64>().ok()));
            }
            "Failed" => drop(ended.failed.insert(uid)),
            _ if new.is_none() || tree::is_deleting(pod) => drop(ended.failed.insert(uid)),
            _ => {}
        }
    }

    /// Checks what a Job says of itself.
    pub(super) fn job(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let Some(job) = new else { return };
        let old = old.filter(|old| tree::uid(old) == tree::uid(job));
        if let Some(wrong) = self.wrong(old, job) {
            let text = format!("the Job {} {wrong}: {}", tree::name(job), job["status"]);
            self.accuse(text);
        }
    }

    /// How many Pods of a Job may have succeeded once it is complete: as many as it asks for. Where Pods have no index, some may come
    /// twice, and all succeed before it is seen that there are too many: a Pod whose creation was not heard of is made again, and
    /// one that is asked to go is replaced, and may succeed nevertheless before anybody has counted it as failed.
    pub(super) fn successes(&self, job: &Value) -> RangeInclusive<i64> {
        let completions = tree::number(job, "/spec/completions");
        if job["spec"]["completionMode"] == "Indexed" {
            return completions..=completions;
        }
        let unheard = self.unheard.get(tree::namespace(job)).copied().unwrap_or(0);
        let ended = self.jobs.0.get(tree::uid(job));
        let spared = ended.map_or(0, |ended| ended.succeeded.intersection(&ended.failed).count());
        completions..=completions + unheard + spared as i64
    }

    fn wrong(&self, old: Option<&Value>, job: &Value) -> Option<String> {
        let count = |pointer: &str| tree::number(job, pointer);
        let before = |pointer: &str| old.map_or(0, |old| tree::number(old, pointer));
        for counter in ["/status/succeeded", "/status/failed"] {
            if count(counter) < before(counter) {
                return Some(format!("counts back from {} in {counter}", before(counter)));
            }
        }
        let nothing = Ended::default();
        let truth = self.jobs.0.get(tree::uid(job)).unwrap_or(&nothing);
        let failed = count("/status/failed");
        if failed > truth.failed.len() as i64 {
            return Some(format!("counts {failed} failures of {}", truth.failed.len()));
        }
        let succeeded = count("/status/succeeded");
        if succeeded > truth.succeeded.len() as i64 {
            return Some(format!("counts {succeeded} successes of {}", truth.succeeded.len()));
        }
        let ended = truth.succeeded.union(&truth.failed).count();
        if succeeded + failed > ended as i64 {
            return Some(format!("counts {succeeded} successes and {failed} failures of {ended} Pods that ended"));
        }
        if tree::has(job, "Complete") && !self.successes(job).contains(&succeeded) {
            return Some("is complete with another number of completions than was asked for".to_owned());
        }
        if job["spec"]["completionMode"] != "Indexed" {
            return None;
        }
        let completed: BTreeSet<i64> = tree::indexes(tree::text(job, "/status/completedIndexes")).into_iter().collect();
        let known = old.map(|old| tree::indexes(tree::text(old, "/status/completedIndexes"))).unwrap_or_default();
        if known.iter().any(|index| !completed.contains(index)) {
            return Some("forgets a completed index".to_owned());
        }
        if !completed.is_subset(&truth.indexes) {
            return Some("counts an index of which no Pod has succeeded".to_owned());
        }
        (succeeded != completed.len() as i64).then(|| "counts other than its indexes".to_owned())
    }
}
