//! Tests of the decision: each filter and score by table, the message, and properties over random clusters.
#![allow(clippy::unwrap_used, reason = "tests")]

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
    let result = filters::check(&Cycle::new(cluster, pod), &cluster.nodes[node]);
    result
        .err()
        .map(|rejection| rejection.reasons)
        .unwrap_or_default()
}

fn place(cluster: &mut Cluster, pod: PodInfo, node: &str) {
    cluster.place(Arc::new(pod), node);
}

fn chosen(cluster: &Cluster, pod: &PodInfo) -> String {
    let nodes: Vec<_> = (0..20).map(|turn| decide(cluster, pod, turn)).collect();
    assert!(
        nodes.iter().all(|node| *node == nodes[0]),
        "not a matter of chance: {nodes:?}"
    );
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
        assert_eq!(
            reasons(&cluster, &requesting("b", cpu, memory), "n"),
            expected,
            "{cpu} {memory}"
        );
    }
    let gpu = json!({"requests": {"example.com/gpu": "1"}});
    let wants = pod_with(
        "g",
        json!({"containers": [{"name": "c", "resources": gpu}]}),
    );
    assert_eq!(
        reasons(&cluster, &wants, "n"),
        ["Insufficient example.com/gpu"]
    );
    set_status(
        &mut cluster,
        "n",
        json!({"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "1"}}),
    );
    assert_eq!(reasons(&cluster, &pod("b"), "n"), ["Too many pods"]);
    assert!(cluster.remove("uid-a"));
    assert_eq!(
        reasons(&cluster, &requesting("b", 4000, 8192), "n"),
        [""; 0]
    );
}

#[test]
fn init_containers_sidecars_and_overhead_count() {
    let container = |cpu: &str, extra: Value| {
        let mut c = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        c.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        c
    };
    for (spec, expected) in [
        (
            json!({"containers": [container("1", json!({})), container("500m", json!({}))]}),
            1500,
        ),
        (
            json!({"containers": [container("1", json!({}))], "initContainers": [container("3", json!({}))]}),
            3000,
        ),
        (
            json!({"containers": [container("1", json!({}))], "initContainers": [
                container("1", json!({"restartPolicy": "Always"})), container("3", json!({}))]}),
            4000,
        ),
        (
            json!({"containers": [container("1", json!({}))], "overhead": {"cpu": "250m"}}),
            1250,
        ),
        (
            json!({"containers": [container("1", json!({}))], "resources": {"requests": {"cpu": "2"}}}),
            2000,
        ),
    ] {
        assert_eq!(
            pod_with("a", spec.clone()).requests.milli_cpu,
            expected,
            "{spec}"
        );
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
        required(
            json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]),
        )
    };
    let tainted = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
    let cordoned = json!({"unschedulable": true});
    for (node, spec, expected) in [
        (json!({}), json!({}), &[][..]),
        (
            cordoned.clone(),
            json!({}),
            &["node(s) were unschedulable"][..],
        ),
        (
            cordoned,
            json!({"tolerations": [{"operator": "Exists"}]}),
            &[],
        ),
        (
            json!({}),
            json!({"nodeName": "other"}),
            &["node(s) didn't match the requested node name"],
        ),
        (tainted.clone(), json!({}), UNTOLERATED),
        (
            tainted.clone(),
            json!({"tolerations": [{"key": "k", "value": "v"}]}),
            &[],
        ),
        (
            tainted.clone(),
            json!({"tolerations": [{"key": "k", "value": "w"}]}),
            UNTOLERATED,
        ),
        (
            tainted.clone(),
            json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}]}),
            &[],
        ),
        (
            tainted,
            json!({"tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute"}]}),
            UNTOLERATED,
        ),
        (
            json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}),
            json!({}),
            &[],
        ),
        (json!({}), json!({"nodeSelector": {"disk": "ssd"}}), &[]),
        (
            json!({}),
            json!({"nodeSelector": {"disk": "hdd"}}),
            AFFINITY,
        ),
        (
            json!({}),
            expression("disk", "In", json!(["ssd", "nvme"])),
            &[],
        ),
        (
            json!({}),
            expression("disk", "NotIn", json!(["ssd"])),
            AFFINITY,
        ),
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
        add_node(
            &mut cluster,
            "n",
            json!({"disk": "ssd", "cores": "8"}),
            node.clone(),
        );
        assert_eq!(
            reasons(&cluster, &pod_with("p", spec.clone()), "n"),
            expected,
            "{node} {spec}"
        );
    }
}

#[test]
fn host_ports_are_had_once() {
    let wants = |name: &str, port: Value| {
        pod_with(
            name,
            json!({"containers": [{"name": "c", "ports": [port]}]}),
        )
    };
    let mut cluster = cluster(&["n"]);
    place(
        &mut cluster,
        wants(
            "a",
            json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}),
        ),
        "n",
    );
    let taken = ["node(s) didn't have free ports for the requested pod ports"];
    for (port, expected) in [
        (json!({"containerPort": 80, "hostPort": 8080}), &taken[..]),
        (
            json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}),
            &taken[..],
        ),
        (
            json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.2"}),
            &[],
        ),
        (
            json!({"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}),
            &[],
        ),
        (json!({"containerPort": 80, "hostPort": 8081}), &[]),
        (json!({"containerPort": 8080}), &[]),
    ] {
        assert_eq!(
            reasons(&cluster, &wants("b", port.clone()), "n"),
            expected,
            "{port}"
        );
    }
}

