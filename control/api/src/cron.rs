//! The schedule of a CronJob: five fields as crontab(5) has them, or a name such as `@hourly`
//! (upstream: robfig/cron's `ParseStandard`, whose messages these are).
//!
//! Times are those of a clock on a wall somewhere. Where the clock is put forward, times that it leaps over are left out; where it
//! is put back, times that it shows twice are meant twice.

use std::time::Duration;

use jiff::{Timestamp, ToSpan, Zoned, civil::Time, tz::TimeZone};

/// The fields: the least and the greatest value, and names for values from the first one up.
const FIELDS: [(i64, i64, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const NAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
/// The 29th of February that is a certain weekday comes once in 28 years; upstream gives up earlier, too.
const HORIZON_YEARS: i16 = 5;

/// When something is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    zone: Option<TimeZone>,
    when: When,
}

#[derive(Clone, Debug, PartialEq)]
enum When {
    /// So long after the last time, at least a second.
    Every(Duration),
    /// Minute, hour, day of month, month, day of week.
    At([Field; 5]),
}

/// The values that a field allows, and whether it leaves all open.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Field {
    bits: u64,
    any: bool,
}

impl Field {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }
}

impl Schedule {
    /// Reads a schedule, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (zone, text) = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            Some(rest) => match rest.split_once(' ') {
                Some((zone, _)) if !is_zone(zone) && !zone.is_empty() => {
                    return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
                }
                Some((zone, rest)) => (zone_of(zone), rest.trim()),
                // The library fails here; upstream catches it.
                None => {
                    return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".to_owned());
                }
            },
            None => (None, text),
        };
        Ok(Self { zone, when: When::parse(text)? })
    }

    /// The first time after `after`, by the clocks of `zone` where the schedule names none of its own.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match &self.when {
            When::Every(delay) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*delay).ok(),
            When::At(fields) => next(fields, after, self.zone.as_ref().unwrap_or(zone)),
        }
    }
}

impl Schedule {
    /// The last time after `after` and not after `now`.
    pub fn last(&self, after: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if let When::Every(delay) = &self.when {
            let passed = u64::try_from(now.as_second() - after.as_second()).ok()?;
            let times = u32::try_from(passed / delay.as_secs()).ok().filter(|times| *times > 0)?;
            return Timestamp::from_second(after.as_second()).ok()?.checked_add(*delay * times).ok();
        }
        // Not from time to time through years, but from the last stretch on that has any.
        let stretches = [1, 24, 31 * 24, 366 * 24].map(|hours| Duration::from_secs(hours * 3600));
        let starts =
            stretches.iter().filter_map(|stretch| now.checked_sub(*stretch).ok()).filter(|start| *start > after);
        for start in starts.chain([after]) {
            let times = std::iter::successors(self.next(start, zone), |at| self.next(*at, zone));
            if let Some(last) = times.take_while(|at| *at <= now).last() {
                return Some(last);
            }
        }
        None
    }
}

impl When {
    fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('@') {
            return fields(text).map(Self::At);
        }
        if let Some((_, meaning)) = NAMES.iter().find(|(name, _)| *name == text) {
            return fields(meaning).map(Self::At);
        }
        let Some(text) = text.strip_prefix("@every ") else {
            return Err(format!("unrecognized descriptor: {text}"));
        };
        match duration(text) {
            Some(nanos) => {
                Ok(Self::Every(Duration::from_secs(u64::try_from(nanos / 1_000_000_000).unwrap_or(0).max(1))))
            }
            None if text.parse::<f64>().is_ok() => {
                Err(format!("failed to parse duration @every {text}: time: missing unit in duration {text:?}"))
            }
            None => Err(format!("failed to parse duration @every {text}: time: invalid duration {text:?}")),
        }
    }
}

fn fields(text: &str) -> Result<[Field; 5], String> {
    let texts: Vec<&str> = text.split_whitespace().collect();
    if texts.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", texts.len(), texts.join(" ")));
    }
    let mut fields = [Field { bits: 0, any: false }; 5];
    for ((field, text), bounds) in fields.iter_mut().zip(texts).zip(FIELDS) {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let range = range(part, bounds)?;
            *field = Field { bits: field.bits | range.bits, any: field.any || range.any };
        }
    }
    Ok(fields)
}

/// Walks from minute to minute, over whole months, days and hours where these do not fit.
fn next([minute, hour, day, month, weekday]: &[Field; 5], after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let second = i64::from(after.to_zoned(zone.clone()).second());
    let mut at = Timestamp::from_second(after.as_second() - second + 60).ok()?.to_zoned(zone.clone());
    let horizon = at.year().checked_add(HORIZON_YEARS)?;
    while at.year() <= horizon {
        let date = at.date();
        // Both days have to fit, unless both are given: then one is enough.
        let (in_month, in_week) = (day.has(at.day()), weekday.has(at.weekday().to_sunday_zero_offset()));
        let fits = if day.any || weekday.any { in_month && in_week } else { in_month || in_week };
        at = if !month.has(at.month()) {
            start_of(date.last_of_month().tomorrow().ok()?, zone)?
        } else if !fits {
            start_of(date.tomorrow().ok()?, zone)?
        } else if !hour.has(at.hour()) {
            at.checked_add((60 - i64::from(at.minute())).minutes()).ok()?
        } else if !minute.has(at.minute()) {
            at.checked_add(1.minute()).ok()?
        } else {
            return Some(at.timestamp());
        };
    }
    None
}

fn start_of(date: jiff::civil::Date, zone: &TimeZone) -> Option<Zoned> {
    date.to_datetime(Time::midnight()).to_zoned(zone.clone()).ok()
}

