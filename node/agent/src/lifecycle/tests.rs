//! The lifecycle against tables and against a world that does what it likes.
#![allow(clippy::unwrap_used, reason = "tests")]

mod basics;
mod rules;
mod sidecars;
mod world;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

use super::*;

const NODE: NodeFacts = NodeFacts { host_ips: Vec::new() };

/// A Pod of this spec.
fn of(spec: Value) -> Pod {
    let meta = json!({ "name": "p", "namespace": "ns", "uid": "u", "generation": 1 });
    serde_json::from_value(json!({ "metadata": meta, "spec": spec })).unwrap()
}

fn pod(policy: &str, init: usize, containers: usize) -> Pod {
    let list = |prefix: &str, count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({ "name": format!("{prefix}{n}"), "image": "img" })).collect()
    };
    of(json!({ "restartPolicy": policy, "initContainers": list("i", init), "containers": list("c", containers) }))
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

const WANTED: Want = Want { deletion: None, gone: false };

/// Plans and applies until nothing is left to do.
fn settle(pod: &Pod, want: &Want, state: &mut PodState, now: Timestamp) -> (Vec<Action>, Option<Timestamp>) {
    let mut actions = Vec::new();
    for _ in 0..16 {
        let plan = plan(pod, want, state, now);
        if plan.actions.is_empty() {
            return (actions, plan.wake);
        }
        for action in plan.actions {
            apply(state, &action, now);
            if action == Action::Forget {
                return (vec![action], None);
            }
            actions.push(action);
        }
        let ending = want.gone || want.deletion.is_some() || state.verdict.is_some();
        state.phase =
            Phase::parse(status(pod, state, ending, &PodStatus::default(), &NODE, now).phase.as_deref().unwrap());
    }
    panic!("does not settle: {actions:?} {state:?}");
}

fn run(state: &mut PodState, slot: Slot, now: Timestamp) {
    let container = state.container_mut(slot).unwrap();
    assert!(matches!(container.run, Run::Starting { .. }), "{:?}", container.run);
    container.attempts += 1;
    container.run = Run::Running(Live {
        identity: Identity::default(),
        asked: Some("img".to_owned()),
        resources: Given::Known(None),
        resize: None,
        started_at: now,
        probes: Probes::default(),
        hook_failed: false,
    });
}

fn exit(state: &mut PodState, slot: Slot, code: i32, now: Timestamp) {
    let container = state.container_mut(slot).unwrap();
    let restart = matches!(container.run, Run::Stopping { restart: true, .. });
    let reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
    let ended = Ended {
        identity: Identity::default(),
        code,
        reason,
        message: None,
        started_at: Some(now),
        finished_at: Some(now),
    };
    container.run = Run::Exited { ended, restart };
}

fn told(pod: &Pod, state: &PodState, now: Timestamp) -> Value {
    serde_json::to_value(status(pod, state, false, &PodStatus::default(), &NODE, now)).unwrap()
}

fn condition<'a>(status: &'a Value, type_: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == type_).unwrap()
}
