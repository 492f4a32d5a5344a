//! Label selectors.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::{SelectorError, parse};

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label has one of the values. `=` and `==` are read as this with one value.
    In,
    /// The label is absent or has none of the values. `!=` is read as this with one value.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// The label is an integer greater than the value.
    GreaterThan,
    /// The label is an integer less than the value.
    LessThan,
}

/// One term of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How it compares.
    pub operator: Operator,
    /// Sorted and unique.
    pub values: Vec<String>,
}

impl Requirement {
    /// A requirement, if its key and values are valid for its operator.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        check_key(key)?;
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err(SelectorError::new(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
                ));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(SelectorError::new(
                    "values: Invalid value: values set must be empty for exists and does not exist",
                ));
            }
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    return Err(SelectorError::new(
                        "values: Invalid value: for 'Gt', 'Lt' operators, exactly one value is required",
                    ));
                }
                if values[0].parse::<i64>().is_err() {
                    return Err(SelectorError::new(format_args!(
                        "values[0]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                        values[0]
                    )));
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            if let Err(why) = is_label_value(value) {
                return Err(SelectorError::new(format_args!("values[{i}][{key}]: Invalid value: {value:?}: {why}")));
            }
        }
        values.sort_unstable();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether `labels` meet this requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|v| self.values.contains(v)),
            Operator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compare(value).is_some_and(|o| o.is_gt()),
            Operator::LessThan => self.compare(value).is_some_and(|o| o.is_lt()),
        }
    }

    fn compare(&self, value: Option<&String>) -> Option<std::cmp::Ordering> {
        let value: i64 = value?.parse().ok()?;
        let bound: i64 = self.values.first()?.parse().ok()?;
        Some(value.cmp(&bound))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (self.operator, self.values.as_slice()) {
            (Operator::In, [value]) => write!(f, "{key}={value}"),
            (Operator::NotIn, [value]) => write!(f, "{key}!={value}"),
            (Operator::In, values) => write!(f, "{key} in ({})", values.join(",")),
            (Operator::NotIn, values) => write!(f, "{key} notin ({})", values.join(",")),
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::GreaterThan, values) => write!(f, "{key}>{}", values.join(",")),
            (Operator::LessThan, values) => write!(f, "{key}<{}", values.join(",")),
        }
    }
}

/// A label selector: all requirements must be met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Selects no object: what an absent selector object means.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// From its terms.
    pub fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// From the text form: `app=web,tier in (a,b),!old`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::labels(text).map(Self::of)
    }

    /// From a plain map, as Services and ReplicationControllers have it.
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        Self::of(
            map.iter()
                .map(|(key, value)| Requirement {
                    key: key.clone(),
                    operator: Operator::In,
                    values: vec![value.clone()],
                })
                .collect(),
        )
    }

    /// From the object form (`matchLabels`, `matchExpressions`). Absent or null selects nothing, empty everything.
    pub fn from_object(object: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(object) = object.and_then(Value::as_object) else {
            return Ok(Self::nothing());
        };
        let mut requirements = Vec::new();
        if let Some(labels) = object.get("matchLabels").and_then(Value::as_object) {
            for (key, value) in labels {
                let value = value.as_str().unwrap_or_default().to_owned();
                requirements.push(Requirement::new(key, Operator::In, vec![value])?);
            }
        }
        for expression in object.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError::new(format_args!("{other:?} is not a valid label selector operator")));
                }
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(|v| v.as_str().map(str::to_owned)).collect();
            requirements.push(Requirement::new(expression["key"].as_str().unwrap_or_default(), operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// Whether `labels` are selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Its terms, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

const NAME: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const NAME_REGEX: &str = "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

pub(super) fn check_key(key: &str) -> Result<(), SelectorError> {
    is_qualified_name(key).map_err(|why| SelectorError::new(format_args!("key: Invalid value: {key:?}: {why}")))
}

fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let [first, .., last] = bytes else {
        return bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    };
    first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            let bytes = label.as_bytes();
            let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            alphanumeric(bytes.first())
                && alphanumeric(bytes.last())
                && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        })
}

/// Whether `key` can be a label key: `[prefix/]name`. Else why not.
pub fn is_qualified_name(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => {
            return Err(format!(
                "a qualified name {NAME} {NAME_REGEX} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
        }
        Some(("", _)) => return Err("prefix part must be non-empty".into()),
        Some((prefix, _)) if !is_subdomain(prefix) => {
            return Err("prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character".into());
        }
        Some((_, name)) => name,
    };
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    if name.len() > 63 {
        return Err("name part must be no more than 63 bytes".into());
    }
    if !is_name(name) {
        return Err(format!("name part {NAME} {NAME_REGEX}"));
    }
    Ok(())
}

/// Whether `value` can be a label value. Else why not.
pub fn is_label_value(value: &str) -> Result<(), String> {
    if value.len() > 63 {
        return Err("must be no more than 63 bytes".into());
    }
    if !value.is_empty() && !is_name(value) {
        return Err("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".into());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn text_form() {
        let labels = set(&[("app", "web"), ("n", "5"), ("empty", "")]);
        for (text, matches) in [
            ("", true),
            ("app=web", true),
            ("app==web , n", true),
            ("app!=web", false),
            ("gone!=web", true),
            ("app in (a,web)", true),
            ("app notin (a,web)", false),
            ("gone notin (a)", true),
            ("!gone", true),
            ("! app", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app>1", false),
            ("empty=", true),
            ("empty in ()", true),
            ("empty in (,a)", true),
            ("in in (in)", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), matches, "{text}");
        }
        for text in [
            ",",
            "a,",
            "a=b=c",
            "a in",
            "a in (",
            "a in b",
            "=b",
            "a b",
            "!a=b c",
            "a>b",
            "-a",
            "x/y/z",
            "a=b,,c",
            "a in (b c)",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn object_form() {
        assert!(!LabelSelector::from_object(None).unwrap().matches(&set(&[])));
        assert!(LabelSelector::from_object(Some(&json!({}))).unwrap().is_everything());
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d", "e"]}]});
        let selector = LabelSelector::from_object(Some(&selector)).unwrap();
        assert_eq!(selector.to_string(), "a=b,c notin (d,e)");
        assert!(selector.matches(&set(&[("a", "b")])));
        let bad = json!({"matchExpressions": [{"key": "c", "operator": "Near"}]});
        assert!(LabelSelector::from_object(Some(&bad)).is_err());
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let value = "([a-z0-9]([a-z0-9.]{0,3}[a-z0-9])?)?";
        ("[a-z]{1,4}(\\.[a-z]{1,3})?", 0..6u8, prop::collection::vec(value, 1..4), any::<i32>()).prop_map(
            |(key, op, values, n)| {
                let (operator, values) = match op {
                    0 => (Operator::In, values),
                    1 => (Operator::NotIn, values),
                    2 => (Operator::Exists, vec![]),
                    3 => (Operator::DoesNotExist, vec![]),
                    4 => (Operator::GreaterThan, vec![n.unsigned_abs().to_string()]),
                    _ => (Operator::LessThan, vec![n.unsigned_abs().to_string()]),
                };
                Requirement::new(&key, operator, values).unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn printed_is_parsed_back(requirements in prop::collection::vec(requirement(), 0..5)) {
            let selector = LabelSelector::of(requirements);
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn any_text_is_answered(text in "[a-c=!<>(), /in]{0,24}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
