//! A DaemonSet on two nodes: it runs on both, is rolled out, back and restarted by kubectl, and leaves a node that is no
//! longer for it.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_test::{Cluster, is_root};

use crate::setting::{KINDS, LONG, cluster, rolled_out, template, words};

const NODES: [&str; 2] = ["wherry-0", "wherry-1"];

#[test]
fn daemons_run_on_every_node() -> anyhow::Result<()> {
    if !is_root("several nodes") {
        return Ok(());
    }
    let cluster = cluster(2)?;
    for (name, image) in KINDS {
        let set = format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: {name}}}\nspec:\n{}",
            template(name, image)
        );
        cluster.kubectl().apply(&set)?;
        rolled_out(&cluster, &format!("daemonset/{name}"))?;
        assert_eq!(nodes(&cluster, name)?, NODES, "{name}");
        updates_and_goes_back(&cluster, name)?;
        leaves_a_node_that_is_not_for_it(&cluster, name)?;
        cluster.kubectl().ok(&format!("delete daemonset {name} --cascade=foreground"))?;
        assert_eq!(cluster.kubectl().ok(&format!("get pods,controllerrevisions -l app={name} -o name"))?, "");
    }
    Ok(())
}

fn nodes(cluster: &Cluster, name: &str) -> anyhow::Result<Vec<String>> {
    words(cluster, &format!("pods -l app={name}"), "{.items[*].spec.nodeName}")
}

fn updates_and_goes_back(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let set = format!("daemonset/{name}");
    let variable = "{.items[*].spec.containers[0].env[?(@.name==\"COLOR\")].value}";
    kubectl.ok(&format!("set env {set} COLOR=blue"))?;
    rolled_out(cluster, &set)?;
    assert_eq!(words(cluster, &format!("pods -l app={name}"), variable)?, ["blue", "blue"]);
    let history = kubectl.ok(&format!("rollout history {set}"))?;
    let revisions: Vec<_> =
        history.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok()).collect();
    assert_eq!(revisions, [1, 2], "{history}");

    kubectl.ok(&format!("rollout undo {set}"))?;
    rolled_out(cluster, &set)?;
    assert_eq!(words(cluster, &format!("pods -l app={name}"), variable)?, [""; 0]);
    let before = words(cluster, &format!("pods -l app={name}"), "{.items[*].metadata.uid}")?;
    kubectl.ok(&format!("rollout restart {set}"))?;
    rolled_out(cluster, &set)?;
    let after = words(cluster, &format!("pods -l app={name}"), "{.items[*].metadata.uid}")?;
    assert!(after.len() == 2 && after.iter().all(|uid| !before.contains(uid)), "{before:?} {after:?}");
    assert_eq!(nodes(cluster, name)?, NODES);
    Ok(())
}

fn leaves_a_node_that_is_not_for_it(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let gone = kubectl.ok(&format!(
        "get pods -l app={name} --field-selector=spec.nodeName=wherry-1 -o jsonpath={{.items[0].metadata.name}}"
    ))?;
    kubectl.ok("taint node wherry-1 maintenance=now:NoExecute")?;
    kubectl.wait(&format!("--for=delete pod/{gone}"), LONG)?;
    kubectl.wait(&format!("--for=jsonpath={{.status.desiredNumberScheduled}}=1 daemonset/{name}"), LONG)?;
    assert_eq!(nodes(cluster, name)?, ["wherry-0"]);
    kubectl.ok("taint node wherry-1 maintenance-")?;
    kubectl.wait(&format!("--for=jsonpath={{.status.numberAvailable}}=2 daemonset/{name}"), LONG)?;
    assert_eq!(nodes(cluster, name)?, NODES);
    Ok(())
}
