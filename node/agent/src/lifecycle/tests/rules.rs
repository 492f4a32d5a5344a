//! Restart policies and rules of single containers.

use super::*;

fn container(extra: Value) -> Value {
    let mut container = json!({ "name": "c0", "image": "img" });
    container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    container
}

fn rule(action: &str, operator: &str, values: &[i32]) -> Value {
    json!({ "action": action, "exitCodes": { "operator": operator, "values": values } })
}

/// What a Pod of this container does and tells once the container has exited.
fn ends(policy: &str, extra: Value, code: i32) -> (bool, String) {
    let pod = of(json!({ "restartPolicy": policy, "containers": [container(extra)] }));
    let mut state = PodState::of(&pod);
    state.ground = Ground::Ready;
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, Slot::Main(0), at(0));
    exit(&mut state, Slot::Main(0), code, at(1));
    let phase = told(&pod, &state, at(1))["phase"].as_str().unwrap().to_owned();
    (settle(&pod, &WANTED, &mut state, at(1)).0.contains(&Action::Start { slot: Slot::Main(0) }), phase)
}

#[test]
fn a_container_s_own_policy_and_rules_come_before_its_pod_s() {
    for (pod, extra, code, restarts, phase) in [
        ("Never", json!({ "restartPolicy": "Always" }), 0, true, "Running"),
        ("Never", json!({ "restartPolicy": "OnFailure" }), 0, false, "Succeeded"),
        ("Never", json!({ "restartPolicy": "OnFailure" }), 3, true, "Running"),
        ("Always", json!({ "restartPolicy": "Never" }), 3, false, "Failed"),
        (
            "Never",
            json!({ "restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "In", &[42])] }),
            42,
            true,
            "Running",
        ),
        (
            "Never",
            json!({ "restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "In", &[42])] }),
            1,
            false,
            "Failed",
        ),
        (
            "Never",
            json!({ "restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "NotIn", &[42])] }),
            1,
            true,
            "Running",
        ),
        (
            "Never",
            json!({ "restartPolicy": "Never", "restartPolicyRules": [rule("Restart", "NotIn", &[42])] }),
            42,
            false,
            "Failed",
        ),
    ] {
        assert_eq!(ends(pod, extra.clone(), code), (restarts, phase.to_owned()), "{pod} {extra} {code}");
    }
}

#[test]
fn an_init_container_s_own_policy_ends_the_pod_or_tries_again() {
    for (pod_policy, own, restarts, phase) in
        [("Always", "Never", false, "Failed"), ("Never", "OnFailure", true, "Pending")]
    {
        let pod = of(json!({
            "restartPolicy": pod_policy,
            "initContainers": [{ "name": "i0", "image": "img", "restartPolicy": own }],
            "containers": [{ "name": "c0", "image": "img" }],
        }));
        let mut state = PodState::of(&pod);
        state.ground = Ground::Ready;
        settle(&pod, &WANTED, &mut state, at(0));
        run(&mut state, Slot::Init(0), at(0));
        exit(&mut state, Slot::Init(0), 1, at(1));
        assert_eq!(told(&pod, &state, at(1))["phase"], phase, "{own}");
        let actions = settle(&pod, &WANTED, &mut state, at(1)).0;
        assert_eq!(actions.contains(&Action::Start { slot: Slot::Init(0) }), restarts, "{own}");
    }
}

#[test]
fn a_rule_may_begin_the_whole_pod_anew() {
    let (init, main, other) = (Slot::Init(0), Slot::Main(0), Slot::Main(1));
    let pod = of(json!({
        "restartPolicy": "Never",
        "initContainers": [{ "name": "i0", "image": "img" }],
        "containers": [
            container(json!({ "restartPolicy": "Never", "restartPolicyRules": [rule("RestartAllContainers", "In", &[88])] })),
            { "name": "c1", "image": "img" },
        ],
    }));
    let mut state = PodState::of(&pod);
    state.ground = Ground::Ready;
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, init, at(0));
    exit(&mut state, init, 0, at(0));
    settle(&pod, &WANTED, &mut state, at(0));
    run(&mut state, main, at(0));
    run(&mut state, other, at(0));
    settle(&pod, &WANTED, &mut state, at(0));
    assert_eq!(condition(&told(&pod, &state, at(0)), "AllContainersRestarting")["status"], "False");
    exit(&mut state, main, 88, at(1));
    let actions = settle(&pod, &WANTED, &mut state, at(1)).0;
    let is_abrupt =
        |action: &Action| matches!(action, Action::Stop { slot, deadline, .. } if *slot == other && *deadline == at(1));
    assert!(actions[0] == Action::RestartAll { slot: main } && is_abrupt(&actions[1]), "{actions:?}");
    let status = told(&pod, &state, at(1));
    assert_eq!(condition(&status, "AllContainersRestarting")["status"], "True");
    assert_eq!(status["phase"], "Running");
    exit(&mut state, other, 137, at(2));
    assert_eq!(settle(&pod, &WANTED, &mut state, at(2)).0, [Action::Renew, Action::Start { slot: init }]);
    let status = told(&pod, &state, at(2));
    assert_eq!(condition(&status, "AllContainersRestarting")["status"], "False");
    assert_eq!(status["phase"], "Running", "it has run before");
    assert_eq!(condition(&status, "Initialized")["status"], "False");
    assert_eq!(status["containerStatuses"][1]["state"]["waiting"]["reason"], "PodInitializing");
    run(&mut state, init, at(3));
    exit(&mut state, init, 0, at(4));
    assert_eq!(
        settle(&pod, &WANTED, &mut state, at(4)).0,
        [Action::Start { slot: main }, Action::Start { slot: other }]
    );
    run(&mut state, main, at(4));
    run(&mut state, other, at(4));
    let status = told(&pod, &state, at(4));
    for name in ["initContainerStatuses", "containerStatuses"] {
        assert_eq!(status[name][0]["restartCount"], 1, "{name}");
    }
    exit(&mut state, main, 0, at(5));
    exit(&mut state, other, 0, at(5));
    assert_eq!(told(&pod, &state, at(5))["phase"], "Succeeded");
}
