//! Field selectors: `status.phase=Running,spec.nodeName!=a`.

use std::fmt;

use super::{Attributes, SelectorError};

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path.
    pub field: String,
    /// Whether it must equal `value`, or must not.
    pub equal: bool,
    /// The value.
    pub value: String,
}

/// A field selector: all requirements must be met.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// From its terms.
    pub fn of(requirements: Vec<FieldRequirement>) -> Self {
        Self { requirements }
    }

    /// From text. `\,`, `\=` and `\\` stand for themselves in a value. Which fields are known is checked by the resource.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            let at = term.find(['=', '!']).filter(|at| !term[*at..].starts_with('!') || term[*at..].starts_with("!="));
            let Some(at) = at else {
                return Err(SelectorError::new(format_args!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            let (field, rest) = term.split_at(at);
            let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
                (false, value)
            } else {
                (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).unwrap_or(rest))
            };
            requirements.push(FieldRequirement { field: field.to_owned(), equal, value: unescape(value)? });
        }
        Ok(Self { requirements })
    }

    /// Whether `attributes` are selected.
    pub fn matches(&self, attributes: &Attributes) -> bool {
        self.requirements.iter().all(|r| (attributes.field(&r.field) == r.value) == r.equal)
    }

    /// The value that a field must have, if the selector says so: `metadata.name=x` reads one object.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Its terms.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}{}", r.field, if r.equal { "=" } else { "!=" })?;
            for c in r.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// The terms between unescaped commas; empty ones are left out.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms.retain(|term| !term.is_empty());
    terms
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    let rest = other.map(String::from).unwrap_or_default();
                    return Err(SelectorError::new(format_args!(
                        "invalid field selector: invalid escape sequence: \\{rest}"
                    )));
                }
            },
            ',' | '=' => {
                return Err(SelectorError::new(format_args!(
                    "invalid field selector: unescaped character in value: {c}"
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terms() {
        let attributes = Attributes {
            fields: vec![("metadata.name", "a".into()), ("status.phase", "Running".into())],
            ..Attributes::default()
        };
        for (text, matches) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,status.phase!=Failed", true),
            ("metadata.name!=a", false),
            ("spec.nodeName=", true),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap().matches(&attributes), matches, "{text}");
        }
        for text in ["a", "a=b=c", "a=\\x", "a=\\", "a!b"] {
            assert!(FieldSelector::parse(text).is_err(), "{text}");
        }
        assert_eq!(FieldSelector::parse("metadata.name=x").unwrap().exact("metadata.name"), Some("x"));
    }

    proptest! {
        #[test]
        fn printed_is_parsed_back(terms in prop::collection::vec(("[a-z.]{1,8}", any::<bool>(), "[a-z=,\\\\!]{0,6}"), 0..4)) {
            let requirements = terms.into_iter().map(|(field, equal, value)| FieldRequirement { field, equal, value }).collect();
            let selector = FieldSelector::of(requirements);
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }
    }
}
