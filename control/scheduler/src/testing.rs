//! Pods and nodes for tests, from JSON.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{Cluster, PodInfo};

/// A Pod `default/<name>` with one container that requests nothing.
pub(crate) fn pod(name: &str) -> PodInfo {
    pod_with(name, json!({}))
}

/// The same with more in its spec.
pub(crate) fn pod_with(name: &str, spec: Value) -> PodInfo {
    labelled(name, json!({"app": name}), spec)
}

/// The same with labels.
pub(crate) fn labelled(name: &str, labels: Value, spec: Value) -> PodInfo {
    let mut object = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "example/c:1"}]},
    });
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    PodInfo::new(Arc::new(serde_json::from_value(object).unwrap()))
}

/// A Pod that requests CPU (thousandths) and memory (MiB).
pub(crate) fn requesting(name: &str, cpu: i64, memory: i64) -> PodInfo {
    let requests = json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")});
    pod_with(name, json!({"containers": [{"name": "c", "image": "c", "resources": {"requests": requests}}]}))
}

/// Puts a node of 4 CPUs, 8 GiB and 110 Pods into the cluster, with its own name as hostname.
pub(crate) fn add_node(cluster: &mut Cluster, name: &str, labels: Value, spec: Value) {
    let mut object = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": spec,
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}},
    });
    object["metadata"]["labels"].as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
    cluster.set_node(Arc::new(serde_json::from_value(object).unwrap()));
}

/// Changes what a node has.
pub(crate) fn set_status(cluster: &mut Cluster, name: &str, status: Value) {
    let mut node = (**cluster.nodes[name].node.as_ref().unwrap()).clone();
    node.status = Some(serde_json::from_value(status).unwrap());
    cluster.set_node(Arc::new(node));
}

/// A cluster of plain nodes.
pub(crate) fn cluster(nodes: &[&str]) -> Cluster {
    let mut cluster = Cluster::default();
    for name in nodes {
        add_node(&mut cluster, name, json!({}), json!({}));
    }
    cluster
}
