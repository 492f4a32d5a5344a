//! How long a Job waits after failures: 10 s, doubling up to 10 minutes, until a Pod succeeds. Pure.
//!
//! It is read from the Pods that ended, so that it outlives a restart of the controller.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use super::view::ended;
use crate::pods;

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// How long after `failures` in a row, of which the last was at `last`.
pub(super) fn left(failures: u32, last: Timestamp, now: Timestamp) -> Option<Duration> {
    let doublings = failures.checked_sub(1)?.min(10);
    let delay = (FIRST * 2u32.pow(doublings)).min(LONGEST);
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    delay.checked_sub(passed).filter(|left| !left.is_zero())
}

/// How long until the Job may have another Pod.
pub(super) fn of_job(pods: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    let succeeded = pods.iter().filter(|pod| pods::phase(pod) == "Succeeded");
    let success = succeeded.filter_map(|pod| ended(pod)).max();
    // One that was deleted says nothing about the next.
    let failed = pods.iter().filter(|pod| pods::phase(pod) == "Failed").filter_map(|pod| ended(pod));
    let since: Vec<Timestamp> = failed.filter(|at| success.is_none_or(|success| *at > success)).collect();
    let last = since.iter().max()?;
    left(u32::try_from(since.len()).unwrap_or(u32::MAX), *last, now)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_ten_minutes() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(left(0, at(0), at(0)), None);
        assert_eq!(left(1, at(0), at(3)), Some(Duration::from_secs(7)));
        assert_eq!(left(3, at(0), at(3)), Some(Duration::from_secs(37)));
        assert_eq!(left(1, at(0), at(10)), None);
        assert_eq!(left(99, at(0), at(0)), Some(LONGEST));
    }

    proptest::proptest! {
        /// Each failure's wait, told at any time, ends at one moment, and no wait is shorter than that of fewer failures.
        #[test]
        fn a_wait_ends_when_it_was_said_to(failures in 0u32..20, passed in 0i64..700) {
            let at = |second| Timestamp::from_second(second).unwrap();
            let whole = left(failures, at(0), at(0)).unwrap_or_default();
            let now = left(failures, at(0), at(passed)).unwrap_or_default();
            proptest::prop_assert!(whole <= LONGEST && (failures == 0) == whole.is_zero());
            proptest::prop_assert_eq!(now, whole.saturating_sub(Duration::from_secs(passed as u64)));
            proptest::prop_assert!(left(failures + 1, at(0), at(0)).unwrap_or_default() >= whole);
        }
    }
}
