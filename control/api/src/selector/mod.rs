//! Which objects are meant: label selectors (text and object form) and field selectors.
//!
//! What a stored object can be selected by is kept beside it as [`Attributes`], so that lists and watches never parse
//! objects.

use std::collections::BTreeMap;
use std::fmt;

mod fields;
mod labels;
mod parse;

pub use fields::{FieldRequirement, FieldSelector};
pub use labels::{LabelSelector, Operator, Requirement, is_label_value, is_qualified_name};

/// What an object can be selected by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The selectable fields of its kind; `metadata.name` and `metadata.namespace` are always among them.
    pub fields: Vec<(&'static str, String)>,
}

impl Attributes {
    /// The value of a selectable field; empty if the object has none, as upstream has it.
    pub fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// A selector that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

impl SelectorError {
    fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string())
    }
}
