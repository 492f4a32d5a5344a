//! The lifecycle against tables and against a world that does what it likes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const NODE: NodeFacts = NodeFacts { host_ips: Vec::new() };

fn pod(policy: &str, init: usize, containers: usize) -> Pod {
    let list = |prefix: &str, count: usize| -> Vec<Value> {
        (0..count).map(|n| json!({ "name": format!("{prefix}{n}"), "image": "img" })).collect()
    };
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "generation": 1 },
        "spec": { "restartPolicy": policy, "initContainers": list("i", init), "containers": list("c", containers) },
    }))
    .unwrap()
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
        started_at: now,
        probes: Probes::default(),
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

#[test]
fn a_pod_starts_runs_and_is_ready() {
    let pod = pod("Always", 0, 1);
    let mut state = PodState::new(0, 1);
    assert_eq!(settle(&pod, &WANTED, &mut state, at(0)).0, [Action::SetUp]);
    let status = told(&pod, &state, at(0));
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(condition(&status, "Ready")["reason"], "ContainersNotReady");
    assert_eq!(condition(&status, "Ready")["message"], "containers with unready status: [c0]");
    assert_eq!(condition(&status, "PodReadyToStartContainers")["status"], "False");
    state.ground = Ground::Ready;
    assert_eq!(settle(&pod, &WANTED, &mut state, at(0)).0, [Action::Start { slot: Slot::Main(0) }]);
    run(&mut state, Slot::Main(0), at(1));
    assert!(settle(&pod, &WANTED, &mut state, at(1)).0.is_empty());
    let status = told(&pod, &state, at(1));
    assert_eq!(status["phase"], "Running");
    for type_ in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&status, type_)["status"], "True", "{type_}");
    }
    assert_eq!(status["containerStatuses"][0]["started"], true);
}

#[test]
fn crashes_restart_at_once_then_after_10_20_40_seconds_and_afresh_after_ten_good_minutes() {
    let pod = pod("Always", 0, 1);
    let mut state = PodState::new(0, 1);
    state.ground = Ground::Ready;
    let slot = Slot::Main(0);
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, slot, at(0));
    exit(&mut state, slot, 1, at(1));
    assert_eq!(
        settle(&pod, &WANTED, &mut state, at(1)).0,
        [Action::Start { slot }],
        "the first crash is not held back"
    );
    let mut now = 1;
    for (wait, text) in
        [(10, "10s"), (20, "20s"), (40, "40s"), (80, "1m20s"), (160, "2m40s"), (300, "5m0s"), (300, "5m0s")]
    {
        run(&mut state, slot, at(now));
        exit(&mut state, slot, 1, at(now));
        let (actions, wake) = settle(&pod, &WANTED, &mut state, at(now));
        assert!(matches!(&actions[..], [Action::HoldBack { .. }]), "{actions:?}");
        assert_eq!(wake, Some(at(now + wait)));
        let status = told(&pod, &state, at(now));
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(
            status["containerStatuses"][0]["state"]["waiting"]["message"],
            format!("back-off {text} restarting failed container=c0 pod=p_ns(u)")
        );
        assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
        assert!(settle(&pod, &WANTED, &mut state, at(now + wait - 1)).0.is_empty());
        now += wait;
        assert_eq!(settle(&pod, &WANTED, &mut state, at(now)).0, [Action::Start { slot }]);
    }
    run(&mut state, slot, at(now));
    assert_eq!(told(&pod, &state, at(now))["containerStatuses"][0]["restartCount"], 8);
    now += 601;
    exit(&mut state, slot, 1, at(now));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(now)).0, [Action::Start { slot }]);
}

#[test]
fn the_restart_policy_decides_and_the_phase_follows() {
    for (policy, code, restarts, phase) in [
        ("Always", 0, true, "Running"),
        ("Always", 1, true, "Running"),
        ("OnFailure", 0, false, "Succeeded"),
        ("OnFailure", 1, true, "Running"),
        ("Never", 0, false, "Succeeded"),
        ("Never", 1, false, "Failed"),
    ] {
        let pod = pod(policy, 0, 1);
        let mut state = PodState::new(0, 1);
        state.ground = Ground::Ready;
        settle(&pod, &WANTED, &mut state, at(0));
        run(&mut state, Slot::Main(0), at(0));
        exit(&mut state, Slot::Main(0), code, at(1));
        assert_eq!(told(&pod, &state, at(1))["phase"], phase, "{policy} {code}");
        let actions = settle(&pod, &WANTED, &mut state, at(1)).0;
        assert_eq!(actions.contains(&Action::Start { slot: Slot::Main(0) }), restarts, "{policy} {code}");
        assert_eq!(actions.contains(&Action::TearDown), !restarts, "{policy} {code}");
    }
}

