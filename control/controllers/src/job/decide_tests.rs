//! Jobs in an imagined cluster whose controller crashes between any two writes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodStatus;
use proptest::prelude::*;
use serde_json::json;

use super::{
    super::{pod, view::is_tracked},
    *,
};
use crate::pods;

fn job(spec: serde_json::Value) -> Job {
    let mut all = json!({
        "template": { "metadata": { "labels": { "job": "work" } }, "spec": { "containers": [], "restartPolicy": "Never" } },
        "selector": { "matchLabels": { "job": "work" } },
    });
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let meta = json!({ "name": "work", "namespace": "default", "uid": "j" });
    serde_json::from_value(json!({ "metadata": meta, "spec": all })).unwrap()
}

struct World {
    job: Job,
    pods: BTreeMap<String, Pod>,
    made: usize,
    clock: i64,
    /// Pods that the status has ever listed as uncounted.
    entered: BTreeSet<String>,
    /// Pods of which nothing is to be heard.
    dismissed: BTreeSet<String>,
}

impl World {
    fn new(spec: serde_json::Value) -> Self {
        Self {
            job: job(spec),
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

    /// A pass that ends after `writes` kinds of writes.
    fn pass(&mut self, writes: usize) {
        self.clock += 1000;
        if is_finished(&self.job) {
            return;
        }
        let all = self.pods.values().map(|pod| Arc::new(pod.clone())).collect();
        let decision = decide(&self.job, all, self.now());
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
        self.write(decision.status);
        if writes < 3 {
            return;
        }
        decision.settle.iter().for_each(|pod| self.settle(uid(pod)));
        if writes >= 4 {
            decision.stop.iter().for_each(|pod| self.delete(uid(pod)));
        }
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

    fn delete(&mut self, uid: &str) {
        let now = self.now();
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.metadata.deletion_timestamp.get_or_insert(Time(now));
            self.sweep();
        }
    }

    /// The agent's part: the Pod ends.
    fn end(&mut self, uid: &str, phase: &str) {
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
    fn any(&self, n: usize) -> Option<String> {
        self.pods.keys().nth(n % self.pods.len().max(1)).cloned()
    }

    /// From here on nothing goes wrong.
    fn settle_down(&mut self) {
        for _ in 0..400 {
            self.pass(4);
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

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap()
    }

    fn reason(&self) -> String {
        condition(&self.job, "Failed").or(condition(&self.job, "Complete")).unwrap().reason.clone().unwrap()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Pass(usize),
    End(usize, bool),
    Delete(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..5).prop_map(Step::Pass),
        3 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(n, well)| Step::End(n, well)),
        1 => any::<usize>().prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 0..60)
}

fn run(world: &mut World, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Pass(writes) => world.pass(writes),
            Step::End(n, well) => {
                if let Some(uid) = world.any(n) {
                    world.end(&uid, if well { "Succeeded" } else { "Failed" });
                }
            }
            Step::Delete(n) => {
                if let Some(uid) = world.any(n) {
                    world.delete(&uid);
                }
            }
        }
    }
    world.settle_down();
    let status = world.status();
    assert_eq!(status.active, None);
    assert_eq!(status.terminating, Some(0));
    assert!(world.pods.values().all(|pod| !is_tracked(pod) && pods::is_terminal(pod)), "{:?}", world.pods);
}

proptest! {
    #[test]
    fn every_pod_is_counted_once(
        steps in steps(), completions in 1i32..8, parallelism in 1i32..5, limit in 0i32..6, patient in any::<bool>(),
    ) {
        let policy = if patient { "Failed" } else { "TerminatingOrFailed" };
        let mut world = World::new(json!({
            "completions": completions, "parallelism": parallelism, "backoffLimit": limit, "podReplacementPolicy": policy,
        }));
        run(&mut world, steps);
        let status = world.status();
        match world.reason().as_str() {
            "CompletionsReached" => {
                prop_assert!(status.succeeded.unwrap_or(0) >= completions);
                prop_assert!(status.completion_time.is_some());
            }
            "BackoffLimitExceeded" => prop_assert!(status.failed.unwrap_or(0) > limit),
            other => prop_assert!(false, "{}", other),
        }
        prop_assert_eq!(status.succeeded.unwrap_or(0) + status.failed.unwrap_or(0), saturate(world.entered.len()));
    }

    #[test]
    fn every_index_is_done_or_given_up(steps in steps(), completions in 1i32..8, parallelism in 1i32..5, limit in 0i32..3) {
        let mut world = World::new(json!({
            "completions": completions, "parallelism": parallelism, "completionMode": "Indexed",
            "backoffLimitPerIndex": limit, "backoffLimit": i32::MAX,
        }));
        run(&mut world, steps);
        let status = world.status();
        let read = |text: Option<String>| super::super::indexes::parse(&text.unwrap_or_default(), completions);
        let (done, failed) = (read(status.completed_indexes), read(status.failed_indexes));
        prop_assert!(done.is_disjoint(&failed));
        prop_assert_eq!(done.len() + failed.len(), count(completions));
        prop_assert_eq!(world.reason(), if failed.is_empty() { "CompletionsReached" } else { "FailedIndexes" });
    }
}

#[test]
fn a_suspended_job_has_no_pods_and_counts_none() {
    let mut world = World::new(json!({ "completions": 3, "parallelism": 2, "suspend": true, "backoffLimit": 0 }));
    world.pass(4);
    assert_eq!((world.made, world.status().start_time), (0, None));
    assert_eq!(condition(&world.job, "Suspended").unwrap().status, "True");
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.pass(4);
    assert_eq!((world.made, world.status().active), (2, Some(2)));
    assert_eq!(condition(&world.job, "Suspended").unwrap().status, "False");
    world.job.spec.as_mut().unwrap().suspend = Some(true);
    world.pass(4);
    assert_eq!(world.status().active, None);
    assert_eq!(world.status().terminating, Some(2));
    world.job.spec.as_mut().unwrap().suspend = Some(false);
    world.settle_down();
    assert_eq!((world.status().failed, world.reason().as_str()), (None, "CompletionsReached"));
}

#[test]
fn enough_successes_end_an_indexed_job() {
    let policy = json!({ "rules": [{ "succeededIndexes": "0", "succeededCount": 1 }] });
    let mut world = World::new(json!({
        "completions": 4, "parallelism": 4, "completionMode": "Indexed", "successPolicy": policy, "backoffLimit": 6,
    }));
    world.pass(4);
    let first = world.pods.iter().find(|(_, pod)| super::super::view::index(pod) == Some(0)).unwrap().0.clone();
    world.end(&first, "Succeeded");
    world.pass(4);
    assert_eq!(
        condition(&world.job, "SuccessCriteriaMet").unwrap().message.as_deref(),
        Some("Matched rules at index 0")
    );
    assert!(!is_finished(&world.job), "three Pods still run");
    world.settle_down();
    assert_eq!((world.reason().as_str(), world.status().completed_indexes.as_deref()), ("SuccessPolicy", Some("0")));
}

#[test]
fn policies_and_deadlines_fail_a_job() {
    let rule = json!({ "action": "FailJob", "onPodConditions": [{ "type": "Broken", "status": "True" }] });
    let mut world = World::new(json!({
        "completions": 2, "parallelism": 2, "backoffLimit": 6, "podFailurePolicy": { "rules": [rule] },
    }));
    world.pass(4);
    let broken = json!({ "phase": "Failed", "conditions": [{ "type": "Broken", "status": "True" }] });
    world.pods.get_mut("p1").unwrap().status = Some(serde_json::from_value(broken).unwrap());
    world.settle_down();
    assert_eq!((world.reason().as_str(), world.status().failed), ("PodFailurePolicy", Some(2)));

    let mut world =
        World::new(json!({ "completions": 1, "parallelism": 1, "backoffLimit": 6, "activeDeadlineSeconds": 1500 }));
    world.pass(4);
    assert!(!is_finished(&world.job));
    world.pass(4);
    world.pass(4);
    world.settle_down();
    assert_eq!(world.reason(), "DeadlineExceeded");
}
