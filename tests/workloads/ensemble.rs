//! A coordination service as the tutorial runs ZooKeeper: members on different nodes, and nodes that are drained for maintenance while
//! a budget holds the quorum.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use anyhow::ensure;
use wherry_test::is_root;

use crate::lesson::Lesson;
use crate::setting::{KINDS, LONG, cluster};

const ENSEMBLE: &str = include_str!("tutorials/ensemble.yaml");
const NODES: [&str; 3] = ["wherry-0", "wherry-1", "wherry-2"];
const MEMBERS: [&str; 3] = ["member-0", "member-1", "member-2"];

fn places(lesson: &Lesson<'_>) -> anyhow::Result<Vec<String>> {
    lesson.words("pods -l app=ensemble", "{.items[*].spec.nodeName}")
}

#[test]
fn an_ensemble_keeps_its_quorum_while_nodes_are_drained() -> anyhow::Result<()> {
    if !is_root("several nodes") {
        return Ok(());
    }
    let cluster = cluster(3)?;
    let lessons: Vec<_> =
        KINDS.into_iter().map(|kind| Lesson::begin(&cluster, "ensemble", kind)).collect::<Result<_, _>>()?;
    for lesson in &lessons {
        lesson.start_client()?;
        lesson.apply(ENSEMBLE)?;
    }
    for lesson in &lessons {
        forms(lesson)?;
    }
    // The nodes of the first kind's members, in order; those of the other's lie in some other order on the same nodes.
    let nodes = places(&lessons[0])?;
    let kubectl = cluster.kubectl();
    let drain = |node: &str, limit: u64| {
        kubectl.run(&format!("drain {node} --ignore-daemonsets --delete-emptydir-data --timeout={limit}s"))
    };
    let drained = drain(&nodes[0], LONG.as_secs())?;
    ensure!(drained.success && drained.stdout.contains(&format!("node/{} drained", nodes[0])), "{drained:?}");
    for lesson in &lessons {
        waits_for_its_node(lesson, &nodes[0])?;
    }
    // The quorum is as small as it may be.
    let refused = drain(&nodes[1], 3)?;
    let why = "Cannot evict pod as it would violate the pod's disruption budget.";
    ensure!(!refused.success && refused.stderr.contains(why), "{refused:?}");
    for lesson in &lessons {
        assert_eq!(lesson.table("pdb quorum")?[0]["ALLOWED DISRUPTIONS"], "0");
        assert_eq!(
            lesson.words("pods -l app=ensemble", "{.items[?(@.status.phase==\"Running\")].metadata.name}")?.len(),
            2
        );
    }
    // With the first node back there is a place for who left it; then the second may go.
    kubectl.ok(&format!("uncordon {}", nodes[0]))?;
    for lesson in &lessons {
        lesson.rolled_out("statefulset/member")?;
    }
    let drained = drain(&nodes[1], LONG.as_secs())?;
    ensure!(drained.success, "{drained:?}");
    kubectl.ok(&format!("uncordon {}", nodes[1]))?;
    for lesson in lessons {
        remembers(&lesson)?;
        lesson.end()?;
    }
    Ok(())
}

fn forms(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.rolled_out("statefulset/member")?;
    assert_eq!(lesson.words("pods -l app=ensemble", "{.items[*].metadata.name}")?, MEMBERS);
    let places: BTreeSet<String> = places(lesson)?.into_iter().collect();
    assert_eq!(places.iter().map(String::as_str).collect::<Vec<_>>(), NODES);
    for (ordinal, member) in MEMBERS.into_iter().enumerate() {
        let index = format!("get pod {member} -o jsonpath={{.metadata.labels.apps\\.kubernetes\\.io/pod-index}}");
        assert_eq!(lesson.ok(&index)?, ordinal.to_string());
        let at = format!("{member}.members.{}.svc.cluster.local:8080", lesson.namespace);
        assert_eq!(lesson.read(&at, "env?name=HOSTNAME")?, member);
        lesson.read(&at, &format!("write?path=/state/id&text={ordinal}"))?;
    }
    let leader = lesson.read("clients:2181", "env?name=HOSTNAME")?;
    ensure!(MEMBERS.contains(&leader.as_str()), "{leader}");
    lesson.wait("--for=jsonpath={.status.currentHealthy}=3 pdb/quorum")?;
    let budget = lesson.table("pdb quorum")?.remove(0);
    let shown = ["MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS"].map(|column| budget[column].as_str());
    assert_eq!(shown, ["N/A", "1", "1"]);
    Ok(())
}

/// Its volume is on that node, and its like are on the others.
fn waits_for_its_node(lesson: &Lesson<'_>, node: &str) -> anyhow::Result<()> {
    let waiting = "{.items[?(@.status.phase==\"Pending\")].metadata.name}";
    lesson.wait("--for=jsonpath={.status.readyReplicas}=2 statefulset/member")?;
    lesson.wait("--for=jsonpath={.status.replicas}=3 statefulset/member")?;
    let names = lesson.words("pods -l app=ensemble", waiting)?;
    ensure!(names.len() == 1, "{names:?}");
    let name = &names[0];
    lesson.wait(&format!("--for=condition=PodScheduled=false pod/{name}"))?;
    let why = lesson.ok(&format!("get pod {name} -o jsonpath={{.status.conditions[0].message}}"))?;
    ensure!(
        why.starts_with("0/3 nodes are available: ") && why.contains("1 node(s) were unschedulable"),
        "{node}: {why}"
    );
    Ok(())
}

/// Everybody is where it was, with what it knew.
fn remembers(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    lesson.rolled_out("statefulset/member")?;
    for (ordinal, member) in MEMBERS.into_iter().enumerate() {
        let known = lesson.read(&format!("{member}.members:8080"), "read?path=/state/id")?;
        assert_eq!(known, ordinal.to_string());
    }
    Ok(())
}
