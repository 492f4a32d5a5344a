//! Tests of the decision: each filter and score by table, the message, and properties over random clusters.
#![allow(clippy::unwrap_used, reason = "tests")]

mod decisions;
mod preemption;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    Cluster, Decision, PodInfo, decide,
    filters::{self, Cycle, Wake},
    testing::{add_node, cluster, labelled, pod, pod_with, requesting, set_status},
};

/// Why `node` does not take `pod`; none if it does.
fn reasons(cluster: &Cluster, pod: &PodInfo, node: &str) -> Vec<String> {
    let result = filters::fits(&Cycle::new(cluster, pod), &cluster.nodes[node]);
    result.err().map(|rejection| rejection.reasons).unwrap_or_default()
}

fn place(cluster: &mut Cluster, pod: PodInfo, node: &str) {
    cluster.place(Arc::new(pod), node);
}

fn chosen(cluster: &Cluster, pod: &PodInfo) -> String {
    let nodes: Vec<_> = (0..20).map(|turn| decide(cluster, pod, turn)).collect();
    assert!(nodes.iter().all(|node| *node == nodes[0]), "not a matter of chance: {nodes:?}");
    match nodes.into_iter().next() {
        Some(Decision::Node(node)) => node,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_needs_the_resources_that_it_requests() {
    let mut cluster = cluster(&["n"]);
    place(&mut cluster, requesting("a", 3000, 1024), "n");
    for (cpu, memory, expected) in [
        (1000, 7168, vec![]),
        (1001, 1, vec!["Insufficient cpu"]),
        (1, 7169, vec!["Insufficient memory"]),
        (1001, 7169, vec!["Insufficient cpu", "Insufficient memory"]),
        (0, 0, vec![]),
    ] {
        assert_eq!(reasons(&cluster, &requesting("b", cpu, memory), "n"), expected, "{cpu} {memory}");
    }
    let gpu = json!({"requests": {"example.com/gpu": "1"}});
    let wants = pod_with("g", json!({"containers": [{"name": "c", "resources": gpu}]}));
    assert_eq!(reasons(&cluster, &wants, "n"), ["Insufficient example.com/gpu"]);
    set_status(&mut cluster, "n", json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "1"}}));
    assert_eq!(reasons(&cluster, &pod("b"), "n"), ["Too many pods"]);
    assert!(cluster.remove("uid-a"));
    assert_eq!(reasons(&cluster, &requesting("b", 4000, 8192), "n"), [""; 0]);
}

#[test]
fn init_containers_sidecars_and_overhead_count() {
    let container = |cpu: &str, extra: Value| {
        let mut c = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        c.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        c
    };
    for (spec, expected) in [
        (json!({"containers": [container("1", json!({})), container("500m", json!({}))]}), 1500),
        (json!({"containers": [container("1", json!({}))], "initContainers": [container("3", json!({}))]}), 3000),
        (
            json!({"containers": [container("1", json!({}))], "initContainers": [
                container("1", json!({"restartPolicy": "Always"})), container("3", json!({}))]}),
            4000,
        ),
        (json!({"containers": [container("1", json!({}))], "overhead": {"cpu": "250m"}}), 1250),
        (json!({"containers": [container("1", json!({}))], "resources": {"requests": {"cpu": "2"}}}), 2000),
    ] {
        assert_eq!(pod_with("a", spec.clone()).requests.milli_cpu, expected, "{spec}");
    }
}

