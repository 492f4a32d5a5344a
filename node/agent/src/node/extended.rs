//! Resources that others say the node has: a client writes `status.capacity` of the Node (`example.com/gpu: 2`), the agent lets
//! Pods have them by writing the same into `status.allocatable`, and takes them away where capacity names them no more.
//! Upstream: kubelet's node status.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Map, Value, json};

/// What the agent measures itself.
const OWN: [&str; 4] = ["cpu", "ephemeral-storage", "memory", "pods"];

/// What is to change in the allocatable resources so that they are those of the capacity; null for what goes. The agent's own
/// are left out.
pub(crate) fn changes(node: &Node) -> Map<String, Value> {
    let status = node.status.clone().unwrap_or_default();
    let (capacity, allocatable) = (status.capacity.unwrap_or_default(), status.allocatable.unwrap_or_default());
    let gone = allocatable.keys().filter(|name| !capacity.contains_key(*name)).map(|name| (name, Value::Null));
    let there = capacity.iter().filter(|(name, amount)| allocatable.get(*name) != Some(amount));
    let all = there.map(|(name, amount)| (name, json!(amount))).chain(gone);
    all.filter(|(name, _)| !OWN.contains(&name.as_str())).map(|(name, amount)| (name.clone(), amount)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn allocatable_follows_capacity_but_for_what_the_agent_measures() {
        for (capacity, allocatable, expected) in [
            (json!({"cpu": "2", "example.com/gpu": "3"}), json!({"cpu": "1"}), json!({"example.com/gpu": "3"})),
            (json!({"example.com/gpu": "3"}), json!({"example.com/gpu": "2"}), json!({"example.com/gpu": "3"})),
            (json!({"example.com/gpu": "3"}), json!({"example.com/gpu": "3", "pods": "1"}), json!({})),
            (json!({"cpu": "2"}), json!({"cpu": "2", "example.com/gpu": "3"}), json!({"example.com/gpu": null})),
        ] {
            let node = json!({"status": {"capacity": capacity, "allocatable": allocatable}});
            assert_eq!(Value::Object(changes(&serde_json::from_value(node).unwrap())), expected, "{capacity}");
        }
    }
}
