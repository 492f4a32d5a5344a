//! Who leaves for whom: by table, and properties over random clusters.

use k8s_openapi::{api::policy::v1::PodDisruptionBudget, jiff::Timestamp};

use super::*;
use crate::preemption::{Candidate, Nomination, Preemption, preempt};

/// A Pod of a priority that requests CPU (thousandths).
fn ranked(name: &str, priority: i32, cpu: i64) -> PodInfo {
    PodInfo { priority, ..requesting(name, cpu, 0) }
}

fn budget(app: &str, allowed: i32) -> Arc<PodDisruptionBudget> {
    let budget = json!({
        "metadata": {"name": app, "namespace": "default"}, "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
    });
    Arc::new(serde_json::from_value(budget).unwrap())
}

/// What follows the failure of a Pod.
fn consequence(cluster: &Cluster, pod: &PodInfo, budgets: &[Arc<PodDisruptionBudget>]) -> Preemption {
    match decide(cluster, pod, 0) {
        Decision::None { resolvable, .. } => preempt(cluster, pod, &resolvable, budgets, 0),
        Decision::Node(node) => panic!("{} fits on {node}", pod.key),
    }
}

fn candidate(cluster: &Cluster, pod: &PodInfo, budgets: &[Arc<PodDisruptionBudget>]) -> Candidate {
    match consequence(cluster, pod, budgets) {
        Preemption { message: None, nomination: Nomination::On(candidate) } => candidate,
        other => panic!("{other:?}"),
    }
}

/// The node and the names of the victims, the most important one first.
fn chosen(cluster: &Cluster, pod: &PodInfo, budgets: &[Arc<PodDisruptionBudget>]) -> (String, Vec<String>) {
    let candidate = candidate(cluster, pod, budgets);
    let victims = candidate.victims.iter().map(|victim| victim.key.name.clone()).collect();
    (candidate.node, victims)
}

fn refusal(cluster: &Cluster, pod: &PodInfo) -> String {
    consequence(cluster, pod, &[]).message.unwrap()
}

#[test]
fn the_messages_are_upstreams() {
    let mut two = cluster(&["a"]);
    add_node(&mut two, "b", json!({}), json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}));
    place(&mut two, ranked("x", 10, 3000), "a");
    let none = "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, \
                1 Preemption is not helpful for scheduling.";
    assert_eq!(refusal(&two, &ranked("p", 10, 2000)), none, "nobody of a lower priority");
    let helpless = "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    assert_eq!(refusal(&two, &ranked("p", 20, 5000)), helpless, "the empty node has not as much");
    let claims = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]});
    assert_eq!(refusal(&two, &pod_with("p", claims)), helpless);
    place(&mut two, ranked("y", 30, 1000), "a");
    let wants = ranked("p", 20, 3500);
    assert_eq!(
        refusal(&two, &wants),
        "preemption: 0/2 nodes are available: 1 Insufficient cpu, 1 Preemption is not helpful for scheduling.",
        "those of a higher priority take too much"
    );
    let polite = PodInfo { preempts: false, ..ranked("p", 20, 3000) };
    let Preemption { message, nomination: Nomination::Keep } = consequence(&two, &polite, &[]) else { panic!() };
    assert_eq!(message.unwrap(), "preemption: not eligible due to preemptionPolicy=Never.");
    let Preemption { message: None, nomination: Nomination::Clear } = preempt(&Cluster::default(), &wants, &[], &[], 0)
    else {
        panic!("no nodes")
    };
}

