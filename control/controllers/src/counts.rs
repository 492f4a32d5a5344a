//! Numbers that the API has as numbers or as percentages.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A number, or a percentage of `of`, rounded up or down; never negative.
pub(crate) fn portion(value: &IntOrString, of: i32, up: bool) -> i32 {
    let value = match value {
        IntOrString::Int(value) => *value,
        IntOrString::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            let product = percent.saturating_mul(i64::from(of));
            let rounded = if up { product.saturating_add(99) / 100 } else { product / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    };
    value.max(0)
}

/// A count as the API has it.
pub(crate) fn saturate(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// A count that the API leaves out where it is zero.
pub(crate) fn positive(count: i32) -> Option<i32> {
    (count > 0).then_some(count)
}

/// A number of the API as a count: none where it is negative.
pub(crate) fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_told() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        assert_eq!(portion(&percent("25%"), 10, true), 3);
        assert_eq!(portion(&percent("25%"), 10, false), 2);
        assert_eq!(portion(&percent("0%"), 10, true), 0);
        assert_eq!(portion(&IntOrString::Int(7), 3, true), 7);
        assert_eq!(portion(&IntOrString::Int(-1), 3, true), 0);
    }
}
