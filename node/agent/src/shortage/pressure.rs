//! What a node tells of its being short, and whom it takes then.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Taint};
use wherry_reconcile::placement::tolerates;

use super::is_critical;

/// What a node is short of: its conditions MemoryPressure, DiskPressure, PIDPressure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

impl Pressure {
    fn parts(self) -> [bool; 3] {
        [self.memory, self.disk, self.pids]
    }

    /// The Events that tell of a change.
    pub(crate) fn events(self, before: Self) -> impl Iterator<Item = &'static str> {
        const TOLD: [[&str; 2]; 3] = [
            ["NodeHasSufficientMemory", "NodeHasInsufficientMemory"],
            ["NodeHasNoDiskPressure", "NodeHasDiskPressure"],
            ["NodeHasSufficientPID", "NodeHasInsufficientPID"],
        ];
        let changed = self.parts().into_iter().zip(before.parts()).zip(TOLD);
        changed.filter(|((now, before), _)| now != before).map(|((now, _), told)| told[usize::from(now)])
    }

    /// What is told of a Pod that the node does not take now, in kubelet's words; none of one that it takes. Short of memory it
    /// takes Pods that have said what they need.
    pub(crate) fn refusal(self, pod: &Pod) -> Option<String> {
        let names = ["MemoryPressure", "DiskPressure", "PIDPressure"];
        let on: Vec<&str> = names.into_iter().zip(self.parts()).filter(|(_, on)| *on).map(|(name, _)| name).collect();
        let taken = match on[..] {
            [] => true,
            ["MemoryPressure"] => !is_best_effort(pod) || tolerates_memory_pressure(pod),
            _ => false,
        };
        (!taken && !is_critical(pod)).then(|| format!("The node had condition: [{}]. ", on.join(" ")))
    }
}

fn is_best_effort(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) == Some("BestEffort")
}

fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/memory-pressure".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let spec = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    spec.into_iter().flatten().any(|toleration| tolerates(toleration, &taint))
}

/// What was seen when: a node is told to be short for a while longer than it is, so that Pods do not come and go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observed {
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
    pids: Option<Timestamp>,
}

impl Observed {
    /// What is told, `now` being what is seen and `hold` how long it is told after it was seen last.
    pub(crate) fn see(&mut self, seen: Pressure, now: Timestamp, hold: Duration) -> Pressure {
        let told = |last: &mut Option<Timestamp>, seen: bool| {
            if seen {
                *last = Some(now);
            }
            let since = last.map(|last| Duration::try_from(now.duration_since(last)).unwrap_or_default());
            seen || since.is_some_and(|since| since < hold)
        };
        Pressure {
            memory: told(&mut self.memory, seen.memory),
            disk: told(&mut self.disk, seen.disk),
            pids: told(&mut self.pids, seen.pids),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const MEMORY: Pressure = Pressure { memory: true, disk: false, pids: false };
    const DISK: Pressure = Pressure { memory: false, disk: true, pids: false };

    fn pod(class: &str, spec: Value) -> Pod {
        let mut whole = json!({ "spec": { "containers": [] }, "status": { "qosClass": class } });
        whole["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn who_is_taken_by_a_node_that_is_short() {
        let tolerates = |key: &str| json!({ "tolerations": [{ "key": key, "operator": "Exists" }] });
        let of_memory = tolerates("node.kubernetes.io/memory-pressure");
        let of_disk = tolerates("node.kubernetes.io/disk-pressure");
        let critical = json!({ "priority": 2_000_000_000 });
        for (pressure, class, spec, taken) in [
            (Pressure::default(), "BestEffort", json!({}), true),
            (MEMORY, "BestEffort", json!({}), false),
            (MEMORY, "BestEffort", of_memory.clone(), true),
            (MEMORY, "BestEffort", of_disk.clone(), false),
            (MEMORY, "BestEffort", critical.clone(), true),
            (MEMORY, "Burstable", json!({}), true),
            (DISK, "Guaranteed", json!({}), false),
            (DISK, "Guaranteed", of_disk, false),
            (DISK, "Guaranteed", critical, true),
            (Pressure { memory: true, ..DISK }, "BestEffort", of_memory, false),
        ] {
            assert_eq!(pressure.refusal(&pod(class, spec.clone())).is_none(), taken, "{pressure:?} {class} {spec}");
        }
        let told = Pressure { memory: true, ..DISK }.refusal(&pod("Burstable", json!({}))).unwrap();
        assert_eq!(told, "The node had condition: [MemoryPressure DiskPressure]. ");
    }

    #[test]
    fn each_change_is_told_once() {
        let told = |now: Pressure, before: Pressure| now.events(before).collect::<Vec<_>>();
        assert_eq!(told(MEMORY, DISK), ["NodeHasInsufficientMemory", "NodeHasNoDiskPressure"]);
        assert_eq!(told(MEMORY, MEMORY), Vec::<&str>::new());
    }

    proptest! {
        #[test]
        fn a_condition_outlasts_what_it_tells_of(looks in prop::collection::vec((1..100_i64, any::<bool>()), 1..40), hold in 0..200_u64) {
            let (mut observed, mut now, mut last) = (Observed::default(), 0, None);
            for (passed, seen) in looks {
                now += passed;
                if seen {
                    last = Some(now);
                }
                let at = Timestamp::from_second(now).unwrap();
                let told = observed.see(Pressure { memory: seen, ..Pressure::default() }, at, Duration::from_secs(hold));
                let wanted = seen || last.is_some_and(|last: i64| (now - last).unsigned_abs() < hold);
                prop_assert_eq!(told, Pressure { memory: wanted, ..Pressure::default() });
            }
        }
    }
}