#[test]
fn container_pods_stay_off_wasm_nodes() {
    let mut cluster = cluster(&["both"]);
    add_node(
        &mut cluster,
        "wasm",
        json!({"wherry.dev/containers": "false"}),
        json!({}),
    );
    let container = pod("p").needing_containers(true);
    assert_eq!(
        reasons(&cluster, &container, "wasm"),
        ["node(s) can't run containers (no containerd or no root)"]
    );
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
    pod_with(
        name,
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}),
    )
}

fn taken_by(cluster: &Cluster, pod: &PodInfo) -> Vec<String> {
    cluster
        .nodes
        .keys()
        .filter(|node| reasons(cluster, pod, node).is_empty())
        .cloned()
        .collect()
}

#[test]
fn pods_go_where_their_affinity_sends_them() {
    let mut cluster = zones();
    let near = affine("x", "podAffinity", term("db", "zone"));
    assert!(taken_by(&cluster, &near).is_empty());
    assert_eq!(
        reasons(&cluster, &near, "a1"),
        ["node(s) didn't match pod affinity rules"]
    );
    let first = affine("db", "podAffinity", term("db", "zone"));
    assert_eq!(
        taken_by(&cluster, &first).len(),
        3,
        "the first of a group may go anywhere"
    );
    place(&mut cluster, pod("db"), "a1");
    assert_eq!(taken_by(&cluster, &near), ["a1", "a2"]);
    let apart = affine("y", "podAntiAffinity", term("db", "zone"));
    assert_eq!(taken_by(&cluster, &apart), ["b1"]);
    assert_eq!(
        reasons(&cluster, &apart, "a2"),
        ["node(s) didn't match pod anti-affinity rules"]
    );
    let elsewhere = json!([{"labelSelector": {}, "topologyKey": "zone", "namespaces": ["other"]}]);
    assert_eq!(
        taken_by(&cluster, &affine("z", "podAntiAffinity", elsewhere)).len(),
        3
    );
    cluster.set_namespace("default", Some([("team".into(), "t".into())].into()));
    let selected = json!([{"labelSelector": {}, "topologyKey": "kubernetes.io/hostname",
        "namespaceSelector": {"matchLabels": {"team": "t"}}}]);
    assert_eq!(
        taken_by(&cluster, &affine("z", "podAntiAffinity", selected)),
        ["a2", "b1"]
    );
}

#[test]
fn pods_that_are_there_keep_others_away() {
    let mut cluster = zones();
    place(
        &mut cluster,
        affine("y", "podAntiAffinity", term("db", "zone")),
        "b1",
    );
    assert_eq!(taken_by(&cluster, &pod("db")), ["a1", "a2"]);
    assert_eq!(
        reasons(&cluster, &pod("db"), "b1"),
        ["node(s) didn't satisfy existing pods anti-affinity rules"]
    );
    assert!(cluster.remove("uid-y"));
    assert_eq!(
        (taken_by(&cluster, &pod("db")).len(), cluster.repelling),
        (3, 0)
    );
}

#[test]
fn pods_spread_as_they_must() {
    let spread = |name: &str| {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}}});
        labelled(
            name,
            json!({"app": "web"}),
            json!({"topologySpreadConstraints": [constraint]}),
        )
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

#[test]
fn the_message_is_upstreams() {
    let mut cluster = cluster(&["a"]);
    for name in ["b", "c"] {
        add_node(
            &mut cluster,
            name,
            json!({}),
            json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}),
        );
    }
    let Decision::None { message, wake } = decide(&cluster, &requesting("p", 5000, 1), 7) else {
        panic!("placed")
    };
    assert_eq!(
        message,
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s)."
    );
    assert_eq!(wake, [Wake::Node, Wake::PodGone].into());
    let Decision::None { message, .. } = decide(&Cluster::default(), &pod("p"), 0) else {
        panic!("placed")
    };
    assert_eq!(message, "no nodes available to schedule pods");
}