#[test]
fn init_containers_run_one_by_one_and_a_failed_one_ends_a_pod_that_never_restarts() {
    let pod = pod("Never", 2, 1);
    let mut state = PodState::new(2, 1);
    state.ground = Ground::Ready;
    assert_eq!(settle(&pod, &WANTED, &mut state, at(0)).0, [Action::Start { slot: Slot::Init(0) }]);
    let status = told(&pod, &state, at(0));
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(condition(&status, "Initialized")["message"], "containers with incomplete status: [i0 i1]");
    run(&mut state, Slot::Init(0), at(0));
    assert!(settle(&pod, &WANTED, &mut state, at(0)).0.is_empty());
    exit(&mut state, Slot::Init(0), 0, at(1));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(1)).0, [Action::Start { slot: Slot::Init(1) }]);
    run(&mut state, Slot::Init(1), at(1));
    let mut failed = state.clone();
    exit(&mut failed, Slot::Init(1), 3, at(2));
    assert_eq!(told(&pod, &failed, at(2))["phase"], "Failed");
    exit(&mut state, Slot::Init(1), 0, at(2));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(2)).0, [Action::Start { slot: Slot::Main(0) }]);
}

#[test]
fn a_deleted_pod_stops_is_torn_down_reported_and_deleted_in_that_order() {
    let pod = pod("Always", 0, 1);
    let mut state = PodState::new(0, 1);
    state.ground = Ground::Ready;
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, Slot::Main(0), at(0));
    let want = Want { deletion: Some(Deletion { deadline: at(40), grace: Duration::from_secs(30) }), gone: false };
    let actions = settle(&pod, &want, &mut state, at(10)).0;
    assert!(
        matches!(&actions[..], [Action::Stop { deadline, message, .. }] if *deadline == at(40) && message == "Stopping container c0")
    );
    let sooner = Want { deletion: Some(Deletion { deadline: at(12), grace: Duration::from_secs(1) }), gone: false };
    assert!(
        matches!(&settle(&pod, &sooner, &mut state, at(11)).0[..], [Action::Stop { deadline, .. }] if *deadline == at(12))
    );
    exit(&mut state, Slot::Main(0), 0, at(12));
    assert_eq!(settle(&pod, &want, &mut state, at(12)).0, [Action::TearDown]);
    state.ground = Ground::Gone;
    assert!(settle(&pod, &want, &mut state, at(12)).0.is_empty());
    state.reported_end = true;
    assert_eq!(settle(&pod, &want, &mut state, at(12)).0, [Action::Delete]);
    assert_eq!(state.phase, Phase::Succeeded);
    assert_eq!(settle(&pod, &Want { gone: true, ..want }, &mut state, at(13)).0, [Action::Forget]);
}

#[test]
fn a_failed_liveness_probe_restarts_and_a_failed_readiness_probe_does_not() {
    let pod = pod("OnFailure", 0, 1);
    let mut state = PodState::new(0, 1);
    state.ground = Ground::Ready;
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, Slot::Main(0), at(0));
    state.containers[0].run.live_mut().unwrap().probes.readiness = ProbeVerdict::Failing;
    assert!(settle(&pod, &WANTED, &mut state, at(1)).0.is_empty());
    assert_eq!(told(&pod, &state, at(1))["containerStatuses"][0]["ready"], false);
    state.containers[0].run.live_mut().unwrap().probes.liveness = ProbeVerdict::Failing;
    let actions = settle(&pod, &WANTED, &mut state, at(1)).0;
    assert!(
        matches!(&actions[..], [Action::Stop { message, restart: true, .. }] if message == "Container c0 failed liveness probe, will be restarted")
    );
    // It ended well, and is started again all the same.
    exit(&mut state, Slot::Main(0), 0, at(2));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(2)).0, [Action::Start { slot: Slot::Main(0) }]);
}

#[test]
fn a_probe_that_ends_the_whole_pod_is_told_as_its_end() {
    for (containers, wanted) in [(1, "Stopping container c0"), (2, "Container c0 failed liveness probe")] {
        let pod = pod("Never", 0, containers);
        let mut state = PodState::new(0, containers);
        state.ground = Ground::Ready;
        settle(&pod, &WANTED, &mut state, at(0));
        for n in 0..containers {
            run(&mut state, Slot::Main(n), at(0));
        }
        state.containers[0].run.live_mut().unwrap().probes.liveness = ProbeVerdict::Failing;
        let actions = settle(&pod, &WANTED, &mut state, at(1)).0;
        assert!(
            matches!(&actions[..], [Action::Stop { message, restart: false, .. }] if message == wanted),
            "{actions:?}"
        );
    }
}

