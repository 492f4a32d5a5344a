//! What is wrong with an object, in upstream's words, with the path of every field concerned.
//!
//! Checks walk the tree with an [`At`], a path that lives on the stack and becomes text only when something is wrong,
//! and collect into [`Errors`]. A check never stops at the first error and never panics; a value of the wrong type counts as
//! missing, since decoding has refused it before.

use std::fmt::Write as _;

use serde_json::Value;

use crate::field::{FieldError, Path};
use crate::strategy::{dig, same};

pub(crate) mod addresses;
pub(crate) mod aggregation;
pub(crate) mod autoscaling;
pub(crate) mod batch;
pub(crate) mod certificates;
pub(crate) mod cluster;
pub(crate) mod container;
pub(crate) mod discovery;
pub(crate) mod endpoints;
pub(crate) mod env;
pub(crate) mod events;
pub(crate) mod flowcontrol;
mod job_status;
pub(crate) mod meta;
pub mod names;
pub(crate) mod networking;
pub(crate) mod persistent;
pub(crate) mod pod;
mod pod_annotations;
mod pod_gated;
mod pod_parts;
mod pod_security;
pub(crate) mod policy;
pub(crate) mod probe;
pub(crate) mod rbac;
pub(crate) mod resources;
pub(crate) mod scheduling;
pub(crate) mod service;
mod sources;
pub(crate) mod storage;
pub(crate) mod volume;
pub(crate) mod workload;

/// Where a check is: a list of steps on the stack.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    up: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// A field of the object itself.
    pub(crate) fn root(name: &'a str) -> Self {
        Self { up: None, step: Step::Field(name) }
    }

    /// A field below.
    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        Self { up: Some(self), step: Step::Field(name) }
    }

    /// An item of this list.
    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self { up: Some(self), step: Step::Index(index) }
    }

    /// An entry of this map.
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self { up: Some(self), step: Step::Key(key) }
    }

    fn write(&self, text: &mut String) {
        if let Some(up) = self.up {
            up.write(text);
        }
        match self.step {
            Step::Field(name) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Step::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
            Step::Key(key) => {
                let _ = write!(text, "[{key}]");
            }
        }
    }

    fn path(&self) -> Path {
        let mut text = String::new();
        self.write(&mut text);
        Path::new(text)
    }
}

/// The errors found so far.
#[derive(Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    pub(crate) fn required(&mut self, at: &At, detail: impl Into<String>) {
        self.0.push(FieldError::required(&at.path(), detail));
    }

    pub(crate) fn invalid(&mut self, at: &At, value: impl Into<Value>, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(&at.path(), value, detail));
    }

    pub(crate) fn not_supported(&mut self, at: &At, value: impl Into<Value>, supported: &[&str]) {
        self.0.push(FieldError::not_supported(&at.path(), value, supported));
    }

    pub(crate) fn duplicate(&mut self, at: &At, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(&at.path(), value));
    }

    pub(crate) fn forbidden(&mut self, at: &At, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(&at.path(), detail));
    }

    pub(crate) fn too_long(&mut self, at: &At, max: usize) {
        self.0.push(FieldError::too_long(&at.path(), max));
    }

    pub(crate) fn too_many(&mut self, at: &At, actual: usize, max: usize) {
        self.0.push(FieldError::too_many(&at.path(), actual, max));
    }

    /// An invalid value that is too large to be shown.
    pub(crate) fn invalid_because(&mut self, at: &At, detail: &str) {
        let mut error = FieldError::invalid(&at.path(), Value::Null, detail);
        error.bad_value = None;
        self.0.push(error);
    }

    pub(crate) fn not_found(&mut self, at: &At, value: impl Into<Value>) {
        self.0.push(FieldError::not_found(&at.path(), value));
    }

    /// Something that is not there, and what is.
    pub(crate) fn not_found_because(&mut self, at: &At, value: impl Into<Value>, detail: String) {
        let mut error = FieldError::not_found(&at.path(), value);
        error.detail = detail;
        self.0.push(error);
    }

    /// Reports what a rule says about a value.
    pub(crate) fn rule(&mut self, at: &At, value: &str, rule: names::Rule) {
        for message in rule(value) {
            self.invalid(at, value, message);
        }
    }

    /// Reports a value that is not one of those listed.
    pub(crate) fn one_of(&mut self, at: &At, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.not_supported(at, value, supported);
        }
    }

    /// Reports a field that has changed and must not.
    pub(crate) fn immutable(&mut self, at: &At, new: &Value, old: &Value) {
        if !same(new, old) {
            self.invalid(at, new.clone(), "field is immutable");
        }
    }

    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    /// A duplicate that needs explaining.
    pub(crate) fn duplicate_because(&mut self, at: &At, value: impl Into<Value>, detail: &str) {
        let mut error = FieldError::duplicate(&at.path(), value);
        error.detail = detail.to_owned();
        self.0.push(error);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// A field that stays as it was made, and what is said of who tries to change it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fixed {
    /// `Invalid value: ...: field is immutable`.
    Immutable(&'static str),
    /// `Invalid value: ...` with another reason.
    Invalid(&'static str, &'static str),
    /// `Forbidden` with a reason.
    Forbidden(&'static str, &'static str),
}

impl Fixed {
    /// Reports the field if it differs.
    pub(crate) fn check(self, new: &Value, old: &Value, errors: &mut Errors) {
        let (Self::Immutable(path) | Self::Invalid(path, _) | Self::Forbidden(path, _)) = self;
        let (new, old) = (dig(new, path), dig(old, path));
        if same(new, old) {
            return;
        }
        let at = At::root(path);
        match self {
            Self::Immutable(_) => errors.immutable(&at, new, old),
            Self::Invalid(_, why) => errors.invalid(&at, new.clone(), why),
            Self::Forbidden(_, why) => errors.forbidden(&at, why),
        }
    }
}

/// The lists of containers that a PodSpec can have, in upstream's order of visits.
pub(crate) const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// The text of a field; empty if it is missing.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The items of a list; none if it is missing.
pub(crate) fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The entries of a map; none if it is missing.
pub(crate) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Whether a field is neither missing nor null.
pub(crate) fn is_set(value: &Value, key: &str) -> bool {
    !value[key].is_null()
}

/// Reports a number below zero.
pub(crate) fn not_negative(value: &Value, at: &At, errors: &mut Errors) {
    if let Some(n) = value.as_i64().filter(|n| *n < 0) {
        errors.invalid(at, n, NOT_NEGATIVE);
    }
}

/// What is said of a number below zero.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

#[cfg(test)]
mod tests;
