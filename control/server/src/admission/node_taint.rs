//! A new Node takes no Pods until the node controller has seen that it is ready.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::meta;
use wherry_api::status::Status;

use super::{Attributes, Plugin};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        if !attributes.creates("", "nodes") {
            return Ok(());
        }
        let taints = meta::map_mut(object, "spec").entry("taints").or_insert_with(|| json!([]));
        if taints.is_null() {
            *taints = json!([]);
        }
        if let Some(taints) = taints.as_array_mut()
            && !taints.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule")
        {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}
