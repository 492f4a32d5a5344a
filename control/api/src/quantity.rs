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
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
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
    let letters = rest.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = rest[letters..].strip_prefix(['-', '+']).unwrap_or(&rest[letters..]);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    let (format, exponent) = suffix(rest).ok_or(QuantityError::Suffix)?;
    Ok(Parts { negative, whole: whole.trim_start_matches('0'), fraction, format, exponent })
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
        _ => (Format::DecimalExponent, text.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

fn number(text: &str) -> i128 {
    text.bytes().fold(0_i128, |n, b| n.saturating_mul(10).saturating_add(i128::from(b - b'0')))
}

fn pow10(n: i64) -> i128 {
    u32::try_from(n).ok().and_then(|n| 10_i128.checked_pow(n)).unwrap_or(i128::MAX)
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
            let small = if places > 9 { div_up(scaled, pow10(places - 9)) } else { scaled * pow10(9 - places) };
            whole.saturating_mul(factor).saturating_mul(NANO).saturating_add(small).min(MAX_BINARY)
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
            match whole.checked_mul(pow10(places)).and_then(|w| w.checked_add(fraction)) {
                Some(all) => scale(all, exponent.saturating_sub(places)),
                None => scale(whole, exponent).saturating_add(scale(fraction, exponent.saturating_sub(places))),
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
            return self.fraction.is_empty() && length + self.exponent * 3 / 10 < 15 && number(self.whole) & 7 != 0;
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
    Ok(Cow::Owned(Quantity { nano: parts.nano(), format: parts.format }.to_string()))
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// A whole number.
    pub const fn new(value: i64, format: Format) -> Self {
        Self { nano: value as i128 * NANO, format }
    }

    /// A number of thousandths.
    pub const fn milli(value: i64, format: Format) -> Self {
        Self { nano: value as i128 * (NANO / 1000), format }
    }

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let parts = scan(text.trim())?;
        Ok(Self { nano: parts.nano(), format: parts.format })
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
        Self { nano: if self.nano < 0 { -magnitude } else { magnitude }, format: self.format }
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
            format: if self.is_zero() { other.format } else { self.format },
        }
    }
}

impl Sub for Quantity {
    type Output = Self;

    /// The difference, in the format of the left side unless that is zero.
    fn sub(self, other: Self) -> Self {
        Self {
            nano: self.nano.saturating_sub(other.nano),
            format: if self.is_zero() { other.format } else { self.format },
        }
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nano: self.nano.saturating_neg(), format: self.format }
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
        if self.format == Format::BinarySi && self.is_whole() && self.nano.saturating_abs() >= 1024 * NANO {
            let mut value = self.nano / NANO;
            let mut times = 0;
            while value % 1024 == 0 && times < 6 {
                value /= 1024;
                times += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][times]);
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
            _ => {
                write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize])
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
