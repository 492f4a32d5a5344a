//! Resource quantities: `500m`, `1Gi`, `1e3`.
//!
//! A [`Quantity`] is an exact number in units of 10⁻⁹ together with the family of suffixes it was written in, so
//! that it can be written in the canonical form of that family again: no fraction, no lost precision, the largest
//! suffix possible (`1024Mi` becomes `1Gi`, `0.5` becomes `500m`).
//!
//! Guarantees: parsing never panics; what is smaller than 10⁻⁹ is rounded away from zero; binary quantities are capped
//! at 2⁶³-1, the others at about 1.7·10²⁹ (upstream lets those grow without bound); arithmetic saturates.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

/// Units of the internal fixed-point representation in one.
const NANO: i128 = 1_000_000_000;
/// The largest binary quantity.
const MAX_BINARY: i128 = (i64::MAX as i128) * NANO;

/// The family of suffixes in which a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `n u m "" k M G T P E`.
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`, `E6`.
    DecimalExponent,
}

/// Why a text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text has another shape than number and suffix.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The number before the suffix is none.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A fixed-point number with a preferred way of being written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// What the scanner finds in a text.
struct Parts<'a> {
    negative: bool,
    /// Digits before the point, leading zeros stripped.
    whole: &'a str,
    /// Digits after the point.
    fraction: &'a str,
    format: Format,
    /// Of ten, or of two for the binary family.
    exponent: i64,
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn scan(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, rest) = digits(rest);
    let (fraction, rest, point) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (fraction, rest) = digits(rest);
            (fraction, rest, true)
        }
        None => ("", rest, false),
    };
    if whole.is_empty() && fraction.is_empty() {
        // A lone sign or point is no number; anything else went wrong earlier.
        return Err(if rest.is_empty() && (point || text.len() == 1) {
            QuantityError::Numeric
        } else {
            QuantityError::Format
        });
    }
    let letters = rest
        .bytes()
        .take_while(|b| b"eEinumkKMGTP".contains(b))
        .count();
    let tail = rest[letters..]
        .strip_prefix(['-', '+'])
        .unwrap_or(&rest[letters..]);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    let (format, exponent) = suffix(rest).ok_or(QuantityError::Suffix)?;
    Ok(Parts {
        negative,
        whole: whole.trim_start_matches('0'),
        fraction,
        format,
        exponent,
    })
}

fn suffix(text: &str) -> Option<(Format, i64)> {
    Some(match text {
        "n" => (Format::DecimalSi, -9),
        "u" => (Format::DecimalSi, -6),
        "m" => (Format::DecimalSi, -3),
        "" => (Format::DecimalSi, 0),
        "k" => (Format::DecimalSi, 3),
        "M" => (Format::DecimalSi, 6),
        "G" => (Format::DecimalSi, 9),
        "T" => (Format::DecimalSi, 12),
        "P" => (Format::DecimalSi, 15),
        "E" => (Format::DecimalSi, 18),
        "Ki" => (Format::BinarySi, 10),
        "Mi" => (Format::BinarySi, 20),
        "Gi" => (Format::BinarySi, 30),
        "Ti" => (Format::BinarySi, 40),
        "Pi" => (Format::BinarySi, 50),
        "Ei" => (Format::BinarySi, 60),
        _ => (
            Format::DecimalExponent,
            text.strip_prefix(['e', 'E'])?.parse().ok()?,
        ),
    })
}

fn number(text: &str) -> i128 {
    text.bytes().fold(0_i128, |n, b| {
        n.saturating_mul(10).saturating_add(i128::from(b - b'0'))
    })
}

fn pow10(n: i64) -> i128 {
    u32::try_from(n)
        .ok()
        .and_then(|n| 10_i128.checked_pow(n))
        .unwrap_or(i128::MAX)
}

/// Division that rounds what is left over up; both are not negative.
fn div_up(n: i128, by: i128) -> i128 {
    n / by + i128::from(n % by != 0)
}

impl Parts<'_> {
    fn nano(&self) -> i128 {
        // Digits beyond the 18th of a fraction only matter for "is anything left over?", which rounds up.
        let cut = self.fraction.len().min(18);
        let (kept, lost) = self.fraction.split_at(cut);
        let sticky = i128::from(lost.bytes().any(|b| b != b'0'));
        let (whole, fraction, places) = (number(self.whole), number(kept) + sticky, cut as i64);
        let magnitude = if self.format == Format::BinarySi {
            let factor = 1_i128 << self.exponent;
            let scaled = fraction * factor;
            let small = if places > 9 {
                div_up(scaled, pow10(places - 9))
            } else {
                scaled * pow10(9 - places)
            };
            whole
                .saturating_mul(factor)
                .saturating_mul(NANO)
                .saturating_add(small)
                .min(MAX_BINARY)
        } else {
            let scale = |n: i128, exponent: i64| {
                if n == 0 {
                    0
                } else if exponent >= 0 {
                    n.saturating_mul(pow10(exponent))
                } else {
                    div_up(n, pow10(exponent.saturating_neg()))
                }
            };
            let exponent = self.exponent.saturating_add(9);
            match whole
                .checked_mul(pow10(places))
                .and_then(|w| w.checked_add(fraction))
            {
                Some(all) => scale(all, exponent.saturating_sub(places)),
                None => scale(whole, exponent)
                    .saturating_add(scale(fraction, exponent.saturating_sub(places))),
            }
        };
        if self.negative { -magnitude } else { magnitude }
    }

    /// Whether upstream keeps the text as it was written instead of writing it anew.
    fn kept_as_written(&self) -> bool {
        let length = (self.whole.len().max(1) + self.fraction.len()) as i64;
        if self.whole.is_empty() {
            return false;
        }
        if self.format == Format::BinarySi {
            return self.fraction.is_empty()
                && length + self.exponent * 3 / 10 < 15
                && number(self.whole) & 7 != 0;
        }
        let zeros = match trailing_zeros(self.fraction) {
            all if all == self.fraction.len() => all + trailing_zeros(self.whole),
            some => some,
        };
        let scale = self.exponent.saturating_sub(self.fraction.len() as i64);
        length <= 18 && scale >= -9 && scale % 3 == 0 && zeros < 3
    }
}

fn trailing_zeros(text: &str) -> usize {
    text.bytes().rev().take_while(|b| *b == b'0').count()
}

/// The canonical form of a quantity's text; borrowed if it is canonical already.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    let text = text.trim();
    let parts = scan(text)?;
    if text == "0" || parts.kept_as_written() {
        return Ok(Cow::Borrowed(text));
    }
    Ok(Cow::Owned(
        Quantity {
            nano: parts.nano(),
            format: parts.format,
        }
        .to_string(),
    ))
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self {
        nano: 0,
        format: Format::DecimalSi,
    };

    /// A whole number.
    pub const fn new(value: i64, format: Format) -> Self {
        Self {
            nano: value as i128 * NANO,
            format,
        }
    }

    /// A number of thousandths.
    pub const fn milli(value: i64, format: Format) -> Self {
        Self {
            nano: value as i128 * (NANO / 1000),
            format,
        }
    }

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let parts = scan(text.trim())?;
        Ok(Self {
            nano: parts.nano(),
            format: parts.format,
        })
    }

    /// Reads a quantity from a JSON string or number.
    pub fn from_value(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::String(text) => Self::parse(text).ok(),
            serde_json::Value::Number(n) => Self::parse(&n.to_string()).ok(),
            _ => None,
        }
    }

    /// The family of suffixes it is written in.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The number rounded away from zero to a whole one.
    pub fn value(&self) -> i64 {
        self.scaled(NANO)
    }

    /// Thousandths, rounded away from zero.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANO / 1000)
    }

    /// The number as a float; may lose precision.
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    /// Whether it is zero.
    pub const fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// Whether it is below zero.
    pub const fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// Whether it has no fraction.
    pub const fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }

    /// Rounded away from zero to whole thousandths, the finest that stored objects hold.
    #[must_use]
    pub fn round_up_milli(self) -> Self {
        let unit = NANO / 1000;
        let magnitude = div_up(self.nano.saturating_abs(), unit).saturating_mul(unit);
        Self {
            nano: if self.nano < 0 { -magnitude } else { magnitude },
            format: self.format,
        }
    }

    fn scaled(&self, unit: i128) -> i64 {
        let magnitude = div_up(self.nano.saturating_abs(), unit);
        let signed = if self.nano < 0 { -magnitude } else { magnitude };
        i64::try_from(signed).unwrap_or(if signed < 0 { i64::MIN } else { i64::MAX })
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, in the format of the left side unless that is zero.
    fn add(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_add(other.nano),
            format: if self.is_zero() {
                other.format
            } else {
                self.format
            },
        }
    }
}

impl Sub for Quantity {
    type Output = Self;

    /// The difference, in the format of the left side unless that is zero.
    fn sub(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_sub(other.nano),
            format: if self.is_zero() {
                other.format
            } else {
                self.format
            },
        }
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            nano: self.nano.saturating_neg(),
            format: self.format,
        }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        // Small or fractional binary quantities are written in decimal, so that nothing is lost.
        if self.format == Format::BinarySi && self.is_whole() && self.nano.abs() >= 1024 * NANO {
            let mut value = self.nano / NANO;
            let mut times = 0;
            while value % 1024 == 0 && times < 6 {
                value /= 1024;
                times += 1;
            }
            return write!(
                f,
                "{value}{}",
                ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][times]
            );
        }
        let exponential = self.format == Format::DecimalExponent;
        let mut value = self.nano;
        let mut exponent = -9;
        while value % 1000 == 0 && (exponential || exponent < 18) {
            value /= 1000;
            exponent += 3;
        }
        match exponent {
            0 => write!(f, "{value}"),
            _ if exponential => write!(f, "{value}e{exponent}"),
            _ => write!(
                f,
                "{value}{}",
                ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize]
            ),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        for (text, want) in [
            ("0", "0"),
            ("0n", "0"),
            ("-0", "0"),
            ("0Ki", "0"),
            ("00", "0"),
            ("1024Mi", "1Gi"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1."),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1000m", "1"),
            ("1000k", "1M"),
            ("1000", "1k"),
            ("100", "100"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("0.1m", "100u"),
            ("1e3", "1e3"),
            ("1E3", "1E3"),
            ("1000e3", "1e6"),
            ("12e-3", "12e-3"),
            ("1.5e3", "1500"),
            ("100e-6", "100e-6"),
            ("1e9", "1e9"),
            ("10e9", "10e9"),
            ("-1.5", "-1500m"),
            ("0.5Ki", "512"),
            ("0.5Mi", "512Ki"),
            ("1.1Mi", "1153433600m"),
            ("0.0001Ki", "102400u"),
            ("16Ei", "9223372036854775807"),
            ("500Mi", "500Mi"),
            ("2048Mi", "2Gi"),
            ("0.1", "100m"),
            ("0.25", "250m"),
            ("0.01", "10m"),
            ("0.0000000001", "1n"),
            ("3.0", "3"),
            ("12E", "12E"),
            ("1000E", "1000E"),
            ("64Ki", "64Ki"),
            ("1023", "1023"),
            ("0.000001", "1u"),
            ("+5Gi", "+5Gi"),
            ("1.500", "1.500"),
        ] {
            assert_eq!(canonical(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn malformed_texts_are_refused() {
        for (text, want) in [
            ("", QuantityError::Format),
            ("1.1.M", QuantityError::Format),
            ("1+1.0M", QuantityError::Format),
            ("0.1mi", QuantityError::Suffix),
            ("0.1am", QuantityError::Format),
            ("aoeu", QuantityError::Format),
            (".5i", QuantityError::Suffix),
            ("1i", QuantityError::Suffix),
            ("-3.01i", QuantityError::Suffix),
            ("10x", QuantityError::Format),
            ("1e", QuantityError::Suffix),
            ("1GB", QuantityError::Format),
            ("one", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("-", QuantityError::Numeric),
            (".", QuantityError::Numeric),
            ("1gi", QuantityError::Format),
        ] {
            assert_eq!(canonical(text), Err(want), "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        for (text, value, milli) in [
            ("1.2", 2, 1200),
            ("-1.2", -2, -1200),
            ("1m", 1, 1),
            ("1u", 1, 1),
            ("1Gi", 1 << 30, (1 << 30) * 1000),
            ("9E", 9_000_000_000_000_000_000, i64::MAX),
        ] {
            let q = Quantity::parse(text).unwrap();
            assert_eq!((q.value(), q.milli_value()), (value, milli), "{text}");
        }
        assert_eq!(
            Quantity::parse("0.1m")
                .unwrap()
                .round_up_milli()
                .to_string(),
            "1m"
        );
    }

    #[test]
    fn sums_keep_the_format_of_the_left() {
        let q = |t: &str| Quantity::parse(t).unwrap();
        assert_eq!((q("1Gi") + q("1Gi")).to_string(), "2Gi");
        assert_eq!((Quantity::ZERO + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("1") - q("250m")).to_string(), "750m");
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1000m"), q("1"));
    }

    proptest! {
        #[test]
        fn canonical_is_idempotent_and_keeps_the_value(whole in 0_i64..1_000_000_000, fraction in 0_u32..1_000_000, suffix in prop::sample::select(vec!["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3"])) {
            let text = format!("{whole}.{fraction:06}{suffix}");
            let once = canonical(&text).unwrap().into_owned();
            prop_assert_eq!(canonical(&once).unwrap(), once.as_str());
            prop_assert_eq!(Quantity::parse(&once).unwrap(), Quantity::parse(&text).unwrap());
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[-+.0-9eEinumkKMGTP]{0,40}|.{0,12}") {
            if let Ok(q) = Quantity::parse(&text) {
                prop_assert!(Quantity::parse(&q.to_string()).is_ok());
            }
        }

        #[test]
        fn addition_undoes_subtraction(a in any::<i32>(), b in any::<i32>()) {
            let (a, b) = (Quantity::milli(i64::from(a), Format::DecimalSi), Quantity::milli(i64::from(b), Format::DecimalSi));
            prop_assert_eq!(a - b + b, a);
            prop_assert_eq!(a.cmp(&b), (a - b).cmp(&Quantity::ZERO));
        }
    }
}
