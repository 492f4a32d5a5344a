//! From what Pods use to how many there should be. Pure.
//!
//! A Pod of which nothing is known, or that is not ready yet, is counted with what is most careful: for more Pods as if it used
//! nothing, for fewer as if it used what it asked for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use crate::{counts::saturate, pods};

/// How long after its start a Pod's CPU may be that of starting.
const STARTING: Duration = Duration::from_secs(300);
/// A Pod that was unready since less than this after its start was never ready.
const FIRST_READY: Duration = Duration::from_secs(30);

/// What one Pod used, in thousandths, at a time and over a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    pub(super) milli: i64,
    pub(super) at: Timestamp,
    pub(super) window: Duration,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Aim {
    /// Percent of what Pods request.
    Utilization(i32),
    /// Thousandths on average.
    Average(i64),
}

/// How far from the aim is near enough: for fewer, for more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerance {
    pub(super) down: f64,
    pub(super) up: f64,
}

impl Tolerance {
    pub(super) fn is_near(self, ratio: f64) -> bool {
        ratio >= 1.0 - self.down && ratio <= 1.0 + self.up
    }
}

/// A question to the samples.
pub(super) struct Question<'a> {
    pub(super) cpu: bool,
    pub(super) aim: Aim,
    pub(super) current: i32,
    pub(super) tolerance: Tolerance,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) usage: &'a BTreeMap<String, Usage>,
    /// What a Pod requests, in thousandths; an error says which does not.
    pub(super) request: &'a (dyn Fn(&Pod) -> Result<i64, String> + Sync),
    pub(super) now: Timestamp,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) replicas: i32,
    /// Percent of the requests, where that is aimed at.
    pub(super) utilization: Option<i32>,
    /// Thousandths on average.
    pub(super) average: i64,
}

#[derive(Default)]
struct Groups<'a> {
    measured: BTreeMap<&'a str, i64>,
    unready: Vec<&'a str>,
    missing: Vec<&'a str>,
}

impl Question<'_> {
    fn groups(&self) -> Groups<'_> {
        let mut groups = Groups::default();
        for pod in self.pods.iter().filter(|pod| !pods::is_deleting(pod) && pods::phase(pod) != "Failed") {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match self.usage.get(name) {
                _ if pods::phase(pod) == "Pending" => groups.unready.push(name),
                None => groups.missing.push(name),
                Some(usage) if self.cpu && self.is_starting(pod, usage) => groups.unready.push(name),
                Some(usage) => {
                    groups.measured.insert(name, usage.milli);
                }
            }
        }
        groups
    }

    /// Whether the CPU that a Pod used is not that of its work.
    fn is_starting(&self, pod: &Pod, usage: &Usage) -> bool {
        let start = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(ready), Some(start)) = (pods::condition(pod, "Ready"), start) else { return true };
        let changed = ready.last_transition_time.as_ref().map_or(start.0, |time| time.0);
        let after = |time: Timestamp, by: Duration| time.checked_add(by).unwrap_or(time);
        if after(start.0, STARTING) > self.now {
            return ready.status == "False" || usage.at < after(changed, usage.window);
        }
        ready.status == "False" && after(start.0, FIRST_READY) > changed
    }

    /// Usage to aim, of these Pods; and the utilization.
    fn ratio(&self, measured: &BTreeMap<&str, i64>) -> Result<(f64, Option<i32>), String> {
        let used: i64 = measured.values().sum();
        match self.aim {
            Aim::Average(milli) => Ok((used as f64 / measured.len().max(1) as f64 / milli.max(1) as f64, None)),
            Aim::Utilization(percent) => {
                let requested = self.requests(measured)?;
                if requested == 0 {
                    return Err("no metrics returned matched known pods".to_owned());
                }
                let utilization = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
                Ok((f64::from(utilization) / f64::from(percent.max(1)), Some(utilization)))
            }
        }
    }

    fn requests(&self, of: &BTreeMap<&str, i64>) -> Result<i64, String> {
        let named = self.pods.iter().filter(|pod| of.contains_key(pod.metadata.name.as_deref().unwrap_or_default()));
        named.map(|pod| (self.request)(pod)).sum()
    }

    fn request_of(&self, name: &str) -> i64 {
        let pod = self.pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name));
        pod.and_then(|pod| (self.request)(pod).ok()).unwrap_or(0)
    }

    /// How many Pods there should be.
    pub(super) fn answer(&self) -> Result<Answer, String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let Groups { mut measured, unready, missing } = self.groups();
        if measured.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
        }
        let ready = saturate(measured.len());
        let average = measured.values().sum::<i64>() / i64::from(ready);
        let (ratio, utilization) = self.ratio(&measured)?;
        let answer = |replicas| Ok(Answer { replicas, utilization, average });
        let more_with_unready = !unready.is_empty() && ratio > 1.0;
        if !more_with_unready && missing.is_empty() {
            return answer(if self.tolerance.is_near(ratio) { self.current } else { ceil(ratio * f64::from(ready)) });
        }
        for name in missing {
            let assumed = match (ratio < 1.0, self.aim) {
                (false, _) => 0,
                (true, Aim::Average(milli)) => milli,
                (true, Aim::Utilization(percent)) => self.request_of(name) * i64::from(percent.max(100)) / 100,
            };
            measured.insert(name, assumed);
        }
        if more_with_unready {
            measured.extend(unready.into_iter().map(|name| (name, 0)));
        }
        let (careful, _) = self.ratio(&measured)?;
        let turned = (ratio < 1.0 && careful > 1.0) || (ratio > 1.0 && careful < 1.0);
        let replicas = ceil(careful * measured.len() as f64);
        let contrary = (careful < 1.0 && replicas > self.current) || (careful > 1.0 && replicas < self.current);
        answer(if self.tolerance.is_near(careful) || turned || contrary { self.current } else { replicas })
    }
}

