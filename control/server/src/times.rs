//! Times as objects carry them: RFC 3339, UTC, whole seconds.

use jiff::{SignedDuration, Timestamp, Unit};

/// Now.
pub(crate) fn now() -> String {
    after(0)
}

/// So many seconds from now.
pub(crate) fn after(seconds: i64) -> String {
    format(Timestamp::now().saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
}

/// So many seconds after the epoch.
pub(crate) fn at(seconds: i64) -> String {
    format(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// `time` moved by so many seconds; now, if it cannot be read.
pub(crate) fn shifted(time: &str, seconds: i64) -> String {
    let time = time.parse().unwrap_or_else(|_| Timestamp::now());
    format(time.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
}

fn format(time: Timestamp) -> String {
    time.round(Unit::Second).unwrap_or(time).to_string()
}
