//! The schedule of a CronJob: five fields as crontab(5) has them, or a name such as `@hourly`
//! (upstream: robfig/cron's `ParseStandard`, whose messages these are).

/// The fields: the least and the greatest value, and names for values from the first one up.
const FIELDS: [(i64, i64, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const NAMES: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// What is wrong with a schedule.
pub(super) fn check(text: &str) -> Result<(), String> {
    let text = match text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
        Some(rest) => match rest.split_once(' ') {
            Some((zone, _)) if !is_zone(zone) && !zone.is_empty() => {
                return Err(format!("provided bad location {zone}: unknown time zone {zone}"));
            }
            Some((_, rest)) => rest.trim(),
            // The library fails here; upstream catches it.
            None => return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".to_owned()),
        },
        None => text,
    };
    if text.starts_with('@') {
        let every = text.strip_prefix("@every ");
        return match every {
            Some(duration) if is_duration(duration) => Ok(()),
            Some(duration) if duration.parse::<f64>().is_ok() => {
                Err(format!("failed to parse duration @every {duration}: time: missing unit in duration {duration:?}"))
            }
            Some(duration) => {
                Err(format!("failed to parse duration @every {duration}: time: invalid duration {duration:?}"))
            }
            None if NAMES.contains(&text) => Ok(()),
            None => Err(format!("unrecognized descriptor: {text}")),
        };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, bounds) in fields.iter().zip(FIELDS) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            range(part, bounds)?;
        }
    }
    Ok(())
}

/// Whether there is a time zone of this very name.
pub(super) fn is_zone(name: &str) -> bool {
    name.eq_ignore_ascii_case("local") || jiff::tz::TimeZone::get(name).is_ok_and(|zone| zone.iana_name() == Some(name))
}

/// `*`, `3`, `1-5`, each with `/2` behind it or not.
fn range(text: &str, (min, max, names): (i64, i64, &[&str])) -> Result<(), String> {
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
    Ok(())
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

/// `1h30m`, `5s`.
fn is_duration(text: &str) -> bool {
    let text = text.trim_start_matches(['-', '+']);
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(0);
        if number == 0 || rest[..number].parse::<f64>().is_err() {
            return false;
        }
        rest = &rest[number..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        if !matches!(&rest[..unit], "ns" | "us" | "µs" | "ms" | "s" | "m" | "h") {
            return false;
        }
        rest = &rest[unit..];
    }
    !text.is_empty()
}

#[cfg(test)]
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
            assert_eq!(check(good), Ok(()), "{good}");
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
            assert_eq!(check(bad), Err(why.to_owned()), "{bad}");
        }
    }
}
