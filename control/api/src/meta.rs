//! Reading and writing `metadata` of untyped objects.
//!
//! Getters of absent fields give the empty value, as Go's zero values do.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    metadata(object).and_then(|m| m.get(key)).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata`, if it is there.
pub fn metadata(object: &Value) -> Option<&Map<String, Value>> {
    object.get("metadata").and_then(Value::as_object)
}

/// `metadata`, made if it is not there (or is no object).
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_mut(object, "metadata")
}

/// The object at `key` of `object`, made if it is not there (or is no object).
pub fn map_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(map) = object else { unreachable!("made an object above") };
    let child = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    let Value::Object(child) = child else { unreachable!("made an object above") };
    child
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.generateName`.
pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}

/// `metadata.namespace`.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.resourceVersion`.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// `apiVersion`.
pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// `kind`.
pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// `apiVersion` as group and version.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// Group and version as `apiVersion`.
pub fn join_api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `metadata.generation`, 0 if absent.
pub fn generation(object: &Value) -> i64 {
    metadata(object).and_then(|m| m.get("generation")).and_then(Value::as_i64).unwrap_or_default()
}

/// `metadata.creationTimestamp`, if set.
pub fn creation_timestamp(object: &Value) -> Option<&str> {
    metadata(object)?.get("creationTimestamp")?.as_str()
}

/// `metadata.deletionTimestamp`, if set.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    metadata(object)?.get("deletionTimestamp")?.as_str()
}

/// `metadata.deletionGracePeriodSeconds`, if set.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    metadata(object)?.get("deletionGracePeriodSeconds")?.as_i64()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "finalizers").iter().filter_map(Value::as_str)
}

/// `metadata.ownerReferences`.
pub fn owner_references(object: &Value) -> &[Value] {
    list(object, "ownerReferences")
}

/// The owner reference that says `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object).iter().find(|owner| owner["controller"] == true)
}

/// The uids of all owners.
pub fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    owner_references(object).iter().filter_map(|owner| owner["uid"].as_str())
}

fn list<'a>(object: &'a Value, key: &str) -> &'a [Value] {
    metadata(object).and_then(|m| m.get(key)).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The value of a label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    metadata(object)?.get("labels")?.get(key)?.as_str()
}

/// The value of an annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    metadata(object)?.get("annotations")?.get(key)?.as_str()
}

/// All labels, as a selector wants them.
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    string_map(metadata(object).and_then(|m| m.get("labels")))
}

/// All annotations.
pub fn annotations(object: &Value) -> BTreeMap<String, String> {
    string_map(metadata(object).and_then(|m| m.get("annotations")))
}

/// A map of strings out of an untyped one; what is no string is left out.
pub fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let Some(map) = value.and_then(Value::as_object) else {
        return BTreeMap::new();
    };
    map.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// Sets a string of `metadata`; the empty string removes it.
pub fn set(object: &mut Value, key: &str, value: &str) {
    let metadata = metadata_mut(object);
    if value.is_empty() {
        metadata.remove(key);
    } else {
        metadata.insert(key.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_is_empty() {
        let object = json!({"kind": "Pod"});
        assert_eq!(name(&object), "");
        assert_eq!(generation(&object), 0);
        assert!(labels(&object).is_empty());
        assert_eq!(finalizers(&object).count(), 0);
    }

    #[test]
    fn set_makes_and_removes() {
        let mut object = json!({});
        set(&mut object, "uid", "u");
        assert_eq!(object, json!({"metadata": {"uid": "u"}}));
        set(&mut object, "uid", "");
        assert_eq!(object, json!({"metadata": {}}));
    }

    #[test]
    fn api_versions_split_and_join() {
        for (text, group, version) in [("v1", "", "v1"), ("apps/v1", "apps", "v1")] {
            assert_eq!(split_api_version(text), (group, version));
            assert_eq!(join_api_version(group, version), text);
        }
    }
}
