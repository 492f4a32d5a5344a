//! The part of preparing an object for storage that is the same for all kinds.

use serde_json::Value;

use super::{Generation, StatusRule, Strategy, Sub};
use crate::defaults::{Object, child_or_new};

/// Metadata that only the system sets, once.
const SYSTEM: [&str; 4] = ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"];

pub(super) fn create(strategy: &Strategy, object: &mut Object) {
    if strategy.status == StatusRule::Dropped {
        object.remove("status");
    }
    let Some(metadata) = child_or_new(object, "metadata") else {
        return;
    };
    metadata.remove("deletionTimestamp");
    metadata.remove("deletionGracePeriodSeconds");
    metadata.remove("selfLink");
    if !matches!(strategy.generation, Generation::Absent | Generation::FromNone) {
        metadata.insert("generation".into(), 1.into());
    }
}

/// Takes from the old object what this endpoint may not change.
pub(super) fn keep(strategy: &Strategy, new: &mut Object, old: &Value, sub: Sub) {
    if let Some(metadata) = child_or_new(new, "metadata") {
        let before = &old["metadata"];
        for key in SYSTEM {
            // A client that names another uid or creation time is told so by validation.
            let client_says = key == "uid" && metadata.get(key).is_some_and(|v| !v.is_null() && v != "");
            if !client_says {
                restore(metadata, before, key);
            }
        }
        restore(metadata, before, "generation");
        metadata.remove("selfLink");
        if sub == Sub::Status && strategy.generation == Generation::WithAnnotations {
            restore(metadata, before, "labels");
        }
    }
    match sub {
        Sub::Main | Sub::Scale if strategy.status != StatusRule::Absent => restore(new, old, "status"),
        Sub::Status => {
            new.retain(|key, _| matches!(key.as_str(), "metadata" | "status" | "kind" | "apiVersion"));
            for (key, value) in old.as_object().into_iter().flatten() {
                if !new.contains_key(key) && key != "status" {
                    new.insert(key.clone(), value.clone());
                }
            }
        }
        _ => {}
    }
}

fn restore(new: &mut Object, old: &Value, key: &str) {
    match &old[key] {
        Value::Null => {
            new.remove(key);
        }
        value => {
            new.insert(key.to_owned(), value.clone());
        }
    }
}

/// Adds one to the generation if what is desired has changed.
pub(super) fn count(strategy: &Strategy, new: &mut Object, old: &Value, sub: Sub) {
    // To be bound to a node is not a change of what is desired.
    let node =
        |spec: Option<&Value>| spec.is_some_and(|spec| spec["nodeName"].as_str().is_some_and(|name| !name.is_empty()));
    let bound = sub == Sub::Other && node(new.get("spec")) && !node(old.get("spec"));
    if sub == Sub::Status || bound {
        return;
    }
    let metadata_changed = |key: &str| {
        let before = &old["metadata"][key];
        !same(new.get("metadata").map_or(&Value::Null, |metadata| &metadata[key]), before)
    };
    let changed = match strategy.generation {
        Generation::Absent | Generation::Fixed => false,
        Generation::Counted | Generation::FromNone => desired_changed(new, old),
        Generation::WithAnnotations => desired_changed(new, old) || metadata_changed("annotations"),
        Generation::WithLabels => desired_changed(new, old) || metadata_changed("labels"),
    };
    if changed && let Some(metadata) = child_or_new(new, "metadata") {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        metadata.insert("generation".into(), generation.into());
    }
}

fn desired_changed(new: &Object, old: &Value) -> bool {
    let Some(old) = old.as_object() else {
        return true;
    };
    let desired = |key: &str| !matches!(key, "metadata" | "status" | "kind" | "apiVersion");
    let differs = |(key, value): (&String, &Value)| desired(key) && !same(value, old.get(key).unwrap_or(&Value::Null));
    new.iter().any(differs) || old.iter().any(|(key, value)| desired(key) && !value.is_null() && !new.contains_key(key))
}

/// Whether two trees mean the same: as equality, but null is the same as missing.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let within = |a: &Object, b: &Object| a.iter().all(|(k, v)| same(v, b.get(k).unwrap_or(&Value::Null)));
            within(a, b) && b.iter().all(|(k, v)| v.is_null() || a.contains_key(k))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a == b,
    }
}
