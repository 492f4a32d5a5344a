//! What is special to a kind: its defaults, what it drops and computes on writes, its validation, its table.
//!
//! The server asks the [`Strategy`] of a resource's row at fixed points of a write:
//!
//! ```text
//! decode -> default -> (admission) -> prepare_create | prepare_update -> validate | validate_update -> store
//! ```
//!
//! What is the same for all kinds (system metadata, status against spec, generation, `metadata` validation) is done
//! here, driven by the row's data; a kind adds hooks. Kinds that are not in the table, such as custom resources, get
//! the generic strategy: spec, status and a counted generation.
//!
//! Guarantees: no hook fails or panics on an object of any shape; a kind's hooks touch only what they name.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::Value;

use crate::apply::FieldSet;
use crate::columns::Column;
use crate::defaults::Object;
use crate::field::FieldError;
use crate::validation::{self, Errors, Fixed, names};

mod aggregation;
mod apps;
mod base;
mod batch;
mod certificates;
mod core;
mod fields;
mod gates;
mod pod;
mod pod_parts;
mod prepare;
mod table;
mod warnings;

use base::CUSTOM;
pub use fields::Field;
pub(crate) use fields::dig;
pub(crate) use pod::qos_class;
pub(crate) use prepare::same;

/// The endpoint through which an object is updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sub {
    /// The object itself: status stays as it was.
    Main,
    /// `status`: all but status (and most of metadata) stays as it was.
    Status,
    /// `approval` of a certificate signing request: its conditions alone.
    Approval,
    /// `scale`: as the object itself.
    Scale,
    /// `ephemeralcontainers` of a Pod: that list alone.
    Ephemeral,
    /// `resize` of a Pod: the resources of its containers alone.
    Resize,
    /// Any other subresource: what it may change is up to its handler.
    Other,
}

/// What becomes of the status that a client sends with a new object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusRule {
    /// The kind has no status.
    Absent,
    /// It is dropped.
    Dropped,
    /// It is kept (Node: the kubelet creates itself with one).
    Kept,
}

/// What counts as a change of what is desired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// Nothing: the kind has no generation.
    Absent,
    /// All but metadata and status.
    Counted,
    /// The same and annotations (Deployment copies them to its ReplicaSets).
    WithAnnotations,
    /// The same and labels (EndpointSlice).
    WithLabels,
    /// It is 1 for ever.
    Fixed,
    /// The changes of all but metadata, from none on (CSIDriver).
    FromNone,
}

/// The behaviour of one kind.
#[derive(Clone, Debug)]
pub struct Strategy {
    /// The columns of the kind's table.
    pub columns: &'static [Column],
    /// What field selectors can name, `metadata.name` and `metadata.namespace` aside.
    pub fields: &'static [Field],
    /// Whether an update may leave out the resource version.
    pub allow_unconditional_update: bool,
    /// Whether PUT makes the object if it is not there.
    pub allow_create_on_update: bool,
    status: StatusRule,
    generation: Generation,
    name: names::Rule,
    default: fn(&mut Value),
    create: fn(&mut Object),
    update: fn(&mut Object, &Value, Sub),
    /// What is asked of new objects alone.
    check_new: fn(&Value, &mut Errors),
    /// What stays as it was made.
    fixed: &'static [Fixed],
    check: fn(&Value, &mut Errors),
    check_update: fn(&Value, &Value, Sub, &mut Errors),
    warn: fn(&Value, &mut Vec<String>),
    row: fn(&Value, Timestamp) -> Vec<Value>,
    grace: fn(&Value, Option<i64>) -> i64,
}

/// The strategy of a kind; a generic one if the kind has none of its own.
pub fn strategy(group: &str, kind: &str) -> &'static Strategy {
    table::TABLE.iter().find(|(g, k, _)| *g == group && *k == kind).map_or(&CUSTOM, |(_, _, strategy)| strategy)
}

impl Strategy {
    /// Fills in what the author left out. Idempotent.
    pub fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    /// Makes a new object ready: drops what clients may not set, computes the first status, sets generation 1.
    pub fn prepare_create(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else {
            return;
        };
        prepare::create(self, object);
        (self.create)(object);
    }

    /// Makes an updated object ready: keeps system metadata and, by endpoint, status or spec of the old one; counts
    /// the generation.
    pub fn prepare_update(&self, new: &mut Value, old: &Value, sub: Sub) {
        let Some(new) = new.as_object_mut() else {
            return;
        };
        prepare::keep(self, new, old, sub);
        (self.update)(new, old, sub);
        prepare::count(self, new, old, sub);
    }

    /// What is wrong with a new object.
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        validation::meta::create(object, self.name, &mut errors);
        (self.check)(object, &mut errors);
        (self.check_new)(object, &mut errors);
        errors.into_vec()
    }

    /// What is wrong with a changed object.
    pub fn validate_update(&self, new: &Value, old: &Value, sub: Sub) -> Vec<FieldError> {
        let mut errors = Errors::default();
        validation::meta::update(new, old, &mut errors);
        if matches!(sub, Sub::Main | Sub::Scale | Sub::Ephemeral | Sub::Resize) {
            (self.check)(new, &mut errors);
            for field in self.fixed {
                field.check(new, old, &mut errors);
            }
        }
        (self.check_update)(new, old, sub, &mut errors);
        errors.into_vec()
    }

    /// What is allowed but probably not meant.
    pub fn warnings(&self, object: &Value) -> Vec<String> {
        let mut warnings = Vec::new();
        (self.warn)(object, &mut warnings);
        warnings
    }

    /// The object's cells, one for each of `columns`.
    pub fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.row)(object, now)
    }

    /// What field selectors match against: `metadata.name`, `metadata.namespace` and the kind's own fields.
    pub fn selectable(&self, object: &Value) -> Vec<(&'static str, String)> {
        fields::selectable(self.fields, object)
    }

    /// Whether a field selector may name `field`.
    pub fn is_selectable(&self, field: &str) -> bool {
        matches!(field, "metadata.name" | "metadata.namespace") || self.fields.iter().any(|f| f.name == field)
    }

    /// The seconds an object is given before it is gone; 0 means at once. `asked` is what the delete options say.
    pub fn grace(&self, object: &Value, asked: Option<i64>) -> i64 {
        (self.grace)(object, asked)
    }

    /// What a client of the endpoint cannot change, and so does not manage by writing there (upstream: resetFields).
    pub fn reset(&self, sub: Sub) -> &'static FieldSet {
        static STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of(&[&["status"]]));
        static SPEC: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of(&[&["spec"]]));
        static SPEC_AND_LABELS: LazyLock<FieldSet> =
            LazyLock::new(|| FieldSet::of(&[&["spec"], &["metadata", "labels"]]));
        static BUT_CONDITIONS: LazyLock<FieldSet> =
            LazyLock::new(|| FieldSet::of(&[&["spec"], &["status", "certificate"]]));
        match sub {
            Sub::Approval => &BUT_CONDITIONS,
            Sub::Status if self.generation == Generation::WithAnnotations => &SPEC_AND_LABELS,
            Sub::Status => &SPEC,
            _ => &STATUS,
        }
    }

    /// Whether the kind has a status that the main endpoint leaves alone.
    pub fn has_status(&self) -> bool {
        self.status != StatusRule::Absent
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