#[test]
fn as_many_stay_as_can_the_important_ones_first() {
    let mut one = cluster(&["a"]);
    for (name, priority, cpu) in [("p1", 1, 800), ("p2", 2, 1200), ("p3", 3, 1800)] {
        place(&mut one, ranked(name, priority, cpu), "a");
    }
    assert_eq!(chosen(&one, &ranked("p4", 4, 2000), &[]), ("a".into(), vec!["p2".into(), "p1".into()]));
    assert_eq!(chosen(&one, &ranked("p4", 4, 1000), &[]), ("a".into(), vec!["p1".into()]));
    assert_eq!(chosen(&one, &ranked("p4", 2, 1000), &[]), ("a".into(), vec!["p1".into()]));
    let keeping = [budget("p1", 0)];
    assert_eq!(
        chosen(&one, &ranked("p4", 4, 1000), &keeping),
        ("a".into(), vec!["p2".into()]),
        "p1's budget forbids it"
    );
    let all = [budget("p1", 0), budget("p2", 0), budget("p3", 0)];
    let least = candidate(&one, &ranked("p4", 4, 1000), &all);
    assert_eq!((least.violations, least.victims[0].key.name.as_str()), (1, "p1"), "where none can be kept");
    let spent = [budget("p1", 1)];
    assert_eq!(candidate(&one, &ranked("p4", 4, 1000), &spent).violations, 0, "the budget allows one");
}

#[test]
fn the_node_that_costs_least_is_chosen() {
    let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
    // Node, name, priority, start; each node is full, and the preemptor wants all of it.
    type Placed = (&'static str, &'static str, i32, i64);
    let cases: [(&[Placed], &str, &str); 5] = [
        (&[("a", "guarded", 1, 0), ("b", "x", 5, 0)], "b", "no budget is broken"),
        (&[("a", "x", 5, 0), ("b", "y", 4, 0), ("b", "z", 4, 0)], "b", "the highest priority is lower"),
        (&[("a", "x", 5, 0), ("a", "y", 4, 0), ("b", "z", 5, 0), ("b", "w", 3, 0)], "b", "the sum is lower"),
        (&[("a", "x", -5, 0), ("a", "y", -5, 0), ("b", "z", -5, 0)], "b", "fewer, and a negative sum is no gain"),
        (
            &[("a", "x", 5, 10), ("a", "y", 4, 90), ("b", "z", 5, 20), ("b", "w", 4, 0)],
            "b",
            "the most important is younger",
        ),
    ];
    for (placed, node, why) in cases {
        let mut two = cluster(&["a", "b"]);
        for (node, name, priority, start) in placed {
            let share = 4000 / placed.iter().filter(|(other, ..)| other == node).count() as i64;
            place(&mut two, PodInfo { started: at(*start), ..ranked(name, *priority, share) }, node);
        }
        assert_eq!(chosen(&two, &ranked("p", 9, 4000), &[budget("guarded", 0)]).0, node, "{why}");
    }
}

#[test]
fn room_that_is_being_made_is_left_to_those_it_is_for() {
    let mut two = cluster(&["a"]);
    add_node(&mut two, "b", json!({}), json!({"unschedulable": true}));
    place(&mut two, ranked("x", 1, 3000), "a");
    let first = ranked("first", 10, 3000);
    two.nominations.set(Arc::new(first.clone()), "a");
    two.ask_to_leave("uid-x");
    assert_eq!(reasons(&two, &ranked("lower", 5, 500), "a"), ["Insufficient cpu"]);
    assert_eq!(reasons(&two, &ranked("equal", 10, 500), "a"), ["Insufficient cpu"]);
    assert_eq!(reasons(&two, &ranked("higher", 20, 500), "a"), [""; 0]);
    assert_eq!(reasons(&two, &first, "a"), ["Insufficient cpu"], "itself it does not stand in the way");
    let waits = "preemption: not eligible due to a terminating pod on the nominated node.";
    assert_eq!(refusal(&two, &first), waits);
    let full = refusal(&two, &ranked("lower", 5, 2000));
    assert!(full.contains("1 Insufficient cpu"), "{full}");
    two.spare("uid-x");
    assert_eq!(chosen(&two, &first, &[]).1, ["x"], "nobody is leaving: others are asked anew");
    assert!(two.remove("uid-x"));
    add_node(&mut two, "b", json!({}), json!({}));
    assert!((0..9).all(|turn| decide(&two, &first, turn) == Decision::Node("a".into())), "it goes where it is awaited");
    place(&mut two, first.clone(), "a");
    assert_eq!(two.nominations.of("uid-first"), None);
    assert_eq!(reasons(&two, &ranked("lower", 5, 500), "a"), [""; 0]);
}

