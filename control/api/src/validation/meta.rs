//! `metadata`: of all kinds alike.

use serde_json::Value;

use super::{At, Errors, entries, items, names, text};

const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];
const ANNOTATIONS_LIMIT: usize = 256 << 10;

/// A new object's metadata; `name` is the kind's rule for names.
pub(crate) fn create(object: &Value, name: names::Rule, errors: &mut Errors) {
    let metadata = &object["metadata"];
    let at = At::root("metadata");
    let generate = text(metadata, "generateName");
    if !generate.is_empty() {
        // What is generated is appended: a prefix may end with what a name may not.
        let stem = generate.trim_end_matches(['-', '.']);
        let probe = if stem.len() == generate.len() { generate.to_owned() } else { format!("{generate}a") };
        for message in name(&probe) {
            errors.invalid(&at.field("generateName"), generate, message);
        }
    }
    match text(metadata, "name") {
        "" => errors.required(&at.field("name"), "name or generateName is required"),
        given => errors.rule(&at.field("name"), given, name),
    }
    let namespace = text(metadata, "namespace");
    if !namespace.is_empty() {
        errors.rule(&at.field("namespace"), namespace, names::label);
    }
    super::not_negative(&metadata["generation"], &at.field("generation"), errors);
    common(metadata, &at, errors);
    finalizers(metadata, &at.field("finalizers"), errors);
}

/// The metadata of a Pod template or claim template, which has no name of its own.
pub(crate) fn template(metadata: &Value, at: &At, errors: &mut Errors) {
    labels(&metadata["labels"], &at.field("labels"), errors);
    annotations(&metadata["annotations"], &at.field("annotations"), errors);
}

/// A changed object's metadata.
pub(crate) fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let at = At::root("metadata");
    let (new, old) = (&new["metadata"], &old["metadata"]);
    if !text(old, "deletionTimestamp").is_empty() {
        let before = items(old, "finalizers");
        let mut added: Vec<&str> =
            items(new, "finalizers").iter().filter(|f| !before.contains(f)).filter_map(Value::as_str).collect();
        if !added.is_empty() {
            added.sort_unstable();
            added.dedup();
            let list = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            errors.forbidden(
                &at.field("finalizers"),
                format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"),
            );
        }
    }
    if new["generation"].as_i64().unwrap_or(0) < old["generation"].as_i64().unwrap_or(0) {
        errors.invalid(&at.field("generation"), new["generation"].clone(), "must not be decremented");
    }
    for key in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        errors.immutable(&at.field(key), &new[key], &old[key]);
    }
    common(new, &at, errors);
    finalizers(new, &at.field("finalizers"), errors);
}

fn common(metadata: &Value, at: &At, errors: &mut Errors) {
    labels(&metadata["labels"], &at.field("labels"), errors);
    annotations(&metadata["annotations"], &at.field("annotations"), errors);
    owners(metadata, &at.field("ownerReferences"), errors);
}

/// Labels; the path of an error is the map's.
pub(crate) fn labels(labels: &Value, at: &At, errors: &mut Errors) {
    for (key, value) in entries(labels) {
        errors.rule(at, key, names::qualified);
        errors.rule(at, value.as_str().unwrap_or_default(), names::label_value);
    }
}

/// Annotations; the path of an error is the map's.
pub(crate) fn annotations(annotations: &Value, at: &At, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in entries(annotations) {
        errors.rule(at, key, names::annotation_key);
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_LIMIT {
        errors.too_long(at, ANNOTATIONS_LIMIT);
    }
}

fn owners(metadata: &Value, at: &At, errors: &mut Errors) {
    let mut controller: Option<String> = None;
    for owner in items(metadata, "ownerReferences") {
        let (version, kind, name) = (text(owner, "apiVersion"), text(owner, "kind"), text(owner, "name"));
        if version.is_empty() || version.ends_with('/') || version.matches('/').count() > 1 {
            errors.invalid(&at.field("apiVersion"), version, "version must not be empty");
        }
        for key in ["kind", "name", "uid"] {
            if text(owner, key).is_empty() {
                errors.invalid(&at.field(key), "", "must not be empty");
            }
        }
        if version == "v1" && kind == "Event" {
            errors.invalid(at, owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner["controller"] == true {
            let this = format!("{kind}/{name}");
            match &controller {
                Some(first) => errors.invalid(
                    at,
                    metadata["ownerReferences"].clone(),
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(metadata: &Value, at: &At, errors: &mut Errors) {
    let list = items(metadata, "finalizers");
    for (i, finalizer) in list.iter().filter_map(Value::as_str).enumerate() {
        errors.rule(at, finalizer, names::qualified);
        if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&at.index(i), finalizer, why);
        }
    }
    let has = |name: &str| list.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid(
            at,
            metadata["finalizers"].clone(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

/// Conditions of the common shape (upstream: `metav1.Condition`).
pub(crate) fn conditions(conditions: &[Value], at: &At, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        let (kind, reason) = (text(condition, "type"), text(condition, "reason"));
        if !seen.insert(kind) {
            errors.duplicate(&at.field("type"), kind);
        }
        errors.rule(&at.field("type"), kind, names::qualified);
        errors.one_of(&at.field("status"), text(condition, "status"), &["False", "True", "Unknown"]);
        if let Some(generation) = condition["observedGeneration"].as_i64().filter(|generation| *generation < 0) {
            let why = "must be greater than or equal to zero";
            errors.invalid(&at.field("observedGeneration"), generation, why);
        }
        if condition["lastTransitionTime"].is_null() {
            errors.required(&at.field("lastTransitionTime"), "");
        }
        if reason.is_empty() {
            errors.required(&at.field("reason"), "");
        }
        for (key, most) in [("reason", 1024), ("message", 32 * 1024)] {
            if text(condition, key).len() > most {
                errors.too_long(&at.field(key), most);
            }
        }
    }
}
