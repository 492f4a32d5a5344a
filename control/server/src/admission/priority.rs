//! A Pod's priority is its class's: the named one, else the global default, else 0.

use async_trait::async_trait;
use serde_json::Value;
use wherry_api::meta;
use wherry_api::status::Status;

use super::{Attributes, Operation, Plugin};
use crate::objects;

/// Where priority classes are stored.
const CLASSES: &str = "priorityclasses.scheduling.k8s.io";

pub(super) struct Priority;

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if !attributes.is_pod() {
            return Ok(());
        }
        match (attributes.operation, attributes.old) {
            (Operation::Create, _) => resolve(attributes, object),
            // What was computed stays when an update leaves it out.
            (Operation::Update, Some(old)) => {
                let spec = meta::map_mut(object, "spec");
                for key in ["priority", "preemptionPolicy"] {
                    if spec.get(key).is_none_or(Value::is_null) && !old["spec"][key].is_null() {
                        spec.insert(key.to_owned(), old["spec"][key].clone());
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let written =
            attributes.is("scheduling.k8s.io", "priorityclasses") && attributes.operation != Operation::Delete;
        if !written || object["globalDefault"] != true {
            return Ok(());
        }
        match global_default(attributes)? {
            Some(class) if attributes.operation == Operation::Create || meta::name(&class) != attributes.name => {
                let name = meta::name(&class);
                Err(attributes.forbidden(format!(
                    "PriorityClass {name} is already marked as default. Only one default can exist"
                )))
            }
            _ => Ok(()),
        }
    }
}

fn resolve(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
    let spec = meta::map_mut(object, "spec");
    let named = spec.get("priorityClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let class = if named.is_empty() {
        global_default(attributes)?
    } else {
        let missing = || attributes.forbidden(format!("no PriorityClass with name {named} was found"));
        let entry = attributes.engine.lookup(CLASSES, "", &named).ok_or_else(missing)?;
        Some(objects::stored_tree(&entry)?)
    };
    let priority = class.as_ref().and_then(|c| c["value"].as_i64()).unwrap_or(0);
    if let Some(given) = spec.get("priority").and_then(Value::as_i64)
        && given != priority
    {
        return Err(attributes.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        )));
    }
    let policy = class.as_ref().and_then(|c| c["preemptionPolicy"].as_str()).unwrap_or("PreemptLowerPriority");
    if let Some(given) = spec.get("preemptionPolicy").and_then(Value::as_str)
        && given != policy
    {
        return Err(attributes.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    if named.is_empty()
        && let Some(class) = &class
    {
        spec.insert("priorityClassName".to_owned(), meta::name(class).into());
    }
    spec.insert("priority".to_owned(), priority.into());
    spec.insert("preemptionPolicy".to_owned(), policy.into());
    Ok(())
}

/// The class for Pods that name none; of several the least important.
fn global_default(attributes: &Attributes<'_>) -> Result<Option<Value>, Status> {
    let mut found: Option<Value> = None;
    for entry in attributes.engine.everything(CLASSES)? {
        let class = objects::stored_tree(&entry)?;
        let less = |other: &Value| class["value"].as_i64() < other["value"].as_i64();
        if class["globalDefault"] == true && found.as_ref().is_none_or(less) {
            found = Some(class);
        }
    }
    Ok(found)
}
