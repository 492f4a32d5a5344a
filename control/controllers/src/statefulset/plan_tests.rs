//! StatefulSets in an imagined cluster, step by step.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::{
    api::core::v1::{PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::api::ObjectMeta;
use proptest::prelude::*;

use super::*;
use crate::history::HASH;

type Existing = BTreeMap<i32, Arc<Pod>>;

fn pod(ordinal: i32, revision: &str, ready: bool) -> Arc<Pod> {
    let ready = PodCondition {
        type_: "Ready".into(),
        status: if ready { "True" } else { "False" }.into(),
        last_transition_time: Some(Time(Timestamp::UNIX_EPOCH)),
        ..PodCondition::default()
    };
    Arc::new(Pod {
        metadata: ObjectMeta {
            name: Some(format!("web-{ordinal}")),
            labels: Some([(HASH.to_owned(), revision.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: None,
        status: Some(PodStatus {
            phase: Some("Running".into()),
            conditions: Some(vec![ready]),
            ..PodStatus::default()
        }),
    })
}

fn deleting(pod: &Pod) -> Arc<Pod> {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    Arc::new(pod)
}

fn goal(ordinals: Range<i32>, parallel: bool) -> Goal<'static> {
    let update = Some(Update { from: 0, unavailable: 1 });
    Goal { ordinals, parallel, min_ready_seconds: 0, update, newest: "new", now: Timestamp::UNIX_EPOCH }
}

fn of(pods: &[(i32, &str, bool)]) -> Existing {
    pods.iter().map(|(n, revision, ready)| (*n, pod(*n, revision, *ready))).collect()
}

#[test]
fn one_after_the_other() {
    let goal = goal(0..3, false);
    assert_eq!(plan(&goal, &of(&[])).steps, [Step::Create { ordinal: 0, newest: true }]);
    assert_eq!(plan(&goal, &of(&[(0, "new", false)])), Plan::default());
    assert_eq!(plan(&goal, &of(&[(0, "new", true)])).steps, [Step::Create { ordinal: 1, newest: true }]);
    let gap = of(&[(0, "new", true), (2, "new", false)]);
    assert_eq!(plan(&goal, &gap).steps, [Step::Create { ordinal: 1, newest: true }], "a lost Pod comes first");
}

#[test]
fn shrinking_begins_at_the_end_and_halts_at_the_unhealthy() {
    let goal = goal(0..1, false);
    let three = of(&[(0, "new", true), (1, "new", true), (2, "new", true)]);
    assert_eq!(plan(&goal, &three).steps, [Step::Delete(three[&2].clone())]);
    let mut ending = three.clone();
    ending.insert(2, deleting(&three[&2]));
    assert_eq!(plan(&goal, &ending), Plan::default());
    let broken = of(&[(0, "new", false), (1, "new", true), (2, "new", true)]);
    assert_eq!(plan(&goal, &broken), Plan::default());
    let unhealthy = of(&[(0, "new", true), (1, "new", false), (2, "new", false)]);
    assert_eq!(plan(&goal, &unhealthy), Plan::default(), "the one before it is to come back first");
}

#[test]
fn partitions_keep_the_old_revision() {
    let mut goal = goal(0..3, false);
    goal.update = Some(Update { from: 2, unavailable: 1 });
    let old = of(&[(0, "old", true), (1, "old", true), (2, "old", true)]);
    assert_eq!(plan(&goal, &old).steps, [Step::Delete(old[&2].clone())]);
    let done = of(&[(0, "old", true), (1, "old", true), (2, "new", true)]);
    assert_eq!(plan(&goal, &done), Plan::default());
    let lost = of(&[(0, "old", true), (2, "new", true)]);
    assert_eq!(plan(&goal, &lost).steps, [Step::Create { ordinal: 1, newest: false }]);
    goal.update = None;
    assert_eq!(plan(&goal, &lost).steps, [Step::Create { ordinal: 1, newest: true }], "OnDelete");
}

proptest! {
    #[test]
    fn gets_there_within_its_bounds(
        before in 0i32..6, first in 0i32..3, replicas in 0i32..6, parallel in any::<bool>(), unavailable in 1usize..4,
        events in prop::collection::vec((any::<u8>(), any::<u8>()), 0..30),
    ) {
        let mut goal = goal(first..first + replicas, parallel);
        goal.update = Some(Update { from: 0, unavailable });
        let mut all: Existing = (0..before).map(|n| (n, pod(n, "old", true))).collect();
        let mut events = events.into_iter();
        for _ in 0..300 {
            let healthy_before = all.range(goal.ordinals.clone()).filter(|(_, pod)| is_healthy(&goal, pod)).count();
            let step = plan(&goal, &all);
            prop_assert!(parallel || step.steps.len() <= 1 || step.steps.iter().all(|step| matches!(step, Step::Delete(_))));
            let updating = step.steps.iter().filter(|step| match step {
                Step::Delete(pod) => all.iter().any(|(n, known)| Arc::ptr_eq(known, pod) && goal.ordinals.contains(n)),
                _ => false,
            });
            if updating.count() > 0 {
                let wanted = all.range(goal.ordinals.clone()).count();
                let gone = step.steps.iter().filter(|s| matches!(s, Step::Delete(pod) if is_healthy(&goal, pod))).count();
                prop_assert!(wanted <= healthy_before - gone + unavailable || gone == 0);
            }
            for step in &step.steps {
                match step {
                    Step::Create { ordinal, newest } => {
                        prop_assert!(!all.contains_key(ordinal), "two of one name");
                        all.insert(*ordinal, pod(*ordinal, if *newest { "new" } else { "old" }, false));
                    }
                    Step::Delete(gone) | Step::Replace(gone) => {
                        let n = *all.iter().find(|(_, known)| Arc::ptr_eq(known, gone)).unwrap().0;
                        all.insert(n, deleting(gone));
                    }
                }
            }
            // Something happens in the cluster: a Pod goes, or comes up, or breaks.
            let ordinals: Vec<i32> = all.keys().copied().collect();
            match events.next().filter(|_| !ordinals.is_empty()) {
                Some((n, what)) => {
                    let n = ordinals[usize::from(n) % ordinals.len()];
                    match what % 4 {
                        0 if pods::is_deleting(&all[&n]) => { all.remove(&n); }
                        1 => { all.remove(&n); }
                        2 if !pods::is_deleting(&all[&n]) => { let r = revision(&all[&n]).to_owned(); all.insert(n, pod(n, &r, true)); }
                        3 if !pods::is_deleting(&all[&n]) => { let r = revision(&all[&n]).to_owned(); all.insert(n, pod(n, &r, false)); }
                        _ => {}
                    }
                }
                None => {
                    all.retain(|_, pod| !pods::is_deleting(pod));
                    for n in ordinals {
                        if let Some(known) = all.get(&n) {
                            let revision = revision(known).to_owned();
                            all.insert(n, pod(n, &revision, true));
                        }
                    }
                }
            }
        }
        prop_assert_eq!(all.keys().copied().collect::<Vec<_>>(), goal.ordinals.clone().collect::<Vec<_>>());
        prop_assert!(all.values().all(|pod| revision(pod) == "new" && is_healthy(&goal, pod)));
    }
}
