//! DaemonSets on two nodes: on all of them, on those that are meant, through updates and back, and away from a node that is no
//! longer for them.
#![allow(clippy::unwrap_used, reason = "tests")]

use anyhow::ensure;
use wherry_test::is_root;

use crate::lesson::Lesson;
use crate::setting::{KINDS, cluster};

const NODES: [&str; 2] = ["wherry-0", "wherry-1"];
const UIDS: &str = "{.items[*].metadata.uid}";
const COLORS: &str = "{.items[*].spec.containers[0].env[?(@.name==\"COLOR\")].value}";

#[test]
fn daemons_run_on_every_node() -> anyhow::Result<()> {
    if !is_root("several nodes") {
        return Ok(());
    }
    let cluster = cluster(2)?;
    let kubectl = cluster.kubectl();
    kubectl.ok("taint node wherry-1 node-role.kubernetes.io/control-plane:NoSchedule")?;
    // What is done to nodes concerns both kinds.
    let lessons: Vec<_> =
        KINDS.into_iter().map(|kind| Lesson::begin(&cluster, "daemons", kind)).collect::<Result<_, _>>()?;
    for lesson in &lessons {
        lesson.apply(include_str!("tutorials/daemons.yaml"))?;
        lesson.rolled_out("daemonset/collector")?;
        assert_eq!(nodes(lesson, "collector")?, NODES);
        let row = lesson.table("daemonset collector")?.remove(0);
        let columns = ["NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR"];
        assert_eq!(columns.map(|column| row[column].as_str()), ["collector", "2", "2", "2", "2", "2", "<none>"]);
        let row = lesson.table("daemonset disks")?.remove(0);
        assert_eq!((row["DESIRED"].as_str(), row["NODE SELECTOR"].as_str()), ("0", "disk=fast"));
    }
    // The taint is not tolerated by the second.
    kubectl.ok("label node wherry-0 wherry-1 disk=fast")?;
    for lesson in &lessons {
        lesson.wait("--for=jsonpath={.status.numberReady}=1 daemonset/disks")?;
        assert_eq!(nodes(lesson, "disks")?, ["wherry-0"]);
    }
    kubectl.ok("taint node wherry-1 node-role.kubernetes.io/control-plane-")?;
    for lesson in &lessons {
        lesson.wait("--for=jsonpath={.status.numberReady}=2 daemonset/disks")?;
    }
    kubectl.ok("label node wherry-1 disk-")?;
    for lesson in &lessons {
        lesson.wait("--for=jsonpath={.status.currentNumberScheduled}=1 daemonset/disks")?;
        lesson.until("get pods -l app=disks -o jsonpath={.items[*].spec.nodeName}", |places| places == "wherry-0")?;
        updates_and_goes_back(lesson)?;
    }
    kubectl.ok("taint node wherry-1 maintenance=now:NoExecute")?;
    for lesson in &lessons {
        lesson
            .until("get pods -l app=collector -o jsonpath={.items[*].spec.nodeName}", |places| places == "wherry-0")?;
        lesson.wait("--for=jsonpath={.status.desiredNumberScheduled}=1 daemonset/collector")?;
    }
    kubectl.ok("taint node wherry-1 maintenance-")?;
    for lesson in lessons {
        lesson.wait("--for=jsonpath={.status.numberAvailable}=2 daemonset/collector")?;
        assert_eq!(nodes(&lesson, "collector")?, NODES);
        lesson.ok("delete daemonset collector --cascade=foreground")?;
        assert_eq!(lesson.ok("get pods,controllerrevisions -l app=collector -o name")?, "");
        lesson.end()?;
    }
    Ok(())
}

/// Where a set's Pods are, sorted.
fn nodes(lesson: &Lesson<'_>, app: &str) -> anyhow::Result<Vec<String>> {
    let mut nodes = lesson.words(&format!("pods -l app={app}"), "{.items[*].spec.nodeName}")?;
    nodes.sort_unstable();
    Ok(nodes)
}

fn updates_and_goes_back(lesson: &Lesson<'_>) -> anyhow::Result<()> {
    let set = "daemonset/collector";
    let pods = |path: &str| lesson.words("pods -l app=collector", path);
    assert_eq!(lesson.ok(&format!("set env {set} COLOR=blue"))?, "daemonset.apps/collector env updated\n");
    assert_eq!(lesson.rolled_out(set)?, "daemon set \"collector\" successfully rolled out");
    assert_eq!(pods(COLORS)?, ["blue", "blue"]);
    let history = lesson.ok(&format!("rollout history {set}"))?;
    let revisions: Vec<_> =
        history.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok()).collect();
    assert_eq!(revisions, [1, 2], "{history}");
    let second = lesson.ok(&format!("rollout history {set} --revision=2"))?;
    ensure!(second.contains("COLOR:") && second.contains("blue"), "{second}");

    assert_eq!(lesson.ok(&format!("rollout undo {set} --to-revision=1"))?, "daemonset.apps/collector rolled back\n");
    lesson.rolled_out(set)?;
    assert_eq!(pods(COLORS)?, [""; 0]);
    let before = pods(UIDS)?;
    lesson.ok(&format!("rollout restart {set}"))?;
    lesson.rolled_out(set)?;
    let after = pods(UIDS)?;
    ensure!(after.len() == 2 && after.iter().all(|uid| !before.contains(uid)), "{before:?} {after:?}");
    assert_eq!(nodes(lesson, "collector")?, NODES);
    Ok(())
}
