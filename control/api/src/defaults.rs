//! The values that objects get where their author left them out.
//!
//! Every function takes the object as a tree and fills in place, in one pass and without copying what is already
//! there. A field counts as left out if it is missing or null and, as in the Go types, if it is an empty string
//! (for [`Lit::Str`]) or zero (for [`Lit::Positive`]).
//!
//! Defaulting is idempotent: the defaults of a defaulted object change nothing.

use serde_json::{Map, Value};

use crate::quantity::{self, Quantity};

mod cluster;
mod pod;
mod workloads;

pub(crate) use cluster::*;
pub(crate) use pod::*;
pub(crate) use workloads::*;

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// A default value, and with it what counts as unset.
#[derive(Clone, Copy)]
pub(crate) enum Lit {
    /// A string; the empty string is unset.
    Str(&'static str),
    /// A pointer to a string; the empty string is a value.
    Text(&'static str),
    /// A pointer to a number; zero is a value.
    Int(i64),
    /// A plain number; zero is unset.
    Positive(i64),
    /// A pointer to a bool.
    Bool(bool),
    /// A struct that is always present.
    Struct,
}

/// Fills the fields of a table that are unset.
pub(crate) fn fill(object: &mut Object, table: &[(&str, Lit)]) {
    for (key, lit) in table {
        let unset = match (object.get(*key), lit) {
            (None | Some(Value::Null), _) => true,
            (Some(Value::String(s)), Lit::Str(_)) => s.is_empty(),
            (Some(Value::Number(n)), Lit::Positive(_)) => n.as_i64() == Some(0),
            _ => false,
        };
        if unset {
            let value = match lit {
                Lit::Str(s) | Lit::Text(s) => Value::from(*s),
                Lit::Int(n) | Lit::Positive(n) => Value::from(*n),
                Lit::Bool(b) => Value::from(*b),
                Lit::Struct => Value::Object(Object::new()),
            };
            object.insert((*key).to_owned(), value);
        }
    }
}

/// The object below `key`, if there is one.
pub(crate) fn child<'a>(object: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    object.get_mut(key).and_then(Value::as_object_mut)
}

/// The object below `key`, made if it is missing or null; `None` if something else is there.
pub(crate) fn child_or_new<'a>(object: &'a mut Object, key: &str) -> Option<&'a mut Object> {
    let value = object.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Object::new());
    }
    value.as_object_mut()
}

/// Runs `f` on each object of the list below `key`.
pub(crate) fn each(object: &mut Object, key: &str, f: impl FnMut(&mut Object)) {
    if let Some(Value::Array(items)) = object.get_mut(key) {
        items.iter_mut().filter_map(Value::as_object_mut).for_each(f);
    }
}

/// The text of a field; empty if it is missing.
pub(crate) fn text<'a>(object: &'a Object, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a field is missing, null, or an empty list or object.
pub(crate) fn is_empty(object: &Object, key: &str) -> bool {
    match object.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        _ => false,
    }
}

/// Brings the quantities of the resource list below `key` to their canonical form, rounded up to thousandths.
pub(crate) fn resource_list(object: &mut Object, key: &str) {
    let Some(list) = child(object, key) else {
        return;
    };
    for value in list.values_mut() {
        let new = match &*value {
            Value::String(text) => canonical_milli(text),
            Value::Number(number) => canonical_milli(&number.to_string()).or_else(|| Some(number.to_string())),
            _ => None,
        };
        if let Some(new) = new {
            *value = Value::String(new);
        }
    }
}

/// The stored form of a quantity; `None` if it is in that form already, or is no quantity (which validation reports).
fn canonical_milli(text: &str) -> Option<String> {
    let parsed = Quantity::parse(text).ok()?;
    let rounded = parsed.round_up_milli();
    if rounded != parsed {
        return Some(rounded.to_string());
    }
    match quantity::canonical(text).ok()? {
        kept if kept == text => None,
        new => Some(new.into_owned()),
    }
}

/// Copies the entries of `from` that `to` lacks; both are resource lists in `object`.
pub(crate) fn inherit(object: &mut Object, from: &str, to: &str) {
    let Some(source) = object.get(from).and_then(Value::as_object).cloned() else {
        return;
    };
    if let Some(target) = child_or_new(object, to) {
        for (key, value) in source {
            target.entry(key).or_insert(value);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
