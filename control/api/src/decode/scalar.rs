//! Texts with a form: times, durations, quantities, base64. Each comes out canonical, or as a reason why not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::Offset;

use crate::field::quote;
use crate::quantity;

/// A quantity in canonical form.
pub(super) fn quantity(text: &str) -> Result<String, String> {
    quantity::canonical(text).map(Into::into).map_err(|e| e.to_string())
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    let malformed =
        || format!("parsing time {} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0} as a time", quote(text));
    // jiff also reads forms that RFC 3339 does not have.
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || separators.iter().any(|(at, separator)| bytes[*at] != *separator) {
        return Err(malformed());
    }
    let zone = &bytes[19..];
    let zone_is_rfc = zone.ends_with(b"Z")
        || (zone.len() >= 6 && matches!(zone[zone.len() - 6], b'+' | b'-') && zone[zone.len() - 3] == b':');
    if !zone_is_rfc {
        return Err(malformed());
    }
    text.parse().map_err(|_| malformed())
}

/// A time in whole seconds, UTC. The empty text is no time.
pub(super) fn time(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(Offset::UTC.to_datetime(timestamp(text)?).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

/// A time in microseconds, UTC. The empty text is no time.
pub(super) fn micro_time(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(Offset::UTC.to_datetime(timestamp(text)?).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()))
}

/// Bytes as base64; line breaks, which are allowed in it, are dropped.
pub(super) fn bytes(text: &str) -> Result<String, String> {
    let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&clean) {
        Ok(_) => Ok(clean),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(_) => Err(format!("illegal base64 data at input byte {}", clean.len() / 4 * 4)),
    }
}

/// A duration in Go's form (`1h2m3.5s`), canonical.
pub(super) fn duration(text: &str) -> Result<String, String> {
    let nanos = duration_nanos(text).ok_or_else(|| format!("time: invalid duration {}", quote(text)))?;
    Ok(print_duration(nanos))
}

/// The nanoseconds of a duration in Go's form.
pub fn duration_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        if !whole.is_empty() {
            total = total.checked_add(whole.parse::<i128>().ok()?.checked_mul(unit)?)?;
        }
        let mut scale = unit;
        for digit in fraction.bytes() {
            if !digit.is_ascii_digit() {
                return None;
            }
            scale /= 10;
            total += i128::from(digit - b'0') * scale;
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

fn print_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let decimal = |whole: u64, part: u64, digits: usize| {
        let text = format!("{whole}.{part:0digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match n {
        0 => "0s".into(),
        1..1_000 => format!("{sign}{n}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(n / 1_000, n % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(n / 1_000_000, n % 1_000_000, 6)),
        _ => {
            let seconds = n / 1_000_000_000;
            let (h, m) = (seconds / 3600, seconds / 60 % 60);
            let s = decimal(seconds % 60, n % 1_000_000_000, 9);
            match (h, m) {
                (0, 0) => format!("{sign}{s}s"),
                (0, m) => format!("{sign}{m}m{s}s"),
                (h, m) => format!("{sign}{h}h{m}m{s}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let utc = |text: &str| time(text).ok().flatten();
        assert_eq!(utc("2026-01-02T03:04:05Z").as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(utc("2026-01-02T03:04:05.999+01:00").as_deref(), Some("2026-01-02T02:04:05Z"));
        assert_eq!(micro_time("2026-01-02T03:04:05.12Z"), Ok(Some("2026-01-02T03:04:05.120000Z".into())));
        assert_eq!(time(""), Ok(None));
        for bad in [
            "x",
            "2026-01-02",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05",
            "2026-13-02T03:04:05Z",
            "2026-01-02T03:04:05+01",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        for (text, canonical) in [
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5ms", "1.5ms"),
            ("0", "0s"),
            ("-3us", "-3µs"),
            ("1h2m3.5s", "1h2m3.5s"),
            (".5s", "500ms"),
        ] {
            assert_eq!(duration(text).as_deref(), Ok(canonical), "{text}");
        }
        for bad in ["", "5", "s", "1x", ".s", "1h-", "--1s", "99999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn base64_text() {
        assert_eq!(bytes("aGVs\nbG8="), Ok("aGVsbG8=".into()));
        assert_eq!(bytes("aG*s"), Err("illegal base64 data at input byte 2".into()));
        assert!(bytes("aGVsbG8").is_err());
    }
}
