//! An imagined cluster with one Job: its controller crashes between any two writes, and its statuses are written over bad ways.
//! What must hold is looked at with each write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobStatus},
        core::v1::{Pod, PodStatus},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use serde_json::{Value, json};
use wherry_reconcile::status::{Precondition, merge_diff};

use super::super::{condition, decide, is_finished};
use crate::{
    counts::saturate,
    job::{
        account::AT,
        pod,
        view::{is_tracked, uid},
    },
    pods,
};

fn job(spec: serde_json::Value) -> Job {
    let mut all = json!({
        "template": { "metadata": { "labels": { "job": "work" } }, "spec": { "containers": [], "restartPolicy": "Never" } },
        "selector": { "matchLabels": { "job": "work" } },
    });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let meta = json!({ "name": "work", "namespace": "default", "uid": "j" });
    serde_json::from_value(json!({ "metadata": meta, "spec": all })).unwrap()
}

/// What becomes of a write of the status.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fate {
    Answered,
    /// It is stored, but the answer is lost, and the news of it is on its way.
    Unheard,
    /// It seems lost, and arrives later.
    Late,
}

/// A write of the status.
pub(super) struct Request {
    version: Option<String>,
    patch: Value,
}

/// What a JSON merge patch makes of an object.
fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(fields), Value::Object(known)) = (patch, &mut *target) else {
        *target = patch.clone();
        return;
    };
    for (field, value) in fields {
        if value.is_null() {
            known.remove(field);
        } else {
            merge(known.entry(field.clone()).or_insert_with(|| json!({})), value);
        }
    }
}

pub(super) struct World {
    pub(super) job: Job,
    /// The Job as the controller's cache shows it.
    pub(super) told: Job,
    /// Writes under way.
    pub(super) late: Vec<Request>,
    version: u64,
    pub(super) pods: BTreeMap<String, Pod>,
    pub(super) made: usize,
    clock: i64,
    /// Pods that the status has ever listed as uncounted.
    pub(super) entered: BTreeSet<String>,
    /// Pods of which nothing is to be heard.
    dismissed: BTreeSet<String>,
}

impl World {
    pub(super) fn new(spec: serde_json::Value) -> Self {
        let job = job(spec);
        Self {
            told: job.clone(),
            job,
            late: Vec::new(),
            version: 0,
            pods: BTreeMap::new(),
            made: 0,
            clock: 1_000_000,
            entered: BTreeSet::new(),
            dismissed: BTreeSet::new(),
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.clock).unwrap()
    }

    /// Changes the Job as a user does.
    pub(super) fn ask(&mut self, change: impl Fn(&mut Job)) {
        change(&mut self.job);
        self.told = self.job.clone();
    }

