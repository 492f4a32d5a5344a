//! Canonical forms, refusals, arithmetic.

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
    assert_eq!(Quantity::parse("0.1m").unwrap().round_up_milli().to_string(), "1m");
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
