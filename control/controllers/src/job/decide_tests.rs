//! Jobs in an imagined cluster.
#![allow(clippy::unwrap_used, reason = "tests")]

mod imagined;

use proptest::prelude::*;
use serde_json::json;

use self::imagined::{Fate, World};
use super::{super::view::is_tracked, *};
use crate::pods;

#[derive(Clone, Debug)]
enum Step {
    Pass(usize, Fate),
    /// The cache catches up.
    Hear,
    /// A write that was under way arrives.
    Arrive(usize),
    End(usize, bool),
    Delete(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![4 => Just(Fate::Answered), 1 => Just(Fate::Unheard), 1 => Just(Fate::Late)];
    let step = prop_oneof![
        4 => (0usize..5, fate).prop_map(|(writes, fate)| Step::Pass(writes, fate)),
        1 => Just(Step::Hear),
        1 => any::<usize>().prop_map(Step::Arrive),
        3 => (any::<usize>(), prop::bool::weighted(0.7)).prop_map(|(n, well)| Step::End(n, well)),
        1 => any::<usize>().prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 0..60)
}

fn run(world: &mut World, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Pass(writes, fate) => world.pass(writes, fate),
            Step::Hear => world.told = world.job.clone(),
            Step::Arrive(_) if world.late.is_empty() => {}
            Step::Arrive(n) => {
                let request = world.late.remove(n % world.late.len());
                world.arrive(&request);
            }
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
    world.pass(4, Fate::Answered);
    assert_eq!((world.made, world.status().start_time), (0, None));
    assert_eq!(condition(&world.job, "Suspended").unwrap().status, "True");
    world.ask(|job| job.spec.as_mut().unwrap().suspend = Some(false));
    world.pass(4, Fate::Answered);
    assert_eq!((world.made, world.status().active), (2, Some(2)));
    assert_eq!(condition(&world.job, "Suspended").unwrap().status, "False");
    world.ask(|job| job.spec.as_mut().unwrap().suspend = Some(true));
    world.pass(4, Fate::Answered);
    assert_eq!(world.status().active, None);
    assert_eq!(world.status().terminating, Some(2));
    world.ask(|job| job.spec.as_mut().unwrap().suspend = Some(false));
    world.settle_down();
    assert_eq!((world.status().failed, world.reason().as_str()), (None, "CompletionsReached"));
}

#[test]
fn enough_successes_end_an_indexed_job() {
    let policy = json!({ "rules": [{ "succeededIndexes": "0", "succeededCount": 1 }] });
    let mut world = World::new(json!({
        "completions": 4, "parallelism": 4, "completionMode": "Indexed", "successPolicy": policy, "backoffLimit": 6,
    }));
    world.pass(4, Fate::Answered);
    let first = world.pods.iter().find(|(_, pod)| super::super::view::index(pod) == Some(0)).unwrap().0.clone();
    world.end(&first, "Succeeded");
    world.pass(4, Fate::Answered);
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
    world.pass(4, Fate::Answered);
    let broken = json!({ "phase": "Failed", "conditions": [{ "type": "Broken", "status": "True" }] });
    world.pods.get_mut("p1").unwrap().status = Some(serde_json::from_value(broken).unwrap());
    world.settle_down();
    assert_eq!((world.reason().as_str(), world.status().failed), ("PodFailurePolicy", Some(2)));

    let mut world =
        World::new(json!({ "completions": 1, "parallelism": 1, "backoffLimit": 6, "activeDeadlineSeconds": 1500 }));
    world.pass(4, Fate::Answered);
    assert!(!is_finished(&world.job));
    world.pass(4, Fate::Answered);
    world.pass(4, Fate::Answered);
    world.settle_down();
    assert_eq!(world.reason(), "DeadlineExceeded");
}
