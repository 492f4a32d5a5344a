//! From the answers of all metrics to a size, and the conditions that explain it. Pure.

use k8s_openapi::{
    api::autoscaling::v2::{HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerStatus},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use super::behavior::{Limited, Memory};

/// The word of one metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    /// How many Pods it wants, and its name.
    Wants(i32, String),
    /// The reason and the message of why it wants nothing.
    Unknown(&'static str, String),
}

/// A size, and why.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Size {
    pub(super) replicas: i32,
    pub(super) reason: String,
    pub(super) conditions: Vec<(&'static str, bool, String, String)>,
}

/// The bounds of a size.
pub(super) fn bounds(hpa: &HorizontalPodAutoscaler) -> (i32, i32) {
    let (least, most) = (hpa.spec.min_replicas.unwrap_or(1), hpa.spec.max_replicas);
    (least, most.max(least))
}

/// Whether it has to be asked what the metrics say: not where somebody waits for the first Pod.
pub(super) fn needs_metrics(current: i32, waited: Option<&str>) -> bool {
    current > 0 || waited.is_none()
}

/// Decides on a size. Without a word of any metric, and where a metric that says nothing could have wanted more, it stays.
/// `waited`: the Service at which somebody waits for a Pod, where the target may sleep; then one is the least.
pub(super) fn size(
    hpa: &HorizontalPodAutoscaler,
    memory: &mut Memory,
    current: i32,
    words: &[Word],
    waited: Option<&str>,
    now: Timestamp,
) -> Size {
    let (least, most) = bounds(hpa);
    let mut size = Size { replicas: current, reason: String::new(), conditions: Vec::new() };
    if let Some(service) = waited.filter(|_| least == 0 && current == 0) {
        memory.wished(1, now);
        size.replicas = 1;
        size.reason = format!("a connection to Service {service} waits");
        return size;
    }
    let least = if waited.is_some() { least.max(1) } else { least };
    if current == 0 && least != 0 {
        let text = "scaling is disabled since the replica count of the target is zero";
        size.condition("ScalingActive", false, "ScalingDisabled", text);
        return size;
    }
    if !(least..=most).contains(&current) {
        let (replicas, reason) = if current > most {
            (most, "Current number of replicas above Spec.MaxReplicas")
        } else {
            (least, "Current number of replicas below Spec.MinReplicas")
        };
        size.replicas = replicas;
        reason.clone_into(&mut size.reason);
        return size;
    }
    let wanted = words.iter().filter_map(|word| match word {
        Word::Wants(replicas, name) => Some((*replicas, name)),
        Word::Unknown(..) => None,
    });
    let unknown = words.iter().find_map(|word| match word {
        Word::Unknown(reason, text) => Some((*reason, text)),
        Word::Wants(..) => None,
    });
    let most_wanted = wanted.max_by_key(|(replicas, _)| *replicas);
    let (wish, name) = match (most_wanted, unknown) {
        (None, None) => return size,
        (None, Some((reason, text))) => return size.stays(reason, text),
        // What is not known may have wanted more.
        (Some((wish, _)), Some((reason, text))) if wish < current => return size.stays(reason, text),
        (Some(found), _) => found,
    };
    let text = format!("the HPA was able to successfully calculate a replica count from {name}");
    size.condition("ScalingActive", true, "ValidMetricFound", &text);
    let Limited { replicas, limit, stabilized } =
        memory.limit(hpa.spec.behavior.as_ref(), current, wish.max(i32::from(waited.is_some())), (least, most), now);
    if let Some(reason) = stabilized {
        let text = match reason {
            "ScaleUpStabilized" => {
                "recent recommendations were lower than current one, applying the lowest recent recommendation"
            }
            _ => "recent recommendations were higher than current one, applying the highest recent recommendation",
        };
        size.condition("AbleToScale", true, reason, text);
    } else {
        size.condition("AbleToScale", true, "ReadyForNewScale", "recommended size matches current size");
    }
    match limit {
        Some((reason, text)) => size.condition("ScalingLimited", true, reason, &text),
        None => size.condition(
            "ScalingLimited",
            false,
            "DesiredWithinRange",
            "the desired count is within the acceptable range",
        ),
    }
    size.replicas = replicas;
    size.reason =
        if replicas > current { format!("{name} above target") } else { "All metrics below target".to_owned() };
    size
}

/// What is said where the words of all metrics together decide nothing.
pub(super) fn failure(words: &[Word], current: i32) -> Option<String> {
    let unknown = words.iter().filter_map(|word| match word {
        Word::Unknown(_, text) => Some(text),
        Word::Wants(..) => None,
    });
    let most = words.iter().filter_map(|word| match word {
        Word::Wants(replicas, _) => Some(*replicas),
        Word::Unknown(..) => None,
    });
    let (count, first) = (unknown.clone().count(), unknown.clone().next()?);
    let decided = most.max().is_some_and(|most| most >= current);
    let of = words.len();
    (!decided).then(|| format!("invalid metrics ({count} invalid out of {of}), first error is: {first}"))
}

impl Size {
    /// As it is, since a metric is not known.
    fn stays(mut self, reason: &str, why: &str) -> Self {
        let text = format!("the HPA was unable to compute the replica count: {why}");
        self.condition("ScalingActive", false, reason, &text);
        self
    }

    pub(super) fn condition(&mut self, kind: &'static str, value: bool, reason: &str, message: &str) {
        self.conditions.retain(|(known, ..)| *known != kind);
        self.conditions.push((kind, value, reason.to_owned(), message.to_owned()));
    }

    /// Puts the conditions into a status; one that stays keeps its time.
    pub(super) fn report(&self, status: &mut HorizontalPodAutoscalerStatus, now: Timestamp) {
        let all = status.conditions.get_or_insert_default();
        for (kind, value, reason, message) in &self.conditions {
            let value = if *value { "True" } else { "False" };
            let known = all.iter().position(|condition| condition.type_ == *kind);
            let since = known
                .map(|at| &all[at])
                .filter(|condition| condition.status == value)
                .and_then(|condition| condition.last_transition_time.clone());
            let condition = HorizontalPodAutoscalerCondition {
                type_: (*kind).to_owned(),
                status: value.to_owned(),
                reason: Some(reason.clone()),
                message: Some(message.clone()),
                last_transition_time: since.or(Some(Time(now))),
            };
            match known {
                Some(at) => all[at] = condition,
                None => all.push(condition),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn decide(current: i32, words: &[Word]) -> Size {
        let hpa: HorizontalPodAutoscaler = serde_json::from_value(json!({ "metadata": {}, "spec": {
            "minReplicas": 2, "maxReplicas": 10, "scaleTargetRef": { "kind": "Deployment", "name": "web" },
            "behavior": { "scaleDown": { "stabilizationWindowSeconds": 0 } },
        } }))
        .unwrap();
        size(&hpa, &mut Memory::default(), current, words, None, Timestamp::UNIX_EPOCH)
    }

    fn sleeper(window: i32) -> HorizontalPodAutoscaler {
        serde_json::from_value(json!({ "metadata": {}, "spec": {
            "minReplicas": 0, "maxReplicas": 3, "scaleTargetRef": { "kind": "Deployment", "name": "web" },
            "behavior": {
                "scaleUp": { "selectPolicy": "Disabled" }, "scaleDown": { "stabilizationWindowSeconds": window },
            },
        } }))
        .unwrap()
    }

    #[test]
    fn what_sleeps_wakes_for_whoever_waits() {
        let (hpa, mut memory) = (sleeper(60), Memory::default());
        let mut decide = |current, wish, waited, second| {
            let now = Timestamp::from_second(second).unwrap();
            size(&hpa, &mut memory, current, &[wants(wish)], waited, now)
        };
        assert_eq!(decide(0, 0, None, 0).replicas, 0, "nobody waits");
        let woken = decide(0, 0, Some("web"), 1);
        assert_eq!((woken.replicas, woken.reason.as_str()), (1, "a connection to Service web waits"));
        assert_eq!(decide(1, 0, Some("web"), 100).replicas, 1, "they are being served");
        assert_eq!(decide(1, 0, None, 130).replicas, 1, "the window after the last who waited");
        assert_eq!(decide(1, 0, None, 190).replicas, 0);
        assert!(!needs_metrics(0, Some("web")) && needs_metrics(1, Some("web")) && needs_metrics(0, None));
    }

    #[test]
    fn a_wake_is_a_wish() {
        let (hpa, mut memory) = (sleeper(60), Memory::default());
        let mut decide = |current, waited, second| {
            size(&hpa, &mut memory, current, &[wants(0)], waited, Timestamp::from_second(second).unwrap()).replicas
        };
        assert_eq!(decide(0, Some("web"), 0), 1);
        assert_eq!(decide(1, None, 15), 1, "whoever waited has come, and gone, meanwhile");
        assert_eq!(decide(1, None, 61), 0);
    }

    fn wants(replicas: i32) -> Word {
        Word::Wants(replicas, "cpu resource utilization (percentage of request)".to_owned())
    }

    #[test]
    fn the_greatest_wish_counts_within_the_bounds() {
        assert_eq!(decide(3, &[wants(4), wants(5)]).replicas, 5);
        assert_eq!(decide(3, &[wants(1)]).replicas, 2);
        assert_eq!(decide(1, &[]).reason, "Current number of replicas below Spec.MinReplicas");
        assert_eq!(decide(12, &[wants(12)]).replicas, 10);
        let disabled = decide(0, &[wants(5)]);
        assert_eq!((disabled.replicas, disabled.conditions[0].2.as_str()), (0, "ScalingDisabled"));
    }

    #[test]
    fn what_is_not_known_takes_nothing_away() {
        let unknown = Word::Unknown("FailedGetResourceMetric", "no".to_owned());
        assert_eq!(decide(5, &[wants(3), unknown.clone()]).replicas, 5);
        assert_eq!(decide(5, &[wants(6), unknown.clone()]).replicas, 6);
        let size = decide(5, std::slice::from_ref(&unknown));
        assert_eq!((size.replicas, size.conditions[0].1), (5, false));
        assert_eq!(size.conditions[0].3, "the HPA was unable to compute the replica count: no");
        let all = "invalid metrics (1 invalid out of 1), first error is: no";
        assert_eq!(failure(std::slice::from_ref(&unknown), 5).as_deref(), Some(all));
        let fewer = "invalid metrics (1 invalid out of 2), first error is: no";
        assert_eq!(failure(&[wants(3), unknown.clone()], 5).as_deref(), Some(fewer));
        assert_eq!(failure(&[wants(6), unknown], 5), None);
        let mut status = HorizontalPodAutoscalerStatus::default();
        size.report(&mut status, Timestamp::UNIX_EPOCH);
        let conditions = status.conditions.unwrap();
        assert_eq!(conditions[0].reason.as_deref(), Some("FailedGetResourceMetric"));
    }

    fn word() -> impl proptest::strategy::Strategy<Value = Word> {
        use proptest::prelude::*;
        prop_oneof![(0i32..30).prop_map(wants), Just(Word::Unknown("FailedGetResourceMetric", "no".to_owned())),]
    }

    proptest::proptest! {
        /// Without a memory and with default behavior going up is bounded by it, going down is not held back.
        #[test]
        fn a_size_is_within_its_bounds_and_moves_to_what_is_wanted_most(current in 0i32..15, words in proptest::collection::vec(word(), 0..4)) {
            let size = decide(current, &words);
            if current == 0 {
                proptest::prop_assert_eq!(size.replicas, 0, "scaled to zero by hand");
                return Ok(());
            }
            proptest::prop_assert!((2..=10).contains(&size.replicas));
            if !(2..=10).contains(&current) {
                return Ok(());
            }
            let known = words.iter().filter_map(|word| match word { Word::Wants(replicas, _) => Some(*replicas), Word::Unknown(..) => None });
            let most = known.max().map(|most| most.clamp(2, 10));
            let unknown = words.iter().any(|word| matches!(word, Word::Unknown(..)));
            match most {
                None => proptest::prop_assert_eq!(size.replicas, current),
                Some(most) if most < current && unknown => proptest::prop_assert_eq!(size.replicas, current),
                Some(most) if most <= current => proptest::prop_assert_eq!(size.replicas, most),
                Some(most) => proptest::prop_assert!(size.replicas > current && size.replicas <= most),
            }
        }
    }
}
