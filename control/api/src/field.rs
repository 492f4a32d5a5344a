//! Where in an object something is wrong, and what: the causes of an `Invalid` status.
//!
//! The texts are what kubectl users know: `spec.containers[0].image: Required value`.

use std::fmt;

use serde_json::Value;

/// The way to a field: `spec.containers[0].env[key]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Path(String);

impl Path {
    /// A path that begins at `name`; dots in it are kept (`spec.template`).
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The object itself, before any field.
    pub fn root() -> Self {
        Self::default()
    }

    /// The field `name` below this one; dots in it are kept.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() {
            return Self(name.to_owned());
        }
        let mut path = String::with_capacity(self.0.len() + 1 + name.len());
        path.push_str(&self.0);
        path.push('.');
        path.push_str(name);
        Self(path)
    }

    /// The item at `index` of this list.
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The value at `key` of this map.
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Path {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    /// The field must be there and not empty.
    Required,
    /// The value is not one that the field can have.
    Invalid,
    /// The value is not one of those listed.
    NotSupported,
    /// The value must be unique and is not.
    Duplicate,
    /// The field may not be set here.
    Forbidden,
    /// The value has too many bytes or characters.
    TooLong,
    /// The value has too few bytes or characters.
    TooShort,
    /// The list has too many items.
    TooMany,
    /// The list has too few items.
    TooFew,
    /// The value names something that is not there.
    NotFound,
    /// The value has the wrong type.
    TypeInvalid,
    /// The check itself failed.
    Internal,
}

impl FieldErrorKind {
    /// The cause's `reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooShort => "FieldValueTooShort",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooShort => "Too short",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// Where.
    pub path: Path,
    /// The value found there, if the message should show it.
    pub bad_value: Option<Value>,
    /// What would be right.
    pub detail: String,
}

impl FieldError {
    fn build(kind: FieldErrorKind, path: &Path, bad_value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, path: path.clone(), bad_value, detail: detail.into() }
    }

    /// The field must be there and not empty; `detail` may be empty.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::build(FieldErrorKind::Required, path, None, detail)
    }

    /// The value is malformed or out of range.
    pub fn invalid(path: &Path, bad_value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::build(FieldErrorKind::Invalid, path, Some(bad_value.into()), detail)
    }

    /// The value is not one of `supported`.
    pub fn not_supported<S: AsRef<str>>(path: &Path, bad_value: impl Into<Value>, supported: &[S]) -> Self {
        let mut detail = String::new();
        for (i, value) in supported.iter().enumerate() {
            detail.push_str(if i == 0 { "supported values: " } else { ", " });
            detail.push_str(&quote(value.as_ref()));
        }
        Self::build(FieldErrorKind::NotSupported, path, Some(bad_value.into()), detail)
    }

    /// The value is there twice.
    pub fn duplicate(path: &Path, bad_value: impl Into<Value>) -> Self {
        Self::build(FieldErrorKind::Duplicate, path, Some(bad_value.into()), "")
    }

    /// The field may not be set, or not be changed.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::build(FieldErrorKind::Forbidden, path, None, detail)
    }

    /// The value is longer than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::build(FieldErrorKind::TooLong, path, None, format!("may not be more than {max} {unit}"))
    }

    /// The list has `actual` items and may have `max`.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::build(FieldErrorKind::TooMany, path, Some(actual.into()), format!("must have at most {max} {unit}"))
    }

    /// The value names something that is not there.
    pub fn not_found(path: &Path, bad_value: impl Into<Value>) -> Self {
        Self::build(FieldErrorKind::NotFound, path, Some(bad_value.into()), "")
    }

    /// The value has the wrong type.
    pub fn type_invalid(path: &Path, bad_value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::build(FieldErrorKind::TypeInvalid, path, Some(bad_value.into()), detail)
    }

    /// The message without the path: a cause's `message`.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        match (&self.bad_value, self.kind) {
            (
                _,
                FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::TooLong
                | FieldErrorKind::TooShort
                | FieldErrorKind::Internal,
            )
            | (None, _) => {}
            (Some(Value::String(value)), _) => {
                text.push_str(": ");
                text.push_str(&quote(value));
            }
            (Some(value), _) => {
                text.push_str(": ");
                text.push_str(&value.to_string());
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

impl std::error::Error for FieldError {}

/// `text` in double quotes, with what cannot be printed escaped.
pub(crate) fn quote(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_in_upstream() {
        let path = Path::new("spec").child("containers").index(0).child("env").key("a/b");
        assert_eq!(path.to_string(), "spec.containers[0].env[a/b]");
        assert_eq!(Path::root().child("kind").as_str(), "kind");
    }

    #[test]
    fn messages_read_as_in_upstream() {
        let path = Path::new("spec.type");
        assert_eq!(FieldError::required(&path, "").to_string(), "spec.type: Required value");
        assert_eq!(
            FieldError::not_supported(&path, "X", &["A", "B"]).to_string(),
            "spec.type: Unsupported value: \"X\": supported values: \"A\", \"B\""
        );
        assert_eq!(
            FieldError::invalid(&path, -1, "must be positive").to_string(),
            "spec.type: Invalid value: -1: must be positive"
        );
        assert_eq!(FieldError::too_long(&path, 63).to_string(), "spec.type: Too long: may not be more than 63 bytes");
        assert_eq!(FieldError::too_many(&path, 4, 3).to_string(), "spec.type: Too many: 4: must have at most 3 items");
        assert_eq!(FieldError::duplicate(&path, "a").to_string(), "spec.type: Duplicate value: \"a\"");
    }
}
