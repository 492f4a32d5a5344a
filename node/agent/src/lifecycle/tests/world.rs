//! A world that does what it likes breaks none of the rules.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

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
        sidecars in proptest::collection::vec(any::<bool>(), 3),
        story in proptest::collection::vec(happens(), 1..60),
    ) {
        let mut pod = pod(policy, init, mains);
        for (container, sidecar) in pod.spec.as_mut().unwrap().init_containers.iter_mut().flatten().zip(&sidecars) {
            container.restart_policy = sidecar.then(|| "Always".to_owned());
        }
        let mut state = PodState::of(&pod);
        let mut want = WANTED;
        let mut now = 0;
        let mut live: BTreeSet<Slot> = BTreeSet::new();
        // Ordinary init containers that have ended well.
        let mut done = BTreeSet::new();
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
                        if matches!(slot, Slot::Init(n) if !sidecars[n]) && code == 0 {
                            done.insert(slot);
                        }
                    }
                }
                Happens::ProbeFails(n) => {
                    let slot = all[n % all.len()];
                    // No ordinary init container has probes: validation refuses them.
                    let has_none = matches!(slot, Slot::Init(n) if !sidecars[n]);
                    if let Some(live) = state.container_mut(slot).unwrap().run.live_mut().filter(|_| !has_none) {
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
                        prop_assert!(!done.contains(&slot), "an init container that is done was started");
                        let before = if let Slot::Init(n) = slot { n } else { init };
                        let missing = (0..before).filter(|n| !sidecars[*n] && !done.contains(&Slot::Init(*n))).count();
                        prop_assert_eq!(missing, 0, "{:?} did not wait", slot);
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
