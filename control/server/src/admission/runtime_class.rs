//! A Pod of a runtime class pays the class's overhead and goes where the class is.

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use wherry_api::meta;
use wherry_api::status::Status;

use super::amounts::{self, Amounts};
use super::{Attributes, Plugin};
use crate::objects;

pub(super) struct RuntimeClass;

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let Some(class) = class(attributes, object)? else {
            return Ok(());
        };
        let spec = meta::map_mut(object, "spec");
        overhead(&class, spec).map_err(|why| attributes.forbidden(why))?;
        scheduling(&class, spec).map_err(|why| attributes.forbidden(why))
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        if !attributes.creates("", "pods") {
            return Ok(());
        }
        let class = class(attributes, object)?.unwrap_or_default();
        let (given, is) = (&object["spec"]["overhead"], &class["overhead"]);
        if is.is_object() {
            if amounts::of(&is["podFixed"]) != amounts::of(given) {
                return Err(attributes.forbidden(MISMATCH));
            }
        } else if given.is_object() {
            return Err(attributes
                .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"));
        }
        Ok(())
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// The class that a new Pod names.
fn class(attributes: &Attributes<'_>, pod: &Value) -> Result<Option<Value>, Status> {
    let Some(name) = pod["spec"]["runtimeClassName"].as_str().filter(|_| attributes.creates("", "pods")) else {
        return Ok(None);
    };
    let missing = || attributes.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"));
    let entry = attributes.engine.lookup("runtimeclasses.node.k8s.io", "", name).ok_or_else(missing)?;
    objects::stored_tree(&entry).map(Some)
}

fn overhead(class: &Value, spec: &mut Map<String, Value>) -> Result<(), String> {
    let Some(defined) = class["overhead"].as_object() else {
        return Ok(());
    };
    let defined = defined.get("podFixed").cloned().unwrap_or_default();
    let given: Amounts = spec.get("overhead").map(amounts::of).unwrap_or_default();
    if !given.is_empty() && given != amounts::of(&defined) {
        return Err(MISMATCH.to_owned());
    }
    spec.insert("overhead".to_owned(), defined);
    Ok(())
}

fn scheduling(class: &Value, spec: &mut Map<String, Value>) -> Result<(), String> {
    let scheduling = &class["scheduling"];
    if let Some(wanted) = scheduling["nodeSelector"].as_object() {
        let slot = spec.entry("nodeSelector").or_insert_with(|| json!({}));
        if slot.is_null() {
            *slot = json!({});
        }
        for (key, value) in wanted {
            if let Some(given) = slot.get(key).filter(|given| *given != value) {
                let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(value),
                    text(given)
                ));
            }
            slot[key] = value.clone();
        }
    }
    if let Some(added) = scheduling["tolerations"].as_array() {
        let present = spec.get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
        let all: Vec<Value> = present.into_iter().chain(added.iter().cloned()).collect();
        spec.insert("tolerations".to_owned(), merge(&all).into());
    }
    Ok(())
}

/// The tolerations without those that others contain.
fn merge(all: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let kept = merged.iter().any(|wider| contains(wider, toleration));
        let comes = all[i + 1..].iter().any(|wider| wider != toleration && contains(wider, toleration));
        if !kept && !comes {
            merged.push(toleration.clone());
        }
    }
    merged
}

/// Whether `wide` tolerates all that `narrow` does.
fn contains(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
    let (key, effect, operator) = (text(wide, "key"), text(wide, "effect"), text(wide, "operator"));
    if key != text(narrow, "key") && !(key.is_empty() && operator == "Exists") {
        return false;
    }
    if !effect.is_empty() && effect != text(narrow, "effect") {
        return false;
    }
    if effect == "NoExecute"
        && let Some(limit) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > limit)
    {
        return false;
    }
    match operator.as_str() {
        "" | "Equal" => text(narrow, "operator") == "Equal" && text(wide, "value") == text(narrow, "value"),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_a_wider_toleration_contains_goes() {
        let any = json!({"operator": "Exists"});
        let one = json!({"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"});
        let other = json!({"key": "c", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
        let longer = json!({"key": "c", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9});
        assert_eq!(merge(&[one.clone(), any.clone()]), [any]);
        assert_eq!(merge(&[one.clone(), one.clone()]).len(), 1);
        assert_eq!(merge(&[other.clone(), longer.clone()]), [longer]);
        assert_eq!(merge(&[one.clone(), other.clone()]), [one, other]);
    }

    #[test]
    fn a_selector_may_add_and_not_contradict() {
        let class = json!({"scheduling": {"nodeSelector": {"kind": "wasm"}}});
        let mut spec = json!({"nodeSelector": {"zone": "a"}}).as_object().unwrap().clone();
        scheduling(&class, &mut spec).unwrap();
        assert_eq!(spec["nodeSelector"], json!({"zone": "a", "kind": "wasm"}));
        let mut spec = json!({"nodeSelector": {"kind": "runc"}}).as_object().unwrap().clone();
        let why = scheduling(&class, &mut spec).unwrap_err();
        assert_eq!(
            why,
            "conflict: runtimeClass.scheduling.nodeSelector[kind] = wasm; pod.spec.nodeSelector[kind] = runc"
        );
    }
}
