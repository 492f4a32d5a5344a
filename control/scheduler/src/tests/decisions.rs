//! The whole decision: message, choice, and properties over random clusters.

use super::*;

#[test]
fn the_message_is_upstreams() {
    let mut cluster = cluster(&["a"]);
    for name in ["b", "c"] {
        add_node(&mut cluster, name, json!({}), json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}));
    }
    let Decision::None { message, wake, resolvable } = decide(&cluster, &requesting("p", 5000, 1), 7) else {
        panic!("placed")
    };
    assert_eq!(message, "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).");
    assert_eq!(wake, [Wake::Node, Wake::PodGone].into());
    assert!(resolvable.is_empty(), "the empty node would not have it either");
    let Decision::None { message, .. } = decide(&Cluster::default(), &pod("p"), 0) else { panic!("placed") };
    assert_eq!(message, "no nodes available to schedule pods");
}

#[test]
fn the_better_node_is_chosen() {
    let mut full = cluster(&["a", "b"]);
    place(&mut full, requesting("x", 2000, 4096), "a");
    assert_eq!(chosen(&full, &pod("p")), "b", "more is left");

    let mut advised = cluster(&["b"]);
    add_node(&mut advised, "a", json!({}), json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}));
    assert_eq!(chosen(&advised, &pod("p")), "b", "a taint advises against the other");

    let mut labelled_nodes = cluster(&["a"]);
    add_node(&mut labelled_nodes, "b", json!({"disk": "ssd"}), json!({}));
    let prefers = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]}}});
    assert_eq!(chosen(&labelled_nodes, &pod_with("p", prefers)), "b", "preferred");

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
    assert_eq!(chosen(&neighbours, &weighted("podAffinity")), "a", "near the other");
    assert_eq!(chosen(&neighbours, &weighted("podAntiAffinity")), "b", "away from the other");

    let mut cached = cluster(&["a", "b"]);
    let image = json!([{"names": ["example/c:1"], "sizeBytes": 2_000_000_000_u64}]);
    let allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
    set_status(&mut cached, "b", json!({"allocatable": allocatable, "images": image}));
    assert_eq!(chosen(&cached, &pod("p")), "b", "has the image");
}

#[test]
fn pods_of_one_owner_go_to_different_nodes() {
    let mut cluster = cluster(&["a", "b", "c"]);
    for turn in 0..6 {
        let mut pod = pod(&format!("p{turn}"));
        pod.owner = Some("set".into());
        let Decision::Node(node) = decide(&cluster, &pod, turn) else { panic!("not placed") };
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
    assert_eq!(reasons(&cluster, &requesting("y", 1000, 1), "a"), ["Insufficient cpu"]);
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
