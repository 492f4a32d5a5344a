//! JSON merge patch (RFC 7386).

use serde_json::{Map, Value};

/// What `current` becomes by `patch`: null removes, objects are merged, all else replaces.
pub fn merge_patch(current: &Value, patch: &Value) -> Value {
    let mut object = current.clone();
    merge(&mut object, patch);
    object
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(map) = object else { unreachable!("made an object above") };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key).or_insert(Value::Null), value);
        }
    }
}