    /// A pass that ends after `writes` kinds of writes.
    pub(super) fn pass(&mut self, writes: usize, fate: Fate) {
        self.clock += 1000;
        if is_finished(&self.told) {
            return;
        }
        let all = self.pods.values().map(|pod| Arc::new(pod.clone())).collect();
        let decision = decide(&self.told, all, self.now());
        for dismissed in &decision.dismiss {
            self.dismissed.insert(uid(dismissed).to_owned());
            self.settle(uid(dismissed));
        }
        if writes < 1 {
            return;
        }
        decision.dismiss.iter().for_each(|pod| self.delete(uid(pod)));
        for slot in &decision.create {
            self.made += 1;
            let mut pod = pod::make(&self.job, slot);
            pod.metadata.uid = Some(format!("p{}", self.made));
            pod.metadata.creation_timestamp = Some(Time(self.now()));
            pod.status = Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() });
            self.pods.insert(uid(&pod).to_owned(), pod);
        }
        if writes < 2 {
            return;
        }
        if !self.send(&decision.status, fate) || writes < 3 {
            return;
        }
        decision.settle.iter().for_each(|pod| self.settle(uid(pod)));
        if writes >= 4 {
            decision.stop.iter().for_each(|pod| self.delete(uid(pod)));
        }
    }

    /// Sends what changes in the status; whether it is known to be stored.
    fn send(&mut self, status: &JobStatus, fate: Fate) -> bool {
        let before = self.told.status.clone().unwrap_or_default();
        let Some(patch) = merge_diff(&json!(before), &json!(status)) else { return true };
        let request = Request { version: self.told.metadata.resource_version.clone(), patch };
        if fate == Fate::Late {
            self.late.push(request);
            return false;
        }
        let stored = self.arrive(&request);
        if stored && fate == Fate::Answered {
            self.told = self.job.clone();
        }
        stored && fate == Fate::Answered
    }

    /// A write reaches the server.
    pub(super) fn arrive(&mut self, request: &Request) -> bool {
        if AT == Precondition::Version && request.version != self.job.metadata.resource_version {
            return false;
        }
        let mut status = json!(self.job.status.clone().unwrap_or_default());
        merge(&mut status, &request.patch);
        self.write(serde_json::from_value(status).unwrap());
        self.version += 1;
        self.job.metadata.resource_version = Some(self.version.to_string());
        true
    }

    /// Writes the status, and looks whether it follows from the one before.
    fn write(&mut self, new: JobStatus) {
        let lists = |status: &JobStatus| -> BTreeSet<String> {
            let waiting = status.uncounted_terminated_pods.clone().unwrap_or_default();
            waiting.succeeded.into_iter().chain(waiting.failed).flatten().collect()
        };
        let old = self.job.status.clone().unwrap_or_default();
        let (before, after) = (lists(&old), lists(&new));
        for uid in after.difference(&before) {
            assert!(self.entered.insert(uid.clone()), "{uid} was entered twice");
            assert!(!self.dismissed.contains(uid), "{uid} was dismissed");
        }
        let indexed = self.job.spec.as_ref().unwrap().completion_mode.is_some();
        let count = |status: &JobStatus| {
            let succeeded = if indexed { 0 } else { status.succeeded.unwrap_or(0) };
            succeeded + status.failed.unwrap_or(0)
        };
        assert_eq!(count(&new) - count(&old), saturate(before.difference(&after).count()), "{old:?} {new:?}");
        self.job.status = Some(new);
    }

    fn settle(&mut self, uid: &str) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.metadata.finalizers = None;
            self.sweep();
        }
    }

    pub(super) fn delete(&mut self, uid: &str) {
        let now = self.now();
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.metadata.deletion_timestamp.get_or_insert(Time(now));
            self.sweep();
        }
    }

    /// The agent's part: the Pod ends.
    pub(super) fn end(&mut self, uid: &str, phase: &str) {
        if let Some(pod) = self.pods.get_mut(uid).filter(|pod| !pods::is_terminal(pod)) {
            pod.status.get_or_insert_default().phase = Some(phase.to_owned());
            self.sweep();
        }
    }

    /// What is deleted, has ended and is held by nothing goes.
    fn sweep(&mut self) {
        self.pods.retain(|_, pod| !(pods::is_deleting(pod) && pods::is_terminal(pod) && !is_tracked(pod)));
    }

    /// Anybody's Pod, chosen by a number.
    pub(super) fn any(&self, n: usize) -> Option<String> {
        self.pods.keys().nth(n % self.pods.len().max(1)).cloned()
    }

    /// From here on nothing goes wrong.
    pub(super) fn settle_down(&mut self) {
        for request in std::mem::take(&mut self.late) {
            self.arrive(&request);
        }
        for _ in 0..400 {
            self.told = self.job.clone();
            self.pass(4, Fate::Answered);
            if is_finished(&self.job) {
                return;
            }
            let ready: Vec<String> = self.pods.keys().cloned().collect();
            for uid in ready {
                let deleting = pods::is_deleting(&self.pods[&uid]);
                self.end(&uid, if deleting { "Failed" } else { "Succeeded" });
            }
        }
        panic!("it never ends: {:?} {:?}", self.job.status, self.pods.keys());
    }

    pub(super) fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap()
    }

    pub(super) fn reason(&self) -> String {
        condition(&self.job, "Failed").or(condition(&self.job, "Complete")).unwrap().reason.clone().unwrap()
    }
}
