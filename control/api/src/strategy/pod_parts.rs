//! What the subresources `ephemeralcontainers` and `resize` change of a Pod: their part, and nothing else.

use serde_json::Value;

use crate::defaults::Object;
use crate::validation::{items, text};

/// What of the metadata a client says (or what is kept of who says what) on every endpoint.
const METADATA: [&str; 5] = ["name", "namespace", "uid", "resourceVersion", "managedFields"];

/// Only the ephemeral containers are taken over.
pub(super) fn ephemeral(new: &mut Object, old: &Value) {
    let list = new.get("spec").map_or(Value::Null, |spec| spec["ephemeralContainers"].clone());
    restore(new, old);
    if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) {
        match list {
            Value::Null => drop(spec.remove("ephemeralContainers")),
            list => drop(spec.insert("ephemeralContainers".into(), list)),
        }
    }
}

/// Only the resources of containers and their resize policies are taken over. Where other containers stand, all is left as it was
/// sent, for validation to say so.
pub(super) fn resize(new: &mut Object, old: &Value) {
    let spec = new.get("spec").cloned().unwrap_or_default();
    let lists = ["containers", "initContainers"];
    let named = |spec: &Value, list| items(spec, list).iter().map(|c| text(c, "name").to_owned()).collect::<Vec<_>>();
    if lists.iter().any(|list| named(&spec, list) != named(&old["spec"], list)) {
        return;
    }
    restore(new, old);
    let Some(kept) = new.get_mut("spec").and_then(Value::as_object_mut) else { return };
    for list in lists {
        let containers = kept.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, asked) in containers.zip(items(&spec, list)) {
            let Some(container) = container.as_object_mut() else { continue };
            for field in ["resources", "resizePolicy"] {
                match &asked[field] {
                    Value::Null => drop(container.remove(field)),
                    value => drop(container.insert(field.into(), value.clone())),
                }
            }
        }
    }
}

fn restore(new: &mut Object, old: &Value) {
    let said = new.get("metadata").cloned().unwrap_or_default();
    let Some(old) = old.as_object() else { return };
    *new = old.clone();
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in METADATA {
            if !said[key].is_null() {
                metadata.insert(key.into(), said[key].clone());
            }
        }
    }
}
