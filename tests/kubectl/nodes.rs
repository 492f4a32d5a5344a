//! What is done to a node: taints, cordon, drain.

use anyhow::{Result, ensure};

use crate::scene::{ECHO, Scene, TICKER, deployment, row};

const NODE: &str = "wherry-0";

/// A taint keeps Pods away until it goes; the event says so.
pub(crate) fn taint(s: &Scene) -> Result<()> {
    s.prints(&format!("taint node {NODE} example.com/k=v:NoSchedule"), &format!("node/{NODE} tainted\n"))?;
    s.refuses(&format!("taint node {NODE} example.com/k=w:NoSchedule"), &["already has", "--overwrite is false"])?;
    s.kubectl.ok(&format!("run kept-away --image={TICKER}"))?;
    s.wait("--for=jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].reason}=Unschedulable pod/kept-away")?;
    s.says(
        "describe pod kept-away",
        &["FailedScheduling", "0/1 nodes are available: 1 node(s) had untolerated taint"],
    )?;
    s.says("get pods", &["Pending"])?;
    s.prints(&format!("taint node {NODE} example.com/k-"), &format!("node/{NODE} untainted\n"))?;
    s.wait("--for=condition=Ready pod/kept-away")?;
    s.says(&format!("label node {NODE} disk=fast"), &["labeled"])?;
    s.says("get nodes -l disk=fast -L disk", &["DISK", "fast"])?;
    s.says(&format!("label node {NODE} disk-"), &["unlabeled"])?;
    Ok(())
}

/// Drain evicts what has a controller; what has none only when forced.
pub(crate) fn cordon_and_drain(s: &Scene) -> Result<()> {
    for (kind, image) in ECHO {
        s.kubectl.apply(&deployment(kind, image, 1))?;
    }
    s.kubectl.ok(&format!("run alone --image={TICKER}"))?;
    s.wait("--for=condition=Ready pods --all")?;
    s.prints(&format!("cordon {NODE}"), &format!("node/{NODE} cordoned\n"))?;
    s.prints(&format!("cordon {NODE}"), &format!("node/{NODE} already cordoned\n"))?;
    ensure!(row(&s.kubectl.ok("get nodes")?, NODE)?[1] == "Ready,SchedulingDisabled");
    s.says(
        &format!("describe node {NODE}"),
        &["Taints:             node.kubernetes.io/unschedulable:NoSchedule", "Unschedulable:      true"],
    )?;
    s.refuses(
        &format!("drain {NODE} --timeout=60s"),
        &["cannot delete", "declare no controller", &format!("{}/alone", s.namespace)],
    )?;
    s.says(
        &format!("drain {NODE} --force --timeout=60s"),
        &[&format!("evicting pod {}/alone", s.namespace), "pod/alone evicted", &format!("node/{NODE} drained")],
    )?;
    s.refuses("get pod alone", &["pods \"alone\" not found"])?;
    // Their successors wait for a node.
    s.wait("--for=jsonpath={.status.unavailableReplicas}=1 deployments --all")?;
    ensure!(s.kubectl.ok("get pods --field-selector=status.phase=Running -o name")?.is_empty());
    s.prints(&format!("uncordon {NODE}"), &format!("node/{NODE} uncordoned\n"))?;
    s.wait("--for=condition=Available deployments --all")
}
