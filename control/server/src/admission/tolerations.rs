//! A Pod stays on a node that is not ready or not reachable for five minutes, unless it says otherwise.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::meta;
use wherry_api::status::Status;

use super::{Attributes, Operation, Plugin};

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        if !attributes.is_pod() || !writes || meta::deletion_timestamp(object).is_some() {
            return Ok(());
        }
        add(meta::map_mut(object, "spec"));
        Ok(())
    }
}

fn add(spec: &mut serde_json::Map<String, Value>) {
    let present = spec.get("tolerations").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let tolerated = |taint: &str| {
        present.iter().any(|t| {
            let key = t["key"].as_str().unwrap_or_default();
            let effect = t["effect"].as_str().unwrap_or_default();
            (key.is_empty() || key == taint) && (effect.is_empty() || effect == "NoExecute")
        })
    };
    let missing: Vec<Value> = TAINTS
        .iter()
        .filter(|taint| !tolerated(taint))
        .map(|taint| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}))
        .collect();
    if missing.is_empty() {
        return;
    }
    match spec.get_mut("tolerations").and_then(Value::as_array_mut) {
        Some(list) => list.extend(missing),
        None => {
            spec.insert("tolerations".to_owned(), missing.into());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        for (given, expected) in [
            (json!({}), 2),
            (json!({"tolerations": [{"operator": "Exists"}]}), 1),
            (json!({"tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]}), 2),
            (json!({"tolerations": [{"key": "x", "effect": "NoSchedule"}]}), 3),
        ] {
            let mut spec = given.as_object().unwrap().clone();
            add(&mut spec);
            assert_eq!(spec["tolerations"].as_array().unwrap().len(), expected, "{given}");
        }
    }
}
