//! Init containers that restart always.

use std::time::Duration;

use super::*;

const FIRST: Slot = Slot::Init(0);
const SECOND: Slot = Slot::Init(1);
const MAIN: Slot = Slot::Main(0);

/// A sidecar, an ordinary init container or a second sidecar, a container.
fn pod_with(policy: &str, second: Value) -> (Pod, PodState) {
    let pod = of(json!({
        "restartPolicy": policy,
        "initContainers": [{ "name": "s0", "image": "img", "restartPolicy": "Always" }, second],
        "containers": [{ "name": "c0", "image": "img" }],
    }));
    let mut state = PodState::of(&pod);
    state.ground = Ground::Ready;
    (pod, state)
}

fn ordinary() -> Value {
    json!({ "name": "i1", "image": "img" })
}

fn another() -> Value {
    json!({ "name": "s1", "image": "img", "restartPolicy": "Always" })
}

fn probes(state: &mut PodState, slot: Slot) -> &mut Probes {
    &mut state.container_mut(slot).unwrap().run.live_mut().unwrap().probes
}

#[test]
fn the_next_container_waits_until_a_sidecar_has_started() {
    let (pod, mut state) = pod_with("Always", ordinary());
    assert_eq!(settle(&pod, &WANTED, &mut state, at(0)).0, [Action::Start { slot: FIRST }]);
    run(&mut state, FIRST, at(0));
    probes(&mut state, FIRST).startup = ProbeVerdict::Unknown;
    assert!(settle(&pod, &WANTED, &mut state, at(1)).0.is_empty(), "its startup probe has not passed");
    let status = told(&pod, &state, at(1));
    assert_eq!(status["phase"], "Pending");
    assert_eq!(condition(&status, "Initialized")["message"], "containers with incomplete status: [s0 i1]");
    probes(&mut state, FIRST).startup = ProbeVerdict::Passing;
    assert_eq!(settle(&pod, &WANTED, &mut state, at(2)).0, [Action::Start { slot: SECOND }]);
    let status = told(&pod, &state, at(2));
    assert_eq!(condition(&status, "Initialized")["message"], "containers with incomplete status: [i1]");
    run(&mut state, SECOND, at(2));
    exit(&mut state, SECOND, 0, at(3));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(3)).0, [Action::Start { slot: MAIN }]);
    run(&mut state, MAIN, at(3));
    let status = told(&pod, &state, at(3));
    assert_eq!((&status["phase"], &condition(&status, "Ready")["status"]), (&json!("Running"), &json!("True")));
    assert_eq!(status["initContainerStatuses"][0]["ready"], true);
    probes(&mut state, FIRST).readiness = ProbeVerdict::Failing;
    let status = told(&pod, &state, at(3));
    assert_eq!(condition(&status, "Ready")["message"], "containers with unready status: [s0]");
    assert_eq!(condition(&status, "Initialized")["status"], "True");
}

#[test]
fn a_sidecar_is_restarted_whatever_the_pod_s_policy_and_holds_nobody_up() {
    let (pod, mut state) = pod_with("Never", ordinary());
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, FIRST, at(0));
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, SECOND, at(0));
    exit(&mut state, FIRST, 1, at(1));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(1)).0, [Action::Start { slot: FIRST }]);
    exit(&mut state, SECOND, 0, at(1));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(1)).0, [Action::Start { slot: MAIN }]);
    run(&mut state, MAIN, at(1));
    run(&mut state, FIRST, at(1));
    exit(&mut state, FIRST, 0, at(2));
    assert!(matches!(&settle(&pod, &WANTED, &mut state, at(2)).0[..], [Action::HoldBack { slot: FIRST, .. }]));
    let status = told(&pod, &state, at(2));
    assert_eq!(status["phase"], "Running");
    assert_eq!(condition(&status, "Initialized")["status"], "True");
    assert_eq!(status["initContainerStatuses"][0]["restartCount"], 1);
}

#[test]
fn a_failed_liveness_probe_restarts_a_sidecar() {
    let (pod, mut state) = pod_with("Never", another());
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, FIRST, at(0));
    probes(&mut state, FIRST).liveness = ProbeVerdict::Failing;
    let actions = settle(&pod, &WANTED, &mut state, at(1)).0;
    let stop = |action: &Action| matches!(action, Action::Stop { slot: FIRST, message, restart: true, turn: true, .. } if message == "Init container s0 failed liveness probe");
    assert!(stop(&actions[0]), "{actions:?}");
    exit(&mut state, FIRST, 0, at(2));
    assert!(settle(&pod, &WANTED, &mut state, at(2)).0.contains(&Action::Start { slot: FIRST }));
}

#[test]
fn sidecars_end_after_the_containers_the_last_one_first() {
    let (pod, mut state) = pod_with("Never", another());
    for slot in [FIRST, SECOND, MAIN] {
        assert_eq!(settle(&pod, &WANTED, &mut state, at(0)).0, [Action::Start { slot }]);
        run(&mut state, slot, at(0));
    }
    exit(&mut state, MAIN, 0, at(1));
    assert_eq!(told(&pod, &state, at(1))["phase"], "Running", "sidecars have yet to be stopped");
    let actions = settle(&pod, &WANTED, &mut state, at(1)).0;
    let turns: Vec<(Slot, bool)> = actions
        .iter()
        .map(|action| match action {
            Action::Stop { slot, turn, restart: false, message, .. } if message.starts_with("Stopping container s") => {
                (*slot, *turn)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(turns, [(FIRST, false), (SECOND, true)]);
    exit(&mut state, SECOND, 143, at(2));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(2)).0, [Action::Turn { slot: FIRST }]);
    exit(&mut state, FIRST, 143, at(3));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(3)).0, [Action::TearDown]);
    let status = told(&pod, &state, at(3));
    assert_eq!(status["phase"], "Succeeded", "the ends of sidecars do not count");
    assert_eq!(status["initContainerStatuses"][1]["state"]["terminated"]["exitCode"], 143);
    assert_eq!(condition(&status, "Initialized")["reason"], "PodCompleted");
}

#[test]
fn a_deleted_pod_s_sidecars_are_told_at_once_and_signalled_in_turn() {
    let (pod, mut state) = pod_with("Always", another());
    for slot in [FIRST, SECOND, MAIN] {
        settle(&pod, &WANTED, &mut state, at(0));
        run(&mut state, slot, at(0));
    }
    let want = Want { deletion: Some(Deletion { deadline: at(30), grace: Duration::from_secs(30) }), gone: false };
    let actions = settle(&pod, &want, &mut state, at(0)).0;
    let turns: Vec<bool> = actions.iter().map(|action| matches!(action, Action::Stop { turn: true, .. })).collect();
    assert_eq!(turns, [false, false, true]);
    exit(&mut state, MAIN, 0, at(1));
    assert_eq!(settle(&pod, &want, &mut state, at(1)).0, [Action::Turn { slot: SECOND }]);
    exit(&mut state, SECOND, 0, at(2));
    assert_eq!(settle(&pod, &want, &mut state, at(2)).0, [Action::Turn { slot: FIRST }]);
    exit(&mut state, FIRST, 0, at(3));
    assert_eq!(settle(&pod, &want, &mut state, at(3)).0, [Action::TearDown]);
}
