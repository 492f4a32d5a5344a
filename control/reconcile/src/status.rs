//! Writing status: only what changed, and nothing if nothing did.

use std::fmt::Debug;

use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// The JSON merge patch that turns `old` into `new`; none if they are equal.
pub fn merge_diff(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (field, value) in new {
        match old.get(field) {
            Some(before) => {
                if let Some(change) = merge_diff(before, value) {
                    patch.insert(field.clone(), change);
                }
            }
            None => {
                patch.insert(field.clone(), value.clone());
            }
        }
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        patch.insert(field.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Which state of an object a status was computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The same object (UID), whatever its version: for the only writer of this status.
    Uid,
    /// Exactly this version: a conflict if anything changed since.
    Version,
}

/// Patches `object`'s status from `old` to `new`. Returns the updated object, or none if there was nothing to do.
pub async fn patch_status<K, S>(
    api: &Api<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
    precondition: Precondition,
) -> Result<Option<K>, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    S: Serialize,
{
    let old = match old {
        Some(old) => serde_json::to_value(old).map_err(kube::Error::SerdeError)?,
        None => Value::Object(Map::new()),
    };
    let new = serde_json::to_value(new).map_err(kube::Error::SerdeError)?;
    let Some(change) = merge_diff(&old, &new) else {
        return Ok(None);
    };
    let meta = object.meta();
    let mut metadata = json!({ "uid": meta.uid });
    if precondition == Precondition::Version {
        metadata["resourceVersion"] = json!(meta.resource_version);
    }
    let patch = json!({ "metadata": metadata, "status": change });
    let name = meta.name.as_deref().unwrap_or_default();
    let updated = api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(Some(updated))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn apply(target: &mut Value, patch: &Value) {
        match patch {
            Value::Object(fields) => {
                if !target.is_object() {
                    *target = json!({});
                }
                let target = target.as_object_mut().unwrap();
                for (field, value) in fields {
                    if value.is_null() {
                        target.remove(field);
                    } else {
                        apply(target.entry(field.clone()).or_insert(Value::Null), value);
                    }
                }
            }
            other => *target = other.clone(),
        }
    }

    /// Trees without nulls, as serialized status structs are.
    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<bool>().prop_map(Value::from), any::<u8>().prop_map(Value::from)];
        let inner = leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_diff_applied_to_old_gives_new(old in tree(), new in tree()) {
            let mut patched = old.clone();
            match merge_diff(&old, &new) {
                Some(patch) => apply(&mut patched, &patch),
                None => prop_assert_eq!(&old, &new),
            }
            prop_assert_eq!(patched, new);
        }
    }
}
