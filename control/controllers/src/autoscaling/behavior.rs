//! How fast a wish becomes a size: stabilization windows and rates. Pure.

use std::{collections::VecDeque, time::Duration};

use k8s_openapi::{
    api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior},
    jiff::Timestamp,
};

/// The longest window or period there is.
const LONGEST: Duration = Duration::from_secs(3600);

/// Something that was at a time.
type At<T> = (Timestamp, T);

/// What was wished and done lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    wishes: VecDeque<At<i32>>,
    ups: VecDeque<At<i32>>,
    downs: VecDeque<At<i32>>,
}

/// A limited wish, and what limited it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Limited {
    pub(super) replicas: i32,
    /// The condition ScalingLimited: reason and message, where something did.
    pub(super) limit: Option<(&'static str, String)>,
    /// A window held it: the reason of the condition AbleToScale.
    pub(super) stabilized: Option<&'static str>,
}

/// The rules of one direction, with upstream's defaults.
struct Rules {
    window: Duration,
    policies: Vec<HPAScalingPolicy>,
    select: String,
}

impl Rules {
    fn up(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Self {
        let policies = vec![policy("Pods", 4, 15), policy("Percent", 100, 15)];
        Self::of(behavior.and_then(|behavior| behavior.scale_up.as_ref()), 0, policies)
    }

    fn down(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Self {
        let policies = vec![policy("Percent", 100, 15)];
        Self::of(behavior.and_then(|behavior| behavior.scale_down.as_ref()), 300, policies)
    }

    fn of(rules: Option<&HPAScalingRules>, window: i32, policies: Vec<HPAScalingPolicy>) -> Self {
        let rules = rules.cloned().unwrap_or_default();
        let seconds = rules.stabilization_window_seconds.unwrap_or(window);
        Self {
            window: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
            policies: rules.policies.unwrap_or(policies),
            select: rules.select_policy.unwrap_or_else(|| "Max".to_owned()),
        }
    }
}

fn policy(kind: &str, value: i32, period_seconds: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds }
}

fn since<T: Copy>(list: &VecDeque<At<T>>, now: Timestamp, span: Duration) -> impl Iterator<Item = T> {
    let start = now.checked_sub(span).unwrap_or(now);
    list.iter().filter(move |(at, _)| *at > start).map(|(_, value)| *value)
}

fn forget<T>(list: &mut VecDeque<At<T>>, now: Timestamp) {
    let start = now.checked_sub(LONGEST).unwrap_or(now);
    while list.front().is_some_and(|(at, _)| *at < start) {
        list.pop_front();
    }
}

impl Memory {
    /// Limits a wish at a time.
    pub(super) fn limit(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        current: i32,
        wish: i32,
        (least, most): (i32, i32),
        now: Timestamp,
    ) -> Limited {
        let (up, down) = (Rules::up(behavior), Rules::down(behavior));
        for list in [&mut self.wishes, &mut self.ups, &mut self.downs] {
            forget(list, now);
        }
        if self.wishes.is_empty() {
            // What was wished before this memory began is not known: it has led to the size that is there.
            self.wishes.push_back((now, current));
        }
        // Up to the least that was wished of late, down to the most.
        let floor = since(&self.wishes, now, up.window).fold(wish, i32::min);
        let ceiling = since(&self.wishes, now, down.window).fold(wish, i32::max);
        self.wishes.push_back((now, wish));
        let stable = if current < floor {
            floor
        } else if current > ceiling {
            ceiling
        } else {
            current
        };
        let stabilized = match wish.cmp(&stable) {
            std::cmp::Ordering::Greater => Some("ScaleUpStabilized"),
            std::cmp::Ordering::Less => Some("ScaleDownStabilized"),
            std::cmp::Ordering::Equal => None,
        };
        let (replicas, limit) = if stable > current {
            let rate = self.most(&up, current, now).max(current);
            at_most(stable, rate, most)
        } else if stable < current {
            let rate = self.fewest(&down, current, now).min(current);
            at_least(stable, rate, least)
        } else {
            (stable.clamp(least, most), None)
        };
        Limited { replicas, limit, stabilized }
    }

    /// Notes a wish that needs no limits.
    pub(super) fn wished(&mut self, replicas: i32, now: Timestamp) {
        self.wishes.push_back((now, replicas));
    }

    /// Notes that a size was set.
    pub(super) fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        match to - from {
            more if more > 0 => self.ups.push_back((now, more)),
            fewer if fewer < 0 => self.downs.push_back((now, -fewer)),
            _ => {}
        }
    }