/// Up to whole Pods.
pub(super) fn ceil(replicas: f64) -> i32 {
    // Thousandths of sums and quotients do not come out even.
    (replicas - 1e-9).ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str) -> Arc<Pod> {
        let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:05Z" });
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name },
                "status": { "phase": phase, "startTime": "2026-01-01T00:00:00Z", "conditions": [ready] },
            }))
            .unwrap(),
        )
    }

    fn ask(pods: &[Arc<Pod>], used: &[(&str, i64)], aim: Aim) -> Result<Answer, String> {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let window = Duration::from_secs(15);
        let usage = used.iter().map(|(name, milli)| ((*name).to_owned(), Usage { milli: *milli, at: now, window }));
        let usage = usage.collect();
        let question = Question {
            cpu: true,
            aim,
            current: saturate(pods.len()),
            tolerance: Tolerance { down: 0.1, up: 0.1 },
            pods,
            usage: &usage,
            request: &|_| Ok(1000),
            now,
        };
        question.answer()
    }

    #[test]
    fn as_upstreams_examples_have_it() {
        let three = [pod("a", "Running"), pod("b", "Running"), pod("c", "Running")];
        let up = ask(&three, &[("a", 300), ("b", 500), ("c", 700)], Aim::Utilization(30)).unwrap();
        assert_eq!(up, Answer { replicas: 5, utilization: Some(50), average: 500 });
        let near = ask(&three, &[("a", 300), ("b", 300), ("c", 320)], Aim::Utilization(30)).unwrap();
        assert_eq!(near.replicas, 3);
        let down = ask(&three, &[("a", 100), ("b", 100), ("c", 100)], Aim::Average(300)).unwrap();
        assert_eq!(down.replicas, 1);
        // One says nothing: for fewer it is taken to use what it asked for.
        let unsure = ask(&three, &[("a", 100), ("b", 100)], Aim::Utilization(30)).unwrap();
        assert_eq!(unsure.replicas, 3);
        let pending = [pod("a", "Running"), pod("b", "Pending")];
        assert_eq!(ask(&pending, &[("a", 600)], Aim::Utilization(30)).unwrap().replicas, 2);
        assert!(ask(&three, &[], Aim::Utilization(30)).is_err());
    }

    proptest! {
        #[test]
        fn never_against_what_was_measured(used in prop::collection::vec(0i64..2000, 1..10), aim in 1i32..150) {
            let names: Vec<String> = (0..used.len()).map(|n| format!("p{n}")).collect();
            let pods: Vec<_> = names.iter().map(|name| pod(name, "Running")).collect();
            let used: Vec<_> = names.iter().map(String::as_str).zip(used).collect();
            let answer = ask(&pods, &used, Aim::Utilization(aim)).unwrap();
            let current = saturate(pods.len());
            match answer.utilization.unwrap().cmp(&aim) {
                std::cmp::Ordering::Less => prop_assert!(answer.replicas <= current),
                std::cmp::Ordering::Greater => prop_assert!(answer.replicas >= current),
                std::cmp::Ordering::Equal => prop_assert_eq!(answer.replicas, current),
            }
        }
    }
}
