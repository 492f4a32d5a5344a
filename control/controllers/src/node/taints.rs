//! What a Node's condition Ready means for Pods: taints, and for how long a Pod tolerates them. Pure.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Node, Pod, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use wherry_reconcile::nodes::condition;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
pub(super) const NO_EXECUTE: &str = "NoExecute";

/// Condition, the value that is bad, and the taint that keeps new Pods away.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The taints that a Node should have. Those that others put there stay; ours follow its conditions. `evict` adds the
/// NoExecute taints, which make Pods leave.
pub(super) fn wanted(node: &Node, evict: bool, now: Timestamp) -> Vec<Taint> {
    let spec = node.spec.clone().unwrap_or_default();
    let existing = spec.taints.unwrap_or_default();
    let ready = match condition(node, "Ready") {
        Some("True") => None,
        Some("False") => Some(NOT_READY),
        // Never heard of, or not any more.
        Some(_) => Some(UNREACHABLE),
        None => Some(NOT_READY),
    };
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    wanted.extend(ready.map(|key| (key, NO_SCHEDULE)));
    wanted.extend(ready.filter(|_| evict).map(|key| (key, NO_EXECUTE)));
    for (kind, key) in PRESSURES {
        if condition(node, kind) == Some("True") {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if spec.unschedulable == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> = existing.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            taints.push(Taint {
                key: (*key).to_owned(),
                effect: (*effect).to_owned(),
                value: None,
                // From here on the Pods' tolerations run out.
                time_added: (*effect == NO_EXECUTE).then_some(Time(now)),
            });
        }
    }
    taints
}

fn is_ours(taint: &Taint) -> bool {
    let ready = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
    let pressure = PRESSURES.iter().any(|(_, key)| taint.key == *key) || taint.key == UNSCHEDULABLE;
    ready || (pressure && taint.effect == NO_SCHEDULE)
}

/// When a Pod has to leave a node with these taints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// It may stay for good.
    Forever,
    /// It leaves after this time; zero is now.
    For(Duration),
}

