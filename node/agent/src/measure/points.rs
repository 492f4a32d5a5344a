//! Counts (CPU time, requests, connections) at a few moments of the past, so that a rate can be told.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// A rate is over this time where it can be.
const WINDOW: Duration = Duration::from_secs(10);
/// It is never over less.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
/// What is older says nothing of now.
const LONGEST: Duration = Duration::from_secs(120);

/// Counts by name at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(super) at: Instant,
    pub(super) counts: HashMap<String, u64>,
}

impl Point {
    /// What was counted a second between this moment and `at`, when it is `now`. `age`: of what has come to be since this moment.
    pub(super) fn rate(&self, name: &str, now: u64, at: Instant, age: Option<Duration>) -> Option<u64> {
        let span = at.saturating_duration_since(self.at);
        let (used, span) = match (self.counts.get(name), age) {
            (Some(before), _) => (now.saturating_sub(*before), span),
            (None, Some(age)) if age >= SHORTEST && age <= LONGEST => (now, age),
            (None, _) => return None,
        };
        Some(per_second(used, span))
    }

    /// What was counted a second until another moment, of what begins with nothing and is counted from its beginning.
    pub(super) fn rate_until(&self, other: &Self, name: &str) -> u64 {
        let count = |point: &Self| point.counts.get(name).copied().unwrap_or(0);
        per_second(count(other).saturating_sub(count(self)), other.at.saturating_duration_since(self.at))
    }
}

fn per_second(count: u64, span: Duration) -> u64 {
    let rate = u128::from(count) * 1_000_000_000 / span.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// The last moments, oldest first: at least [`WINDOW`] apart, but for the last.
#[derive(Debug, Default)]
pub(super) struct Points(Vec<Point>);

impl Points {
    pub(super) fn push(&mut self, point: Point) {
        self.0.retain(|old| point.at.saturating_duration_since(old.at) <= LONGEST);
        if let [.., before, last] = &self.0[..]
            && last.at.saturating_duration_since(before.at) < WINDOW
        {
            self.0.pop();
        }
        self.0.push(point);
        // One that is old enough, one that becomes it, the newest.
        if self.0.len() > 3 {
            self.0.remove(0);
        }
    }

    /// What a rate until `at` begins with: the newest that is a window old, else the oldest that is old enough at all.
    pub(super) fn base(&self, at: Instant) -> Option<&Point> {
        let age = |point: &&Point| at.saturating_duration_since(point.at);
        let whole = self.0.iter().rev().find(|point| (WINDOW..=LONGEST).contains(&age(point)));
        whole.or_else(|| self.0.iter().find(|point| (SHORTEST..=LONGEST).contains(&age(point))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn point(at: Instant, nanos: u64) -> Point {
        Point { at, counts: HashMap::from([("c".to_owned(), nanos)]) }
    }

    #[tokio::test]
    async fn a_rate_is_over_a_window_that_is_not_too_old() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut points = Points::default();
        points.push(point(at(0), 0));
        assert!(points.base(at(0)).is_none(), "a moment has no rate");
        assert_eq!(points.base(at(1)).unwrap().rate("c", 500_000_000, at(1), None), Some(500_000_000));
        // Asked every second, for a long time.
        for second in 1..=100 {
            points.push(point(at(second), second * 1_000_000));
            assert!(points.0.len() <= 3);
            let window = at(second).duration_since(points.base(at(second)).unwrap().at).as_secs();
            assert!(if second < 10 { window == second } else { (10..=20).contains(&window) }, "{second}: {window}");
        }
        assert!(points.base(at(400)).is_none(), "too old");
        points.push(point(at(400), 0));
        assert_eq!(points.0.len(), 1);
    }

    #[tokio::test]
    async fn what_is_younger_than_the_window_is_measured_from_its_start() {
        let start = Instant::now();
        let at = start + Duration::from_secs(20);
        let base = point(start, 7);
        assert_eq!(base.rate("new", 2_000_000_000, at, Some(Duration::from_secs(4))), Some(500_000_000));
        assert_eq!(base.rate("new", 1, at, Some(Duration::from_millis(10))), None);
        assert_eq!(base.rate("new", 1, at, None), None);
        assert_eq!(base.rate("c", 3, at, None), Some(0), "a counter that ran backwards is no use");
    }
}