#[test]
fn the_better_node_is_chosen() {
    let mut full = cluster(&["a", "b"]);
    place(&mut full, requesting("x", 2000, 4096), "a");
    assert_eq!(chosen(&full, &pod("p")), "b", "more is left");

    let mut advised = cluster(&["b"]);
    add_node(
        &mut advised,
        "a",
        json!({}),
        json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}),
    );
    assert_eq!(
        chosen(&advised, &pod("p")),
        "b",
        "a taint advises against the other"
    );

    let mut labelled_nodes = cluster(&["a"]);
    add_node(&mut labelled_nodes, "b", json!({"disk": "ssd"}), json!({}));
    let prefers = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]}}});
    assert_eq!(
        chosen(&labelled_nodes, &pod_with("p", prefers)),
        "b",
        "preferred"
    );

    let weighted = |kind: &str| {
        let term = json!({"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "kubernetes.io/hostname"});
        pod_with(
            "p",
            json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": term}]}}}),
        )
    };
    let mut neighbours = cluster(&["a", "b"]);
    place(&mut neighbours, pod("db"), "a");
    assert_eq!(
        chosen(&neighbours, &weighted("podAffinity")),
        "a",
        "near the other"
    );
    assert_eq!(
        chosen(&neighbours, &weighted("podAntiAffinity")),
        "b",
        "away from the other"
    );

    let mut cached = cluster(&["a", "b"]);
    let image = json!([{"names": ["example/c:1"], "sizeBytes": 2_000_000_000_u64}]);
    let allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    set_status(
        &mut cached,
        "b",
        json!({"allocatable": allocatable, "images": image}),
    );
    assert_eq!(chosen(&cached, &pod("p")), "b", "has the image");
}

#[test]
fn pods_of_one_owner_go_to_different_nodes() {
    let mut cluster = cluster(&["a", "b", "c"]);
    for turn in 0..6 {
        let mut pod = pod(&format!("p{turn}"));
        pod.owner = Some("set".into());
        let Decision::Node(node) = decide(&cluster, &pod, turn) else {
            panic!("not placed")
        };
        place(&mut cluster, pod, &node);
    }
    for node in cluster.nodes.values() {
        assert_eq!(node.pods.len(), 2, "{}", node.name);
    }
}

#[test]
fn a_node_that_goes_keeps_its_pods_in_mind() {
    let mut cluster = cluster(&["a"]);
    place(&mut cluster, requesting("x", 3500, 1), "a");
    cluster.remove_node("a");
    assert_eq!(cluster.known().count(), 0);
    add_node(&mut cluster, "a", json!({}), json!({}));
    assert_eq!(
        reasons(&cluster, &requesting("y", 1000, 1), "a"),
        ["Insufficient cpu"]
    );
    cluster.remove_node("a");
    assert!(cluster.remove("uid-x"));
    assert!(cluster.nodes.is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Add { cpu: i64, memory: i64, apart: bool },
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3000_i64, 0..6000_i64, any::<bool>()).prop_map(|(cpu, memory, apart)| Step::Add { cpu, memory, apart }),
        1 => (0..100_usize).prop_map(Step::Remove),
    ]
}

proptest! {
    #[test]
    fn nothing_is_overcommitted_and_every_filter_is_kept(steps in prop::collection::vec(step(), 1..60)) {
        let mut cluster = zones();
        let mut placed: Vec<String> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Add { cpu, memory, apart } => {
                    let mut pod = requesting(&format!("p{number}"), cpu, memory);
                    if apart {
                        pod.labels.insert("app".into(), "apart".into());
                        pod.anti_affinity = affine("x", "podAntiAffinity", term("apart", "zone")).anti_affinity;
                    }
                    let before: Vec<_> = taken_by(&cluster, &pod);
                    match decide(&cluster, &pod, number as u64) {
                        Decision::Node(node) => {
                            prop_assert!(before.contains(&node));
                            placed.push(pod.uid.clone());
                            place(&mut cluster, pod, &node);
                        }
                        Decision::None { .. } => prop_assert!(before.is_empty()),
                    }
                }
                Step::Remove(which) if !placed.is_empty() => {
                    let uid = placed.swap_remove(which % placed.len());
                    prop_assert!(cluster.remove(&uid));
                }
                Step::Remove(_) => {}
            }
            for node in cluster.nodes.values() {
                prop_assert!(node.requested.milli_cpu <= node.allocatable.milli_cpu);
                prop_assert!(node.requested.memory <= node.allocatable.memory);
                let sum: i64 = node.pods.values().map(|pod| pod.requests.milli_cpu).sum();
                prop_assert_eq!(sum, node.requested.milli_cpu);
            }
            for zone in ["a", "b"] {
                let here = cluster.nodes.values().filter(|node| node.labels["zone"] == zone);
                let apart = here.flat_map(|node| node.pods.values()).filter(|pod| pod.labels["app"] == "apart");
                prop_assert!(apart.count() <= 1);
            }
        }
    }
}

/// Prints how many decisions a second the pure core makes; asserts no time.
#[test]
#[ignore = "prints a figure"]
fn decisions_a_second() {
    for (nodes, pods) in [(100, 3000), (1000, 3000), (5000, 1000)] {
        let names: Vec<_> = (0..nodes).map(|number| format!("n{number}")).collect();
        let mut cluster = cluster(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let waiting: Vec<_> = (0..pods)
            .map(|number| Arc::new(requesting(&format!("p{number}"), 10, 10)))
            .collect();
        let start = std::time::Instant::now();
        for (turn, pod) in waiting.into_iter().enumerate() {
            let Decision::Node(node) = decide(&cluster, &pod, turn as u64) else {
                panic!("not placed")
            };
            cluster.place(pod, &node);
        }
        println!(
            "{nodes} nodes: {:.0} pods/s",
            f64::from(pods) / start.elapsed().as_secs_f64()
        );
    }
}