/// The time zone of this very name; `Local` is that of the machine.
pub fn zone_of(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("local") {
        return Some(TimeZone::system());
    }
    TimeZone::get(name).ok().filter(|zone| zone.iana_name() == Some(name))
}

/// Whether there is a time zone of this very name.
pub fn is_zone(name: &str) -> bool {
    zone_of(name).is_some()
}

/// `*`, `3`, `1-5`, each with `/2` behind it or not.
fn range(text: &str, (min, max, names): (i64, i64, &[&str])) -> Result<Field, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let number = |text: &str| value(text, min, names);
    let (first, last) = match ends.as_slice() {
        ["*" | "?", ..] => (min, max),
        [one] => {
            let first = number(one)?;
            (first, if parts.len() > 1 { max } else { first })
        }
        [first, last] => (number(first)?, number(last)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => integer(step)?,
        _ => return Err(format!("too many slashes: {text}")),
    };
    if first < min {
        return Err(format!("beginning of range ({first}) below minimum ({min}): {text}"));
    }
    if last > max {
        return Err(format!("end of range ({last}) above maximum ({max}): {text}"));
    }
    if first > last {
        return Err(format!("beginning of range ({first}) beyond end of range ({last}): {text}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let bits = (first..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX)).fold(0, |bits, n| bits | 1 << n);
    Ok(Field { bits, any: matches!(ends[0], "*" | "?") && step == 1 })
}

fn value(text: &str, min: i64, names: &[&str]) -> Result<i64, String> {
    let lower = text.to_lowercase();
    match names.iter().position(|name| *name == lower) {
        Some(at) => Ok(min + i64::try_from(at).unwrap_or_default()),
        None => integer(text),
    }
}

fn integer(text: &str) -> Result<i64, String> {
    let number: i64 = text
        .parse()
        .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))?;
    if number < 0 { Err(format!("negative number ({number}) not allowed: {text}")) } else { Ok(number) }
}

/// `1h30m`, `5s`, in nanoseconds.
fn duration(text: &str) -> Option<i128> {
    let negative = text.starts_with('-');
    let text = text.trim_start_matches(['-', '+']);
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let value: f64 = rest[..number].parse().ok()?;
        rest = &rest[number..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let nanos = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += value * nanos;
        rest = &rest[unit..];
    }
    // Fractions of a nanosecond are of no interest, nor are durations beyond all calendars.
    (!text.is_empty()).then_some(if negative { -(total as i128) } else { total as i128 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_judged_as_upstream_does() {
        for good in [
            "* * * * *",
            "*/5 0-23/2 1,15 JAN-mar sun",
            "0 0 1 1 ?",
            "@hourly",
            "@every 1h30m",
            "TZ=UTC 0 0 * * *",
            "5/15 * * * *",
        ] {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "expected exactly 5 fields, found 0: []"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ] {
            assert_eq!(Schedule::parse(bad), Err(why.to_owned()), "{bad}");
        }
    }

    /// The times after one, as a zone's clocks show them.
    fn times(schedule: &str, after: &str, zone: &str, count: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone_of(zone).unwrap());
        let mut at: Timestamp = after.parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..count {
            at = schedule.next(at, &zone).unwrap();
            times.push(at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M %:z").to_string());
        }
        times
    }

    #[test]
    fn times_follow_the_fields() {
        assert_eq!(
            times("*/20 8 * * *", "2026-03-01T08:39:59Z", "UTC", 2),
            ["Sun 2026-03-01 08:40 +00:00", "Mon 2026-03-02 08:00 +00:00"]
        );
        assert_eq!(times("0 0 29 2 *", "2026-03-01T00:00:00Z", "UTC", 1), ["Tue 2028-02-29 00:00 +00:00"]);
        // The 13th, and every Friday.
        assert_eq!(
            times("0 0 13 * fri", "2026-03-06T00:00:00Z", "UTC", 3),
            ["Fri 2026-03-13 00:00 +00:00", "Fri 2026-03-20 00:00 +00:00", "Fri 2026-03-27 00:00 +00:00"]
        );
        assert_eq!(times("0 0 13 * fri", "2026-04-10T00:00:00Z", "UTC", 1), ["Mon 2026-04-13 00:00 +00:00"]);
        assert_eq!(times("@hourly", "2026-03-06T00:00:00Z", "Asia/Kolkata", 1), ["Fri 2026-03-06 06:00 +05:30"]);
        assert_eq!(
            times("@every 90s", "2026-03-06T00:00:00Z", "UTC", 2),
            ["Fri 2026-03-06 00:01 +00:00", "Fri 2026-03-06 00:03 +00:00"]
        );
        assert_eq!(times("TZ=Asia/Tokyo 0 9 * * *", "2026-03-06T01:00:00Z", "UTC", 1), ["Sat 2026-03-07 00:00 +00:00"]);
        assert!(Schedule::parse("0 0 31 2 *").unwrap().next(Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_none());
    }

    #[test]
    fn clocks_that_are_put_forward_and_back() {
        // 2:30 is leapt over on the 29th of March, and comes twice on the 25th of October.
        assert_eq!(times("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin", 1), ["Mon 2026-03-30 02:30 +02:00"]);
        assert_eq!(
            times("30 2 * * *", "2026-10-24T12:00:00Z", "Europe/Berlin", 3),
            ["Sun 2026-10-25 02:30 +02:00", "Sun 2026-10-25 02:30 +01:00", "Mon 2026-10-26 02:30 +01:00"]
        );
    }
}