#[test]
fn another_node_is_looked_for_where_the_awaited_one_will_not_do() {
    let mut two = cluster(&["a", "b"]);
    for (name, node) in [("x", "a"), ("y", "b")] {
        place(&mut two, ranked(name, 1, 4000), node);
    }
    let pod = ranked("p", 10, 4000);
    two.nominations.set(Arc::new(pod.clone()), "a");
    two.ask_to_leave("uid-x");
    add_node(&mut two, "a", json!({}), json!({"unschedulable": true}));
    assert_eq!(chosen(&two, &pod, &[]), ("b".into(), vec!["y".into()]));
}

#[test]
fn whatever_the_others_stand_in_the_way_of() {
    let port = |name: &str| {
        pod_with(name, json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}))
    };
    let apart = || affine("x", "podAntiAffinity", term("db", "zone"));
    let web = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    let spread = |name: &str| labelled(name, json!({"app": "web"}), json!({"topologySpreadConstraints": [web]}));
    let cases = [
        ("ports", vec![(port("v"), "a1")], port("p"), vec!["v"]),
        ("its anti-affinity", vec![(pod("db"), "a2")], apart(), vec![]),
        ("its anti-affinity, on the node", vec![(pod("db"), "a1")], apart(), vec!["db"]),
        ("theirs", vec![(apart(), "a1")], pod("db"), vec!["x"]),
        ("the spread", vec![(spread("w1"), "a1"), (spread("w2"), "a1")], spread("w3"), vec!["w1", "w2"]),
    ];
    for (what, placed, wants, victims) in cases {
        let mut all = zones();
        // The other zone is closed, and so is the other node of this one.
        add_node(&mut all, "a2", json!({"zone": "a"}), json!({"unschedulable": true}));
        add_node(&mut all, "b1", json!({"zone": "b"}), json!({"unschedulable": true}));
        placed.into_iter().for_each(|(pod, node)| place(&mut all, pod, node));
        let wants = PodInfo { priority: 1, ..wants };
        match consequence(&all, &wants, &[]).nomination {
            Nomination::On(found) => {
                let mut names: Vec<_> = found.victims.iter().map(|victim| victim.key.name.as_str()).collect();
                names.sort_unstable();
                assert_eq!((found.node.as_str(), names), ("a1", victims), "{what}");
            }
            Nomination::Clear => assert!(victims.is_empty(), "{what}"),
            Nomination::Keep => panic!("{what}"),
        }
    }
}

#[derive(Debug, Clone)]
struct Someone {
    node: usize,
    priority: i32,
    cpu: i64,
    app: &'static str,
    port: bool,
    apart: bool,
}

fn someone() -> impl Strategy<Value = Someone> {
    let app = prop_oneof![Just("red"), Just("blue")];
    (0..3_usize, -1..4_i32, 0..2500_i64, app, prop::bool::weighted(0.2), prop::bool::weighted(0.2))
        .prop_map(|(node, priority, cpu, app, port, apart)| Someone { node, priority, cpu, app, port, apart })
}

impl Someone {
    fn pod(&self, name: &str) -> PodInfo {
        let mut pod = ranked(name, self.priority, self.cpu);
        pod.labels.insert("app".into(), self.app.into());
        if self.port {
            pod.ports = pod_with("x", json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]})).ports;
        }
        if self.apart {
            pod.anti_affinity = affine("x", "podAntiAffinity", term(self.app, "kubernetes.io/hostname")).anti_affinity;
        }
        pod
    }
}

fn without(cluster: &Cluster, pods: &[Arc<PodInfo>]) -> Cluster {
    let mut cluster = cluster.clone();
    assert!(pods.iter().all(|pod| cluster.remove(&pod.uid)));
    cluster
}