/// How long a Pod tolerates its node's NoExecute taints: each from the moment it was added, the shortest counts.
pub(super) fn stay(taints: &[Taint], pod: &Pod, now: Timestamp) -> Stay {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut stay = Stay::Forever;
    for taint in taints.iter().filter(|taint| taint.effect == NO_EXECUTE) {
        let tolerating: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if tolerating.is_empty() {
            return Stay::For(Duration::ZERO);
        }
        let Some(seconds) = tolerating.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let since = taint.time_added.as_ref().map_or(now, |time| time.0);
        let left = seconds.max(0).saturating_mul(1000) - now.duration_since(since).as_millis() as i64;
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        stay = match stay {
            Stay::Forever => Stay::For(left),
            Stay::For(known) => Stay::For(known.min(left)),
        };
    }
    stay
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let matches = |wanted: &Option<String>, value: &str| match wanted.as_deref() {
        None | Some("") => true,
        Some(wanted) => wanted == value,
    };
    matches(&toleration.effect, &taint.effect)
        && matches(&toleration.key, &taint.key)
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use k8s_openapi::api::core::v1::{NodeCondition, NodeSpec, NodeStatus, PodSpec};

    use super::*;

    fn node(ready: Option<&str>, taints: Vec<Taint>) -> Node {
        Node {
            spec: Some(NodeSpec { taints: Some(taints), ..Default::default() }),
            status: Some(NodeStatus {
                conditions: ready.map(|status| {
                    vec![NodeCondition { type_: "Ready".into(), status: status.into(), ..Default::default() }]
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn names(taints: &[Taint]) -> Vec<(&str, &str)> {
        taints.iter().map(|taint| (&*taint.key, &*taint.effect)).collect()
    }

    #[test]
    fn taints_follow_the_condition_and_spare_others() {
        let foreign = Taint { key: "gpu".into(), effect: NO_SCHEDULE.into(), ..Default::default() };
        let lost = wanted(&node(Some("Unknown"), vec![foreign.clone()]), true, at(5));
        assert_eq!(names(&lost), [("gpu", NO_SCHEDULE), (UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]);
        assert_eq!(lost[2].time_added, Some(Time(at(5))));
        let still = wanted(&node(Some("Unknown"), lost.clone()), true, at(9));
        assert_eq!(still, lost, "the clock of a taint is not restarted");
        let back = wanted(&node(Some("True"), lost.clone()), true, at(10));
        assert_eq!(back, [foreign]);
        assert_eq!(names(&wanted(&node(Some("False"), Vec::new()), false, at(0))), [(NOT_READY, NO_SCHEDULE)]);
    }

    #[test]
    fn the_shortest_toleration_counts() {
        let taint = |key: &str, second| Taint {
            key: key.into(),
            effect: NO_EXECUTE.into(),
            value: None,
            time_added: Some(Time(at(second))),
        };
        let pod = |tolerations: &[(&str, Option<i64>)]| Pod {
            spec: Some(PodSpec {
                tolerations: Some(
                    tolerations
                        .iter()
                        .map(|(key, seconds)| Toleration {
                            key: Some((*key).into()),
                            operator: Some("Exists".into()),
                            toleration_seconds: *seconds,
                            ..Default::default()
                        })
                        .collect(),
                ),
                ..Default::default()
            }),
            ..Default::default()
        };
        let lost = [taint(UNREACHABLE, 100)];
        assert_eq!(stay(&lost, &pod(&[]), at(100)), Stay::For(Duration::ZERO));
        assert_eq!(stay(&lost, &pod(&[(UNREACHABLE, None)]), at(900)), Stay::Forever);
        let usual = pod(&[(NOT_READY, Some(300)), (UNREACHABLE, Some(300))]);
        assert_eq!(stay(&lost, &usual, at(150)), Stay::For(Duration::from_secs(250)));
        assert_eq!(stay(&lost, &usual, at(500)), Stay::For(Duration::ZERO));
        assert_eq!(stay(&[], &pod(&[]), at(0)), Stay::Forever);
    }

    proptest::proptest! {
        #[test]
        fn ours_follow_the_conditions_and_the_rest_stays(
            ready in 0usize..4, pressures in proptest::collection::vec(proptest::bool::ANY, 4),
            cordoned in proptest::bool::ANY, evict in proptest::bool::ANY, had in proptest::collection::vec((0usize..8, proptest::bool::ANY), 0..6),
        ) {
            let keys = [NOT_READY, UNREACHABLE, UNSCHEDULABLE, PRESSURES[0].1, PRESSURES[1].1, PRESSURES[2].1, PRESSURES[3].1, "gpu"];
            let had: std::collections::BTreeSet<_> = had.into_iter().collect();
            let taints = had.into_iter().map(|(key, executes)| Taint {
                key: keys[key].into(),
                effect: if executes { NO_EXECUTE } else { NO_SCHEDULE }.into(),
                value: None,
                time_added: executes.then(|| Time(at(1))),
            });
            let status = [None, Some("True"), Some("False"), Some("Unknown")][ready];
            let mut node = node(status, taints.collect());
            node.spec.as_mut().unwrap().unschedulable = Some(cordoned);
            let conditions = node.status.as_mut().unwrap().conditions.get_or_insert_default();
            conditions.extend(PRESSURES.iter().zip(&pressures).map(|((kind, _), there)| NodeCondition {
                type_: (*kind).into(),
                status: if *there { "True" } else { "False" }.into(),
                ..Default::default()
            }));
            let found = wanted(&node, evict, at(9));
            let existing = node.spec.clone().unwrap().taints.unwrap();
            let foreign = |taints: &[Taint]| taints.iter().filter(|taint| !is_ours(taint)).cloned().collect::<Vec<_>>();
            proptest::prop_assert_eq!(foreign(&found), foreign(&existing), "others' stay, in their order");
            let has = |key: &str, effect: &str| found.iter().filter(|taint| taint.key == key && taint.effect == effect).count();
            let lost = [Some(NOT_READY), None, Some(NOT_READY), Some(UNREACHABLE)][ready];
            for key in [NOT_READY, UNREACHABLE] {
                proptest::prop_assert_eq!(has(key, NO_SCHEDULE), usize::from(lost == Some(key)));
                proptest::prop_assert_eq!(has(key, NO_EXECUTE), usize::from(lost == Some(key) && evict));
            }
            for ((_, key), there) in PRESSURES.iter().zip(&pressures) {
                proptest::prop_assert_eq!(has(key, NO_SCHEDULE), usize::from(*there));
            }
            proptest::prop_assert_eq!(has(UNSCHEDULABLE, NO_SCHEDULE), usize::from(cordoned));
            let kept = existing.iter().filter(|taint| found.iter().any(|f| f.key == taint.key && f.effect == taint.effect));
            proptest::prop_assert!(kept.clone().all(|taint| found.contains(taint)), "no clock is set back");
            node.spec.as_mut().unwrap().taints = Some(found.clone());
            proptest::prop_assert_eq!(wanted(&node, evict, at(20)), found, "once is enough");
        }

        #[test]
        fn a_pod_stays_as_long_as_it_tolerates_all(
            taints in proptest::collection::vec((0usize..3, 0i64..50), 0..4),
            tolerations in proptest::collection::vec((0usize..3, proptest::option::of(-5i64..60)), 0..5),
            now in 50i64..60,
        ) {
            let keys = ["a", "b", "c"];
            let taints: Vec<_> = taints.into_iter().map(|(key, since)| Taint {
                key: keys[key].into(), effect: NO_EXECUTE.into(), value: None, time_added: Some(Time(at(since))),
            }).collect();
            let of = |(key, seconds): &(usize, Option<i64>)| Toleration {
                key: Some(keys[*key].into()), operator: Some("Exists".into()), toleration_seconds: *seconds, ..Default::default()
            };
            let pod = Pod {
                spec: Some(PodSpec { tolerations: Some(tolerations.iter().map(of).collect()), ..Default::default() }),
                ..Default::default()
            };
            // Second by second: may it still be there?
            let may = |second: i64| taints.iter().all(|taint| {
                let mut for_it = tolerations.iter().filter(|(key, _)| keys[*key] == taint.key).map(|(_, seconds)| *seconds).peekable();
                let since = taint.time_added.as_ref().unwrap().0.as_second();
                for_it.peek().is_some() && for_it.flatten().all(|seconds| second < since + seconds.max(0))
            });
            let leaves = (now..now + 200).find(|second| !may(*second));
            let expected = leaves.map_or(Stay::Forever, |second| Stay::For(Duration::from_secs((second - now) as u64)));
            proptest::prop_assert_eq!(stay(&taints, &pod, at(now)), expected);
        }
    }
}
