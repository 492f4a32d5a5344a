//! Which scheduled time is due, and when to look again. Pure.

use std::time::Duration;

use k8s_openapi::{
    api::batch::v1::CronJob,
    jiff::{Timestamp, tz::TimeZone},
};
use wherry_api::cron::Schedule;

/// More missed times than these are worth a warning.
const MANY: usize = 100;
/// Timers may fire a moment early.
const SLACK: Duration = Duration::from_millis(100);

/// A look at the clock.
#[derive(Debug, PartialEq)]
pub(super) struct Due {
    /// The last time that has come since the last one that was met.
    pub(super) time: Option<Timestamp>,
    /// So many have come that something must be wrong.
    pub(super) too_many: bool,
    /// How long until the next one.
    pub(super) next: Option<Duration>,
}

/// Looks what is due at `now`.
pub(super) fn due(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Due {
    let last = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
    let met = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(now, |time| time.0);
    let deadline = cron.spec.starting_deadline_seconds;
    let reach = deadline.and_then(|seconds| now.checked_sub(Duration::from_secs(u64::try_from(seconds).ok()?)).ok());
    let since = reach.map_or(met, |reach| reach.max(met));
    let times = std::iter::successors(schedule.next(since, zone), |at| schedule.next(*at, zone));
    let too_many = times.take_while(|at| *at <= now).take(MANY + 1).count() > MANY;
    // A schedule by intervals goes on from the last time it was met; others do not care.
    let from = schedule.last(met, now, zone).unwrap_or(met).max(met);
    let next = schedule.next(from, zone).filter(|next| *next > now).or_else(|| schedule.next(now, zone));
    Due {
        time: schedule.last(since, now, zone),
        too_many,
        next: next.map(|next| Duration::try_from(next.duration_since(now)).unwrap_or_default() + SLACK),
    }
}

/// Whether a time is too long ago to be met.
pub(super) fn is_too_late(cron: &CronJob, time: Timestamp, now: Timestamp) -> bool {
    let deadline = cron.spec.starting_deadline_seconds;
    deadline.is_some_and(|seconds| now.duration_since(time).as_secs() > seconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn cron(last: &str, deadline: Option<i64>) -> CronJob {
        serde_json::from_value(json!({
            "metadata": { "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "schedule": "", "startingDeadlineSeconds": deadline, "jobTemplate": {} },
            "status": { "lastScheduleTime": last },
        }))
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_missed_time_is_due() {
        let hourly = Schedule::parse("0 * * * *").unwrap();
        let look = |deadline, now: &str| due(&cron("2026-01-01T10:00:00Z", deadline), &hourly, &TimeZone::UTC, at(now));
        let none = look(None, "2026-01-01T10:59:50Z");
        assert_eq!(none, Due { time: None, too_many: false, next: Some(Duration::from_millis(10_100)) });
        assert_eq!(look(None, "2026-01-01T13:30:00Z").time, Some(at("2026-01-01T13:00:00Z")));
        assert_eq!(look(Some(600), "2026-01-01T13:30:00Z").time, None, "too long ago");
        let long = look(None, "2026-01-06T13:30:00Z");
        assert_eq!((long.time, long.too_many), (Some(at("2026-01-06T13:00:00Z")), true));
        assert!(!look(Some(7200), "2026-01-06T13:30:00Z").too_many);
    }

    #[test]
    fn intervals_go_on_from_the_last_time() {
        let every = Schedule::parse("@every 90s").unwrap();
        let look = due(&cron("2026-01-01T10:00:00Z", None), &every, &TimeZone::UTC, at("2026-01-01T10:03:30Z"));
        assert_eq!(look.time, Some(at("2026-01-01T10:03:00Z")));
        assert_eq!(look.next, Some(Duration::from_secs(60) + SLACK));
    }

    proptest! {
        #[test]
        fn what_is_due_is_a_time_of_the_schedule(minute in 0u8..60, hour in 0u8..24, passed in 0i64..4_000_000) {
            let schedule = Schedule::parse(&format!("{minute} {hour} * * *")).unwrap();
            let since = at("2026-01-01T10:00:00Z");
            let now = Timestamp::from_second(since.as_second() + passed).unwrap();
            let look = due(&cron("2026-01-01T10:00:00Z", None), &schedule, &TimeZone::UTC, now);
            let mut expected = None;
            let mut next = schedule.next(since, &TimeZone::UTC);
            while let Some(time) = next.filter(|time| *time <= now) {
                expected = Some(time);
                next = schedule.next(time, &TimeZone::UTC);
            }
            prop_assert_eq!(look.time, expected);
        }
    }

    /// A field as it is written, and the values that it means.
    fn field(least: i8, most: i8) -> impl proptest::strategy::Strategy<Value = (String, Option<Vec<i8>>)> {
        use proptest::prelude::*;
        prop_oneof![
            2 => Just(("*".to_owned(), None)),
            2 => (least..=most).prop_map(|value| (value.to_string(), Some(vec![value]))),
            1 => (least..=most, least..=most).prop_map(|(a, b)| (format!("{a},{b}"), Some(vec![a, b]))),
            1 => (least..=most, least..=most, 1i8..20).prop_map(|(a, b, step)| {
                let (a, b) = (a.min(b), a.max(b));
                (format!("{a}-{b}/{step}"), Some((a..=b).step_by(step as usize).collect()))
            }),
        ]
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        /// Against one who looks at every minute of two months.
        #[test]
        fn the_next_time_is_the_first_minute_that_fits(
            minute in field(0, 59), hour in field(0, 23), day in field(1, 31), month in field(1, 12), weekday in field(0, 6),
            start in 0i64..200_000_000,
        ) {
            let text = [&minute, &hour, &day, &month, &weekday].map(|(text, _)| text.as_str()).join(" ");
            let schedule = Schedule::parse(&text).unwrap();
            let after = Timestamp::from_second(1_700_000_000 + start).unwrap();
            let fits = |values: &Option<Vec<i8>>, value: i8| values.as_ref().is_none_or(|values| values.contains(&value));
            let first = after.as_second() / 60 + 1;
            let expected = (first..first + 60 * 24 * 60).map(|minute| Timestamp::from_second(minute * 60).unwrap()).find(|time| {
                let time = time.to_zoned(TimeZone::UTC).datetime();
                let (of_month, of_week) = (fits(&day.1, time.day()), fits(&weekday.1, time.weekday().to_sunday_zero_offset()));
                // Where both are given, either will do.
                let is_day = if day.1.is_some() && weekday.1.is_some() { of_month || of_week } else { of_month && of_week };
                fits(&minute.1, time.minute()) && fits(&hour.1, time.hour()) && fits(&month.1, time.month()) && is_day
            });
            let found = schedule.next(after, &TimeZone::UTC);
            match expected {
                Some(time) => proptest::prop_assert_eq!(found, Some(time), "{} after {}", text, after),
                // Later than anybody looked, or never.
                None => proptest::prop_assert!(found.is_none_or(|time| time.as_second() >= (first + 60 * 24 * 60) * 60), "{}", text),
            }
        }
    }
}