    /// The most Pods that the rates allow.
    fn most(&self, rules: &Rules, current: i32, now: Timestamp) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.start(policy, current, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_add(policy.value),
                _ => portion(start, 100_i64.saturating_add(policy.value.into()), true),
            }
        });
        match rules.select.as_str() {
            "Disabled" => current,
            "Min" => limits.min().unwrap_or(current),
            _ => limits.max().unwrap_or(current),
        }
    }

    /// The fewest.
    fn fewest(&self, rules: &Rules, current: i32, now: Timestamp) -> i32 {
        let limits = rules.policies.iter().map(|policy| {
            let start = self.start(policy, current, now);
            match policy.type_.as_str() {
                "Pods" => start.saturating_sub(policy.value),
                _ => portion(start, 100_i64.saturating_sub(policy.value.into()), true),
            }
        });
        match rules.select.as_str() {
            "Disabled" => current,
            "Min" => limits.max().unwrap_or(current),
            _ => limits.min().unwrap_or(current),
        }
    }

    /// How many Pods there were when a policy's period began.
    fn start(&self, policy: &HPAScalingPolicy, current: i32, now: Timestamp) -> i32 {
        let period = Duration::from_secs(u64::try_from(policy.period_seconds).unwrap_or(0));
        let added: i32 = since(&self.ups, now, period).sum();
        let removed: i32 = since(&self.downs, now, period).sum();
        current - added + removed
    }
}

fn portion(of: i32, percent: i64, up: bool) -> i32 {
    let product = i64::from(of) * percent;
    i32::try_from(if up { (product + 99).div_euclid(100) } else { product.div_euclid(100) }).unwrap_or(i32::MAX)
}

fn at_most(wish: i32, rate: i32, most: i32) -> (i32, Option<(&'static str, String)>) {
    if wish > rate.min(most) {
        if rate < most {
            return (
                rate,
                Some((
                    "ScaleUpLimit",
                    "the desired replica count is increasing faster than the maximum scale rate".to_owned(),
                )),
            );
        }
        return (
            most,
            Some(("TooManyReplicas", "the desired replica count is more than the maximum replica count".to_owned())),
        );
    }
    (wish, None)
}

fn at_least(wish: i32, rate: i32, least: i32) -> (i32, Option<(&'static str, String)>) {
    if wish < rate.max(least) {
        if rate > least {
            return (
                rate,
                Some((
                    "ScaleDownLimit",
                    "the desired replica count is decreasing faster than the maximum scale rate".to_owned(),
                )),
            );
        }
        return (
            least,
            Some(("TooFewReplicas", "the desired replica count is less than the minimum replica count".to_owned())),
        );
    }
    (wish, None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn more_at_once_fewer_after_a_while() {
        let mut memory = Memory::default();
        let mut size = 2;
        let mut step = |wish, second| {
            let limited = memory.limit(None, size, wish, (1, 100), at(second));
            memory.scaled(size, limited.replicas, at(second));
            size = limited.replicas;
            (size, limited.limit.map(|limit| limit.0), limited.stabilized)
        };
        assert_eq!(step(50, 0), (6, Some("ScaleUpLimit"), None), "four more in a quarter of a minute");
        assert_eq!(step(50, 15), (12, Some("ScaleUpLimit"), None), "or twice as many");
        assert_eq!(step(3, 30), (12, None, Some("ScaleDownStabilized")));
        assert_eq!(step(3, 316), (3, None, None), "five minutes after the last greater wish");
        assert_eq!(step(0, 317), (3, None, Some("ScaleDownStabilized")));
        assert_eq!(step(0, 700), (1, Some("TooFewReplicas"), None));
    }

    #[test]
    fn policies_are_selected() {
        let behavior = |select: &str| -> HorizontalPodAutoscalerBehavior {
            serde_json::from_value(json!({ "scaleDown": { "stabilizationWindowSeconds": 0, "selectPolicy": select, "policies": [
                { "type": "Pods", "value": 1, "periodSeconds": 60 }, { "type": "Percent", "value": 50, "periodSeconds": 60 },
            ] } }))
            .unwrap()
        };
        for (select, expected) in [("Max", 5), ("Min", 9), ("Disabled", 10)] {
            let limited = Memory::default().limit(Some(&behavior(select)), 10, 1, (1, 20), at(0));
            assert_eq!(limited.replicas, expected, "{select}");
        }
    }

    proptest! {
        #[test]
        fn stays_within_its_bounds(wishes in prop::collection::vec((0i32..60, 1i64..200), 0..40)) {
            let mut memory = Memory::default();
            let (mut size, mut now) = (5, 0);
            let mut sizes = vec![(i64::MIN, size)];
            for (wish, passed) in wishes {
                now += passed;
                let limited = memory.limit(None, size, wish, (2, 30), at(now));
                prop_assert!((2..=30).contains(&limited.replicas));
                // Four more, or twice as many, as there were a quarter of a minute ago.
                let start = sizes.iter().rev().find(|(at, _)| *at <= now - 15).map_or(5, |(_, size)| *size);
                prop_assert!(limited.replicas <= size.max(start + 4).max(2 * start));
                memory.scaled(size, limited.replicas, at(now));
                size = limited.replicas;
                sizes.push((now, size));
            }
        }
    }
}
