//! Sets of completion indexes, as a Job's status writes them: `1,3-5,7`. Pure.

use std::{collections::BTreeSet, fmt::Write};

/// Completion indexes.
pub(super) type Indexes = BTreeSet<i32>;

/// Reads a list; what is not a number, or beyond `completions`, is passed over.
pub(super) fn parse(text: &str, completions: i32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    indexes
}

/// Writes a list, runs of three and more with a hyphen.
pub(super) fn format(indexes: &Indexes) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for &index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let mut text = String::new();
    for (first, last) in runs {
        let comma = if text.is_empty() { "" } else { "," };
        let joint = match last - first {
            0 => String::new(),
            1 => format!(",{last}"),
            _ => format!("-{last}"),
        };
        // Writing to a String does not fail.
        let _ = write!(text, "{comma}{first}{joint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_upstream_writes_them() {
        assert_eq!(format(&parse("1,3-5,7", 10)), "1,3-5,7");
        assert_eq!(format(&Indexes::from([0, 1])), "0,1");
        assert_eq!(format(&Indexes::new()), "");
        assert_eq!(parse("2-9,x", 4), Indexes::from([2, 3]));
    }

    proptest! {
        #[test]
        fn reads_what_it_wrote(indexes in prop::collection::btree_set(0i32..60, 0..40)) {
            prop_assert_eq!(parse(&format(&indexes), 60), indexes);
        }
    }
}
