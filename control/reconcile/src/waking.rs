//! Scaling to zero, between controllers and nodes: which Services sleep, and for which somebody waits.
//!
//! ```text
//!  an autoscaler with minReplicas 0 ─► SLEEPS on the EndpointSlices of the Services before its target ─► nodes hold connections
//!  a node that holds some ─► WAITED_FOR on its Node ─► the autoscaler makes the first Pod
//! ```

use k8s_openapi::api::core::v1::Node;

use crate::{ObjectKey, nodes};

/// A label of EndpointSlices: the workload behind their Service may be scaled to zero, and a connection wakes it.
pub const SLEEPS: &str = "wherry.dev/scales-to-zero";
/// An annotation of a Node: the Services that connections there wait for or go through, `NAMESPACE/NAME`, between commas.
pub const WAITED_FOR: &str = "wherry.dev/waiting-for-services";

/// The annotation's text; none where nobody waits.
#[must_use]
pub fn annotation<'a>(services: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let names: Vec<_> = services.map(|(namespace, name)| format!("{namespace}/{name}")).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// The Services that a node's connections wait for, where it is Ready: what an unready one last said may be long ago.
#[must_use]
pub fn waited_for(node: &Node) -> Vec<ObjectKey> {
    if !nodes::is_ready(node) {
        return Vec::new();
    }
    let text = node.metadata.annotations.as_ref().and_then(|all| all.get(WAITED_FOR)).map_or("", String::as_str);
    let names = text.split(',').filter_map(|name| name.split_once('/'));
    names.map(|(namespace, name)| ObjectKey::new(namespace, name)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_node_says_is_read_again() {
        let said = annotation([("default", "web"), ("prod", "api")].into_iter()).unwrap();
        let node = |ready: &str, text: &str| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": "n", "annotations": {WAITED_FOR: text}},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        assert_eq!(waited_for(&node("True", &said)), [ObjectKey::new("default", "web"), ObjectKey::new("prod", "api")]);
        assert!(waited_for(&node("Unknown", &said)).is_empty());
        assert!(waited_for(&node("True", "")).is_empty());
        assert_eq!(annotation(std::iter::empty()), None);
    }
}
