//! The fields that take one of a few words, and which words: upstream's `+enum` types (feature OpenAPIEnums).
//!
//! The table is generated offline (`control/api/facts/enums`) and checked in; its lines are `TYPE FIELD WORD|...`, and
//! `FIELD[]` means the items of a list or the values of a map.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

static TABLE: LazyLock<HashMap<(&str, &str), Vec<&str>>> = LazyLock::new(|| {
    let lines = include_str!("enums.txt").lines();
    lines
        .filter_map(|line| {
            let mut parts = line.splitn(3, ' ');
            Some(((parts.next()?, parts.next()?), parts.next()?.split('|').collect()))
        })
        .collect()
});

/// Adds the words that a field of a type (`core.v1.ContainerPort`) takes to the field's schema.
pub(super) fn add(schema: &mut Value, type_name: &str, field: &str) {
    if let Some(words) = TABLE.get(&(type_name, field)) {
        schema["enum"] = words.as_slice().into();
    }
    if let Some(words) = TABLE.get(&(type_name, format!("{field}[]").as_str())) {
        for inner in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get_mut(inner) {
                inner["enum"] = words.as_slice().into();
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::facts::{Facts, Shape};

    #[test]
    fn every_line_is_about_a_field_of_strings() {
        let facts = Facts::builtin();
        for ((type_name, name), words) in TABLE.iter() {
            let ty = facts.get(facts.find(type_name).unwrap());
            let field = ty.field(name.trim_end_matches("[]")).unwrap_or_else(|| panic!("{type_name} {name}"));
            let shape = match &field.shape {
                Shape::List(item) | Shape::Map(item) if name.ends_with("[]") => item,
                shape => shape,
            };
            assert_eq!(*shape, Shape::String, "{type_name} {name}");
            assert!(!words.is_empty() && words.is_sorted(), "{type_name} {name}: {words:?}");
        }
        assert!(TABLE.len() > 60, "{}", TABLE.len());
    }
}
