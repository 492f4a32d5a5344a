//! The ordinary course of a Pod's life.

use std::time::Duration;

use super::*;

#[test]
fn a_pod_starts_runs_and_is_ready() {
    let pod = pod("Always", 0, 1);
    let mut state = PodState::of(&pod);
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
    let mut state = PodState::of(&pod);
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
        let mut state = PodState::of(&pod);
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
    let mut state = PodState::of(&pod);
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
    let mut state = PodState::of(&pod);
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
    let mut state = PodState::of(&pod);
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
        let mut state = PodState::of(&pod);
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
    let mut state = PodState::of(&pod);
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
    let mut state = PodState::of(&pod);
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
    let mut state = PodState::of(&pod);
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
    let mut state = PodState::of(&pod);
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

#[test]
fn ephemeral_containers_keep_their_places_whatever_the_patch() {
    let with = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|name| json!({ "name": name, "image": "img" })).collect();
        of(json!({ "containers": [{ "name": "c0", "image": "img" }], "ephemeralContainers": list }))
    };
    let ordered = in_known_order(std::sync::Arc::new(with(&["d", "b", "c", "a"])), &with(&["a", "b"]));
    let names: Vec<&str> = (0..4).map(|n| name(&ordered, Slot::Ephemeral(n))).collect();
    assert_eq!(names, ["a", "b", "d", "c"]);
}

#[test]
fn the_containers_of_a_pod_share_twelve_kilobytes_for_their_messages() {
    for (containers, share) in [(1, 4096), (3, 4096), (4, 3072), (5, 2457)] {
        let pod = pod("Never", 0, containers);
        let mut state = PodState::of(&pod);
        state.ground = Ground::Ready;
        settle(&pod, &WANTED, &mut state, at(0));
        for n in 0..containers {
            run(&mut state, Slot::Main(n), at(0));
            exit(&mut state, Slot::Main(n), 1, at(1));
            let Run::Exited { ended, .. } = &mut state.container_mut(Slot::Main(n)).unwrap().run else { panic!() };
            ended.message = Some("x".repeat(4096));
        }
        let status = told(&pod, &state, at(1));
        for n in 0..containers {
            let message = status["containerStatuses"][n]["state"]["terminated"]["message"].as_str().unwrap();
            assert_eq!(message.len(), share, "{containers} containers");
        }
    }
}