#[test]
fn nodes_say_which_pods_they_take() {
    const UNTOLERATED: &[&str] = &["node(s) had untolerated taint(s)"];
    const AFFINITY: &[&str] = &["node(s) didn't match Pod's node affinity/selector"];
    let required = |terms: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    };
    let expression = |key: &str, operator: &str, values: Value| {
        required(json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]))
    };
    let tainted = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    let cordoned = json!({"unschedulable": true});
    for (node, spec, expected) in [
        (json!({}), json!({}), &[][..]),
        (cordoned.clone(), json!({}), &["node(s) were unschedulable"][..]),
        (cordoned, json!({"tolerations": [{"operator": "Exists"}]}), &[]),
        (json!({}), json!({"nodeName": "other"}), &["node(s) didn't match the requested node name"]),
        (tainted.clone(), json!({}), UNTOLERATED),
        (tainted.clone(), json!({"tolerations": [{"key": "k", "value": "v"}]}), &[]),
        (tainted.clone(), json!({"tolerations": [{"key": "k", "value": "w"}]}), UNTOLERATED),
        (tainted.clone(), json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}]}), &[]),
        (tainted, json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}), UNTOLERATED),
        (json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}), json!({}), &[]),
        (json!({}), json!({"nodeSelector": {"disk": "ssd"}}), &[]),
        (json!({}), json!({"nodeSelector": {"disk": "hdd"}}), AFFINITY),
        (json!({}), expression("disk", "In", json!(["ssd", "nvme"])), &[]),
        (json!({}), expression("disk", "NotIn", json!(["ssd"])), AFFINITY),
        (json!({}), expression("gpu", "DoesNotExist", json!([])), &[]),
        (json!({}), expression("cores", "Gt", json!(["7"])), &[]),
        (json!({}), expression("cores", "Lt", json!(["8"])), AFFINITY),
        (
            json!({}),
            required(json!([{"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}])),
            &[],
        ),
        (
            json!({}),
            required(json!([{"matchFields":
            [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}])),
            AFFINITY,
        ),
        (json!({}), required(json!([{}])), AFFINITY),
    ] {
        let mut cluster = Cluster::default();
        add_node(&mut cluster, "n", json!({"disk": "ssd", "cores": "8"}), node.clone());
        assert_eq!(reasons(&cluster, &pod_with("p", spec.clone()), "n"), expected, "{node} {spec}");
    }
}

#[test]
fn host_ports_are_had_once() {
    let wants = |name: &str, port: Value| pod_with(name, json!({"containers": [{"name": "c", "ports": [port]}]}));
    let mut cluster = cluster(&["n"]);
    place(&mut cluster, wants("a", json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"})), "n");
    let taken = ["node(s) didn't have free ports for the requested pod ports"];
    for (port, expected) in [
        (json!({"containerPort": 80, "hostPort": 8080}), &taken[..]),
        (json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}), &taken[..]),
        (json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.2"}), &[]),
        (json!({"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}), &[]),
        (json!({"containerPort": 80, "hostPort": 8081}), &[]),
        (json!({"containerPort": 8080}), &[]),
    ] {
        assert_eq!(reasons(&cluster, &wants("b", port.clone()), "n"), expected, "{port}");
    }
}

#[test]
fn container_pods_stay_off_wasm_nodes() {
    let mut cluster = cluster(&["both"]);
    add_node(&mut cluster, "wasm", json!({"wherry.dev/containers": "false"}), json!({}));
    let container = pod("p").needing_containers(true);
    assert_eq!(reasons(&cluster, &container, "wasm"), ["node(s) can't run containers (no containerd or no root)"]);
    assert_eq!(reasons(&cluster, &container, "both"), [""; 0]);
    assert_eq!(reasons(&cluster, &pod("p"), "wasm"), [""; 0]);
}

fn zones() -> Cluster {
    let mut cluster = Cluster::default();
    for (node, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        add_node(&mut cluster, node, json!({"zone": zone}), json!({}));
    }
    cluster
}

fn term(app: &str, key: &str) -> Value {
    json!([{"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}])
}

fn affine(name: &str, kind: &str, terms: Value) -> PodInfo {
    pod_with(name, json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}))
}

fn taken_by(cluster: &Cluster, pod: &PodInfo) -> Vec<String> {
    cluster.nodes.keys().filter(|node| reasons(cluster, pod, node).is_empty()).cloned().collect()
}

#[test]
fn pods_go_where_their_affinity_sends_them() {
    let mut cluster = zones();
    let near = affine("x", "podAffinity", term("db", "zone"));
    assert!(taken_by(&cluster, &near).is_empty());
    assert_eq!(reasons(&cluster, &near, "a1"), ["node(s) didn't match pod affinity rules"]);
    let first = affine("db", "podAffinity", term("db", "zone"));
    assert_eq!(taken_by(&cluster, &first).len(), 3, "the first of a group may go anywhere");
    place(&mut cluster, pod("db"), "a1");
    assert_eq!(taken_by(&cluster, &near), ["a1", "a2"]);
    let apart = affine("y", "podAntiAffinity", term("db", "zone"));
    assert_eq!(taken_by(&cluster, &apart), ["b1"]);
    assert_eq!(reasons(&cluster, &apart, "a2"), ["node(s) didn't match pod anti-affinity rules"]);
    let elsewhere = json!([{"labelSelector": {}, "topologyKey": "zone", "namespaces": ["other"]}]);
    assert_eq!(taken_by(&cluster, &affine("z", "podAntiAffinity", elsewhere)).len(), 3);
    cluster.set_namespace("default", Some([("team".into(), "t".into())].into()));
    let selected = json!([{"labelSelector": {}, "topologyKey": "kubernetes.io/hostname",
        "namespaceSelector": {"matchLabels": {"team": "t"}}}]);
    assert_eq!(taken_by(&cluster, &affine("z", "podAntiAffinity", selected)), ["a2", "b1"]);
}

#[test]
fn pods_that_are_there_keep_others_away() {
    let mut cluster = zones();
    place(&mut cluster, affine("y", "podAntiAffinity", term("db", "zone")), "b1");
    assert_eq!(taken_by(&cluster, &pod("db")), ["a1", "a2"]);
    assert_eq!(reasons(&cluster, &pod("db"), "b1"), ["node(s) didn't satisfy existing pods anti-affinity rules"]);
    assert!(cluster.remove("uid-y"));
    assert_eq!((taken_by(&cluster, &pod("db")).len(), cluster.alike.kinds().count()), (3, 0));
}

#[test]
fn pods_spread_as_they_must() {
    let spread = |name: &str| {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}}});
        labelled(name, json!({"app": "web"}), json!({"topologySpreadConstraints": [constraint]}))
    };
    let mut cluster = zones();
    assert_eq!(taken_by(&cluster, &spread("w")).len(), 3);
    place(&mut cluster, spread("w1"), "a1");
    assert_eq!(taken_by(&cluster, &spread("w")), ["b1"]);
    place(&mut cluster, spread("w2"), "b1");
    assert_eq!(taken_by(&cluster, &spread("w")).len(), 3);
    add_node(&mut cluster, "bare", json!({}), json!({}));
    let missing = "node(s) didn't match pod topology spread constraints (missing required label)";
    assert_eq!(reasons(&cluster, &spread("w"), "bare"), [missing]);
}
