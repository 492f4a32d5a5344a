//! How many Pods a ReplicaSet lacks, and which ones it can best do without.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use crate::{hand::BURST, pods};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What to do to get from the Pods there are to the wanted number.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Decides for a ReplicaSet that has the `active` Pods. `related` are all Pods of the ReplicaSets that the same owner
/// controls, asked for only where Pods have to go: a node that holds many of them is relieved first.
pub(super) fn plan(
    wanted: usize,
    active: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Plan {
    match active.len().cmp(&wanted) {
        Ordering::Equal => Plan::Nothing,
        Ordering::Less => Plan::Create((wanted - active.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = (active.len() - wanted).min(BURST);
            Plan::Delete(least_missed(active, &related(), now).into_iter().take(surplus).collect())
        }
    }
}

/// The Pods in the order in which they should go.
pub(crate) fn least_missed(active: &[Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) -> Vec<Arc<Pod>> {
    let mut neighbours: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pods::is_active(pod)) {
        *neighbours.entry(pods::node_of(pod).unwrap_or_default()).or_default() += 1;
    }
    let mut ranked: Vec<(Rank, &Arc<Pod>)> = active.iter().map(|pod| (Rank::of(pod, &neighbours, now), pod)).collect();
    ranked.sort_by(|(a, _), (b, _)| a.cmp(b));
    ranked.into_iter().map(|(_, pod)| pod.clone()).collect()
}

/// Compared field by field, in the order of upstream's rules; the smaller goes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    /// Unassigned before assigned.
    assigned: bool,
    /// Pending before Unknown before Running.
    phase: u8,
    /// Not ready before ready.
    ready: bool,
    /// The cheaper before the dearer.
    cost: i32,
    /// The one with more neighbours on its node before the one with fewer.
    alone: std::cmp::Reverse<usize>,
    /// Ready for a shorter time first, on a logarithmic scale, so that no generation of Pods is always the victim.
    ready_for: i64,
    /// More restarts before fewer.
    restarts: std::cmp::Reverse<i32>,
    /// Younger before older, on the same scale.
    age: i64,
    /// Anything, as long as it is always the same.
    uid: &'a str,
}

impl<'a> Rank<'a> {
    fn of(pod: &'a Pod, neighbours: &HashMap<&str, usize>, now: Timestamp) -> Self {
        let node = pods::node_of(pod).unwrap_or_default();
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self {
            assigned: !node.is_empty(),
            phase: match pods::phase(pod) {
                "Running" => 2,
                "Unknown" => 1,
                _ => 0,
            },
            ready: pods::is_ready(pod),
            cost: deletion_cost(pod),
            alone: std::cmp::Reverse(neighbours.get(node).copied().unwrap_or(0)),
            ready_for: pods::ready_since(pod).map_or(-1, |since| magnitude(since, now)),
            restarts: std::cmp::Reverse(pods::restarts(pod)),
            age: created.map_or(-1, |created| magnitude(created, now)),
            uid: pod.metadata.uid.as_deref().unwrap_or_default(),
        }
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// The binary logarithm of the time that has passed.
fn magnitude(since: Timestamp, now: Timestamp) -> i64 {
    let passed = now.duration_since(since).as_nanos();
    u128::try_from(passed).ok().and_then(|passed| passed.checked_ilog2()).map_or(-1, i64::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use k8s_openapi::{
        api::core::v1::{ContainerStatus, PodCondition, PodSpec, PodStatus},
        apimachinery::pkg::apis::meta::v1::Time,
    };
    use kube::api::ObjectMeta;
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn pod(name: &str, node: &str, phase: &str, ready_at: Option<i64>, created: i64) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                uid: Some(name.into()),
                creation_timestamp: Some(Time(at(created))),
                ..Default::default()
            },
            spec: Some(PodSpec { node_name: Some(node.into()), ..Default::default() }),
            status: Some(PodStatus {
                phase: Some(phase.into()),
                conditions: ready_at.map(|second| {
                    vec![PodCondition {
                        type_: "Ready".into(),
                        status: "True".into(),
                        last_transition_time: Some(Time(at(second))),
                        ..Default::default()
                    }]
                }),
                ..Default::default()
            }),
        }
    }

    fn order(pods: Vec<Pod>, related: &[Arc<Pod>]) -> Vec<String> {
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        least_missed(&pods, related, at(10_000)).iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
    }

    #[test]
    fn each_rule_decides_where_all_before_it_are_equal() {
        let mut costly = pod("costly", "n", "Running", Some(0), 0);
        costly.metadata.annotations = Some([(DELETION_COST.to_owned(), "10".to_owned())].into());
        let mut restarted = pod("restarted", "n", "Running", Some(0), 0);
        restarted.status.as_mut().unwrap().container_statuses =
            Some(vec![ContainerStatus { restart_count: 3, ..Default::default() }]);
        let pods = vec![
            costly,
            pod("old", "n", "Running", Some(0), 0),
            restarted,
            pod("recently-ready", "n", "Running", Some(9_000), 0),
            pod("unready", "n", "Running", None, 0),
            pod("pending", "n", "Pending", None, 0),
            pod("unassigned", "", "Pending", None, 0),
        ];
        let expected = ["unassigned", "pending", "unready", "recently-ready", "restarted", "old", "costly"];
        assert_eq!(order(pods, &[]), expected);
    }

    #[test]
    fn crowded_nodes_are_relieved_first() {
        let pods = vec![pod("alone", "a", "Running", Some(9_000), 0), pod("crowded", "b", "Running", Some(0), 0)];
        let related = [
            Arc::new(pod("x", "b", "Running", None, 0)),
            Arc::new(pod("y", "b", "Running", None, 0)),
            Arc::new(pod("z", "a", "Running", None, 0)),
        ];
        assert_eq!(order(pods, &related), ["crowded", "alone"]);
    }

    proptest! {
        #[test]
        fn never_overshoots(wanted in 0usize..700, have in 0usize..700) {
            let pods: Vec<_> = (0..have).map(|n| Arc::new(pod(&n.to_string(), "n", "Running", None, 0))).collect();
            match plan(wanted, &pods, Vec::new, at(10_000)) {
                Plan::Nothing => prop_assert_eq!(wanted, have),
                Plan::Create(count) => prop_assert!(count <= BURST && have + count <= wanted && count > 0),
                Plan::Delete(victims) => prop_assert!(victims.len() <= BURST && have - victims.len() >= wanted && !victims.is_empty()),
            }
        }

        /// Whatever the order in which the Pods are known.
        #[test]
        fn who_serves_stays_longest(
            pods in prop::collection::vec((0usize..3, 0usize..3, prop::option::of(0i64..9_000), 0i64..9_000), 1..20),
            wanted in 0usize..20, turn in 0usize..20,
        ) {
            let make = |(n, (node, phase, ready, created)): (usize, &(usize, usize, Option<i64>, i64))| {
                let (node, phase) = (["", "a", "b"][*node], ["Pending", "Unknown", "Running"][*phase]);
                Arc::new(pod(&format!("p{n}"), node, phase, *ready, *created))
            };
            let mut all: Vec<_> = pods.iter().enumerate().map(make).collect();
            let Plan::Delete(victims) = plan(wanted, &all, || all.clone(), at(10_000)) else {
                prop_assert!(all.len() <= wanted);
                return Ok(());
            };
            let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect::<Vec<_>>();
            let gone = names(&victims);
            let worth = |pod: &Pod| {
                let phase = ["Pending", "Unknown", "Running"].iter().position(|phase| *phase == pods::phase(pod));
                (pods::node_of(pod).is_some(), phase, pods::is_ready(pod))
            };
            for survivor in all.iter().filter(|pod| !gone.contains(pod.metadata.name.as_ref().unwrap())) {
                prop_assert!(victims.iter().all(|victim| worth(victim) <= worth(survivor)));
            }
            let turn = turn % all.len();
            all.rotate_left(turn);
            let Plan::Delete(again) = plan(wanted, &all, || all.clone(), at(10_000)) else { panic!("another decision") };
            prop_assert_eq!(names(&again), gone);
        }
    }
}