#[test]
fn another_image_restarts_the_container_that_has_it() {
    let mut pod = pod("Never", 0, 2);
    let mut state = PodState::new(0, 2);
    state.ground = Ground::Ready;
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, Slot::Main(0), at(0));
    run(&mut state, Slot::Main(1), at(0));
    pod.spec.as_mut().unwrap().containers[1].image = Some("other".to_owned());
    let actions = settle(&pod, &WANTED, &mut state, at(1)).0;
    assert!(
        matches!(&actions[..], [Action::Stop { slot: Slot::Main(1), message, .. }] if message == "Container c1 definition changed, will be restarted")
    );
    exit(&mut state, Slot::Main(1), 143, at(2));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(2)).0, [Action::Start { slot: Slot::Main(1) }]);
    assert_eq!(state.phase, Phase::Running);
}

#[test]
fn a_failed_pull_is_told_and_then_backed_off() {
    let why =
        Why { then: Some((at(1), Box::new(Why::new("ImagePullBackOff", "later")))), ..Why::new("ErrImagePull", "now") };
    let pod = pod("Always", 0, 1);
    let mut state = PodState::new(0, 1);
    state.ground = Ground::Ready;
    state.containers[0].run = Run::Waiting { why: Some(why), until: Some(at(10)) };
    let (actions, wake) = settle(&pod, &WANTED, &mut state, at(0));
    assert!(actions.is_empty());
    assert_eq!(wake, Some(at(1)));
    assert_eq!(told(&pod, &state, at(0))["containerStatuses"][0]["state"]["waiting"]["reason"], "ErrImagePull");
    assert_eq!(told(&pod, &state, at(1))["containerStatuses"][0]["state"]["waiting"]["reason"], "ImagePullBackOff");
    assert_eq!(settle(&pod, &WANTED, &mut state, at(10)).0, [Action::Start { slot: Slot::Main(0) }]);
    assert_eq!(told(&pod, &state, at(10))["containerStatuses"][0]["state"]["waiting"]["reason"], "ImagePullBackOff");
}

#[test]
fn a_deadline_ends_a_pod_as_failed() {
    let mut pod = pod("Always", 0, 1);
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(5);
    let mut state = PodState::new(0, 1);
    settle(&pod, &WANTED, &mut state, at(0));
    state.ground = Ground::Ready;
    assert_eq!(settle(&pod, &WANTED, &mut state, at(0)).1, Some(at(5)));
    run(&mut state, Slot::Main(0), at(1));
    let actions = settle(&pod, &WANTED, &mut state, at(5)).0;
    assert!(matches!(&actions[..], [Action::Fail(_), Action::Stop { .. }]), "{actions:?}");
    exit(&mut state, Slot::Main(0), 143, at(6));
    settle(&pod, &WANTED, &mut state, at(6));
    let status = serde_json::to_value(status(&pod, &state, true, &PodStatus::default(), &NODE, at(6))).unwrap();
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("DeadlineExceeded")));
}

#[test]
fn a_status_that_was_written_is_recovered() {
    let mut pod = pod("Always", 1, 2);
    let mut state = PodState::new(1, 2);
    state.ground = Ground::Ready;
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, Slot::Init(0), at(0));
    exit(&mut state, Slot::Init(0), 0, at(0));
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, Slot::Main(0), at(1));
    for container in &mut state.containers {
        if let Some(live) = container.run.live_mut() {
            live.identity.container_id = "wasmtime://x".to_owned();
        }
    }
    pod.status = Some(status(&pod, &state, false, &PodStatus::default(), &NODE, at(1)));
    let recovered = recover_status(&pod);
    assert_eq!(recovered.containers[0].attempts, 1);
    assert!(matches!(recovered.containers[0].run, Run::Running(_)));
    assert_eq!(recovered.containers[1].attempts, 0);
    assert!(matches!(&recovered.init[0].run, Run::Exited { ended, .. } if ended.code == 0));
}

/// What a world may do next.
#[derive(Clone, Debug)]
enum Happens {
    TimePasses(i64),
    Grounded(bool),
    Starts(usize, u8),
    Exits(usize, i32),
    ProbeFails(usize),
    Deleted(u64),
    Gone,
    Reported,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (0i64..400).prop_map(Happens::TimePasses),
        3 => any::<bool>().prop_map(Happens::Grounded),
        6 => (0usize..4, 0u8..6).prop_map(|(n, how)| Happens::Starts(n, how)),
        4 => (0usize..4, prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(n, code)| Happens::Exits(n, code)),
        1 => (0usize..4).prop_map(Happens::ProbeFails),
        1 => (0u64..40).prop_map(Happens::Deleted),
        1 => Just(Happens::Gone),
        2 => Just(Happens::Reported),
    ]
}

