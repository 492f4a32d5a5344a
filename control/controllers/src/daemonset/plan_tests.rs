//! Updates on imagined nodes, step by step.
#![allow(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::{
    api::core::v1::{PodCondition, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::api::ObjectMeta;
use proptest::prelude::*;

use super::*;

fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
    Arc::new(Pod {
        metadata: ObjectMeta {
            name: Some(name.into()),
            uid: Some(name.into()),
            labels: Some([("hash".to_owned(), hash.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { node_name: Some(node.into()), ..PodSpec::default() }),
        status: Some(PodStatus {
            phase: Some("Running".into()),
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: if ready { "True" } else { "False" }.into(),
                last_transition_time: Some(Time(Timestamp::UNIX_EPOCH)),
                ..PodCondition::default()
            }]),
            ..PodStatus::default()
        }),
    })
}

fn is_new(pod: &Pod) -> bool {
    pod.metadata.labels.as_ref().is_some_and(|labels| labels["hash"] == "new")
}

fn rules(rolling: Option<Bounds>) -> Rules<'static> {
    Rules { rolling, min_ready_seconds: 0, now: Timestamp::UNIX_EPOCH, is_updated: &is_new }
}

fn places(pods: &[Vec<Arc<Pod>>]) -> Places {
    let fit = Fit { run: true, stay: true };
    pods.iter()
        .enumerate()
        .map(|(n, pods)| (format!("n{n}"), Place { fit, pods: pods.clone(), exists: true }))
        .collect()
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect()
}

#[test]
fn one_pod_a_node() {
    let mut all = places(&[vec![], vec![pod("a", "n1", "new", true), pod("b", "n1", "new", true)], vec![], vec![]]);
    all.get_mut("n2").unwrap().fit = Fit::default();
    *all.get_mut("n3").unwrap() =
        Place { fit: Fit { run: false, stay: true }, pods: vec![pod("c", "n3", "new", true)], exists: true };
    let lost = Pod { spec: None, ..Pod::clone(&pod("d", "", "new", false)) };
    all.insert("gone".into(), Place { fit: Fit::default(), pods: vec![Arc::new(lost)], exists: false });
    let plan = plan(&all, &rules(None));
    assert_eq!(plan.create, ["n0"]);
    assert_eq!(names(&plan.delete), ["d", "b"], "by the names of their nodes");
}

#[test]
fn on_delete_waits_for_the_deletion() {
    let old = places(&[vec![pod("a", "n0", "old", true)]]);
    assert!(plan(&old, &rules(None)).is_empty());
}

/// Carries a plan out: what is deleted goes at once, what is created is ready or not.
fn carry_out(all: &mut Places, plan: &Plan, ready: bool, made: &mut usize) {
    for place in all.values_mut() {
        place.pods.retain(|pod| !plan.delete.iter().any(|gone| Arc::ptr_eq(gone, pod)));
    }
    for node in &plan.create {
        *made += 1;
        all.get_mut(node).unwrap().pods.push(pod(&format!("made-{made}"), node, "new", ready));
    }
}

fn make_ready(all: &mut Places) {
    for place in all.values_mut() {
        for pod in &mut place.pods {
            let mut changed = Pod::clone(pod);
            changed.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "True".into();
            *pod = Arc::new(changed);
        }
    }
}

proptest! {
    #[test]
    fn an_update_ends_and_keeps_its_bounds(
        nodes in 1usize..12, unavailable in 1usize..5, surge in 0usize..5, slow in prop::collection::vec(any::<bool>(), 200),
    ) {
        let bounds = if surge > 0 { Bounds { unavailable: 0, surge } } else { Bounds { unavailable, surge: 0 } };
        let rules = rules(Some(bounds));
        let mut all = places(&(0..nodes).map(|n| vec![pod(&format!("old-{n}"), &format!("n{n}"), "old", true)]).collect::<Vec<_>>());
        let mut made = 0;
        let mut slow = slow.into_iter();
        for _ in 0..200 {
            let step = plan(&all, &rules);
            if step.is_empty() {
                if all.values().all(|place| place.pods.iter().all(|pod| pods::is_ready(pod))) {
                    break;
                }
                make_ready(&mut all);
                continue;
            }
            carry_out(&mut all, &step, !slow.next().unwrap_or(false), &mut made);
            let available = all.values().filter(|place| place.pods.iter().any(|pod| pods::is_ready(pod))).count();
            prop_assert!(nodes - available <= bounds.unavailable, "{available} of {nodes}");
            let doubled = all.values().filter(|place| place.pods.len() > 1).count();
            prop_assert!(doubled <= bounds.surge);
            prop_assert!(all.values().all(|place| place.pods.len() <= 2));
        }
        for place in all.values() {
            prop_assert_eq!(place.pods.len(), 1);
            prop_assert!(is_new(&place.pods[0]));
        }
        prop_assert_eq!(made, nodes, "each node's Pod is replaced once");
    }
}
