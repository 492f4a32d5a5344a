//! Probes: when they are due ([`Tracker`], pure), and how they are made ([`run`]).
//!
//! The driver keeps one tracker a probe of a running container and one timer each; at most a bounded number of
//! probes runs at once. The first readiness probe is made at once after the start (or the startup probe).

mod grpc;
pub(crate) mod http;
pub(crate) mod run;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};

use crate::lifecycle::{ProbeVerdict, add};

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    pub(crate) const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As events begin.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    pub(crate) fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// One probe of one run: its counters, and what makes it.
pub(crate) struct Tracker {
    period: Duration,
    initial_delay: Duration,
    success_threshold: i32,
    failure_threshold: i32,
    last: Option<bool>,
    streak: i32,
    /// A probe is under way.
    pub(crate) in_flight: bool,
    /// Since the first one was made.
    pub(crate) ready: Option<Arc<run::Ready>>,
}

impl Tracker {
    pub(crate) fn new(probe: &Probe) -> Self {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.map_or(default, |value| u64::from(value.max(0).unsigned_abs())))
        };
        Self {
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
            last: None,
            streak: 0,
            in_flight: false,
            ready: None,
        }
    }

    /// When the first probe of a run that started at `started` is made.
    pub(crate) fn first(&self, started: Timestamp, now: Timestamp) -> Timestamp {
        add(started, self.initial_delay).max(now)
    }

    /// When the one after a probe made at `now` is made.
    pub(crate) fn next(&self, now: Timestamp) -> Timestamp {
        add(now, self.period)
    }

    /// Counts a result; the verdict where a threshold is reached.
    pub(crate) fn count(&mut self, success: bool) -> Option<ProbeVerdict> {
        if self.last == Some(success) {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.last = Some(success);
            self.streak = 1;
        }
        match success {
            true if self.streak >= self.success_threshold => Some(ProbeVerdict::Passing),
            false if self.streak >= self.failure_threshold => Some(ProbeVerdict::Failing),
            _ => None,
        }
    }
}

/// The limit of a probe's time.
pub(crate) fn timeout(probe: &Probe) -> Duration {
    Duration::from_secs(u64::from(probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_what_follows_on_itself() {
        let mut tracker =
            Tracker::new(&Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() });
        let results = [
            (true, None),
            (true, Some(ProbeVerdict::Passing)),
            (false, None),
            (false, None),
            (true, None),
            (false, None),
            (false, None),
        ];
        for (success, expected) in results {
            assert_eq!(tracker.count(success), expected);
        }
        assert_eq!(tracker.count(false), Some(ProbeVerdict::Failing));
    }
}