proptest! {
    #[test]
    fn no_world_breaks_the_rules(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        init in 0usize..3,
        mains in 1usize..3,
        story in proptest::collection::vec(happens(), 1..60),
    ) {
        let pod = pod(policy, init, mains);
        let mut state = PodState::new(init, mains);
        let mut want = WANTED;
        let mut now = 0;
        let mut live: BTreeSet<Slot> = BTreeSet::new();
        let mut initialised = 0;
        let mut restarts = vec![0; init + mains];
        let all: Vec<Slot> = (0..init).map(Slot::Init).chain((0..mains).map(Slot::Main)).collect();
        for event in story {
            match event {
                Happens::TimePasses(seconds) => now += seconds,
                Happens::Grounded(well) => match state.ground {
                    Ground::Making if well => state.ground = Ground::Ready,
                    Ground::Making => state.ground = Ground::Failed { retry_at: at(now + 10) },
                    Ground::Removing if well => state.ground = Ground::Gone,
                    Ground::Removing => state.ground = Ground::Stuck { retry_at: at(now + 10) },
                    _ => {}
                },
                Happens::Starts(n, how) => {
                    let slot = all[n % all.len()];
                    if matches!(state.container(slot).unwrap().run, Run::Starting { .. }) {
                        let container = state.container_mut(slot).unwrap();
                        match how {
                            0 => {
                                container.run = Run::Waiting { why: Some(Why::new("ErrImagePull", "")), until: Some(at(now + 10)) };
                                live.remove(&slot);
                            }
                            1 => {
                                container.run = Run::default();
                                live.remove(&slot);
                            }
                            2 => {
                                container.attempts += 1;
                                exit(&mut state, slot, 128, at(now));
                                live.remove(&slot);
                            }
                            _ => run(&mut state, slot, at(now)),
                        }
                    }
                }
                Happens::Exits(n, code) => {
                    let slot = all[n % all.len()];
                    if state.container(slot).unwrap().run.live().is_some() {
                        exit(&mut state, slot, code, at(now));
                        live.remove(&slot);
                        if matches!(slot, Slot::Init(n) if n == initialised) && code == 0 {
                            initialised += 1;
                        }
                    }
                }
                Happens::ProbeFails(n) => {
                    let slot = all[n % all.len()];
                    if let Some(live) = state.container_mut(slot).unwrap().run.live_mut() {
                        live.probes.liveness = ProbeVerdict::Failing;
                    }
                }
                Happens::Deleted(grace) => {
                    let grace = Duration::from_secs(grace);
                    want.deletion.get_or_insert(Deletion { deadline: add(at(now), grace), grace });
                }
                Happens::Gone => want.gone = true,
                Happens::Reported => {
                    let over = !state.is_live() && matches!(state.ground, Ground::Gone | Ground::Missing);
                    state.reported_end |= over && want.deletion.is_some();
                }
            }
            let phase = state.phase;
            let (actions, _) = settle(&pod, &want, &mut state, at(now));
            prop_assert!(!phase.is_terminal() || state.phase == phase, "a terminal phase was left");
            for action in actions {
                match action {
                    Action::Start { slot } => {
                        prop_assert!(live.insert(slot), "two live attempts of {slot:?}");
                        prop_assert!(want == WANTED, "a Pod that ends was started");
                        prop_assert!(!phase.is_terminal(), "a Pod that has ended was started");
                        match slot {
                            Slot::Init(n) => prop_assert_eq!(n, initialised),
                            Slot::Main(_) => prop_assert_eq!(init, initialised),
                        }
                    }
                    Action::TearDown | Action::Delete | Action::Forget => prop_assert!(live.is_empty(), "{action:?} with live containers"),
                    _ => {}
                }
                if action == Action::Delete {
                    prop_assert!(state.ground == Ground::Gone || state.ground == Ground::Missing);
                }
                if action == Action::Forget {
                    return Ok(());
                }
            }
            for (n, slot) in all.iter().enumerate() {
                let count = state.container(*slot).unwrap().restarts();
                prop_assert!(count >= restarts[n], "a restart count fell");
                restarts[n] = count;
            }
            let told = status(&pod, &state, want != WANTED, &PodStatus::default(), &NODE, at(now));
            prop_assert_eq!(told.container_statuses.unwrap().len(), mains);
        }
    }
}