/// All sets of Pods of lower priority on a node whose leaving makes the Pod fit there.
fn ways(cluster: &Cluster, pod: &PodInfo, node: &str) -> Vec<Vec<Arc<PodInfo>>> {
    let all = cluster.nodes[node].pods.values();
    let lower: Vec<_> = all.filter(|other| other.priority < pod.priority).cloned().collect();
    let sets = 0..1_u32 << lower.len();
    let chosen = sets.map(|set| (0..lower.len()).filter(|i| set >> i & 1 == 1).map(|i| lower[i].clone()).collect());
    chosen.filter(|leaving: &Vec<_>| reasons(&without(cluster, leaving), pod, node).is_empty()).collect()
}

proptest! {
    /// The budgets here allow nothing or do not exist, so that which Pods break one does not depend on an order.
    #[test]
    fn who_leaves_is_of_less_importance_and_needed(
        placed in prop::collection::vec(someone(), 0..14),
        wants in someone(),
        guarded in prop::sample::subsequence(vec!["red", "blue"], 0..=2),
    ) {
        let nodes = ["a", "b", "c"];
        let mut all = cluster(&nodes);
        for (number, one) in placed.iter().enumerate() {
            let pod = one.pod(&number.to_string());
            if reasons(&all, &pod, nodes[one.node]).is_empty() {
                place(&mut all, pod, nodes[one.node]);
            }
        }
        let pod = wants.pod("p");
        let budgets: Vec<_> = guarded.iter().map(|app| budget(app, 0)).collect();
        let Decision::None { resolvable, .. } = decide(&all, &pod, 0) else { return Ok(()) };
        let ways: Vec<_> = nodes.iter().flat_map(|node| ways(&all, &pod, node)).collect();
        let broken = |victims: &[Arc<PodInfo>]| {
            victims.iter().filter(|victim| guarded.contains(&victim.labels["app"].as_str())).count()
        };
        match preempt(&all, &pod, &resolvable, &budgets, 0).nomination {
            Nomination::On(Candidate { node, victims, violations }) => {
                prop_assert!(!victims.is_empty());
                prop_assert!(victims.iter().all(|victim| victim.priority < pod.priority));
                prop_assert!(victims.iter().all(|victim| all.place_of(&victim.uid) == Some(node.as_str())));
                prop_assert_eq!(reasons(&without(&all, &victims), &pod, &node), [""; 0]);
                for spared in 0..victims.len() {
                    let mut fewer = victims.clone();
                    fewer.remove(spared);
                    prop_assert!(!reasons(&without(&all, &fewer), &pod, &node).is_empty(), "{spared} may stay");
                }
                prop_assert_eq!(violations, broken(&victims));
                prop_assert!(violations == 0 || ways.iter().all(|victims| broken(victims) > 0));
            }
            Nomination::Clear => prop_assert!(ways.is_empty()),
            Nomination::Keep => prop_assert!(false, "it is awaited nowhere"),
        }
    }

    #[test]
    fn a_budget_that_allows_some_is_not_overspent(
        cpus in prop::collection::vec((500..2000_i64, 0..3_i32), 1..8),
        wants in 500..4000_i64,
        allowed in 0..4_i32,
    ) {
        let mut one = cluster(&["a"]);
        for (number, (cpu, priority)) in cpus.iter().enumerate() {
            let mut pod = ranked(&number.to_string(), *priority, *cpu);
            pod.labels.insert("app".into(), "red".into());
            place(&mut one, pod, "a");
        }
        let pod = ranked("p", 5, wants);
        if decide(&one, &pod, 0) == Decision::Node("a".into()) {
            return Ok(());
        }
        let found = candidate(&one, &pod, &[budget("red", allowed)]);
        let beyond = found.victims.len().saturating_sub(allowed as usize);
        prop_assert!(found.violations >= beyond, "{} of {}", found.violations, found.victims.len());
    }
}
