//! What is changed of a Pod that runs: its size, its containers, its readiness; and how its exits are judged.

use anyhow::ensure;
use serde_json::Value;

use super::{READY, Scenario, pod};
use crate::stage::{Stage, condition, phase, ready, running};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "resize",
            manifest: || pod("", "resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {cpu: 100m, memory: 64Mi}}"),
            play: resize,
            expected: "
<pod running> > True
<echo runs>
<echo begins>
Normal ResizeStarted: Pod resize started: *
Normal ResizeCompleted: Pod resize completed: *",
        },
        Scenario {
            name: "gate",
            manifest: || pod("readinessGates: [{conditionType: example.com/open}]", ""),
            play: |stage| {
                stage.until("the containers are ready", condition("ContainersReady", "True"))?;
                let open = r#"{"status":{"conditions":[{"type":"example.com/open","status":"True"}]}}"#;
                stage.kubectl(&format!("patch pod echo --subresource=status -p {open}"))?;
                stage.until("ready", ready("True"))
            },
            expected: "
phase: Pending > Running
PodScheduled: True
PodReadyToStartContainers: False > True
Initialized: True
ContainersReady: False/ContainersNotReady > True
Ready: False/ContainersNotReady > False/ReadinessGatesNotReady > True
<echo runs>
<echo begins>",
        },
        Scenario {
            name: "rules",
            manifest: || {
                let rules = "restartPolicy: Never
restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]";
                pod("restartPolicy: Never", rules)
            },
            play: |stage| {
                stage.until("runs", running(0))?;
                stage.last("/crash")?;
                stage.until("runs again", running(1))?;
                stage.last("/exit")?;
                stage.until("has succeeded", phase("Succeeded"))
            },
            expected: "
<pod succeeded> > True > False/ContainersNotReady > True > False/PodCompleted
echo: ContainerCreating > Running > Error 1 > Running > Completed 0
echo restarts: 0 > 1
echo started: false > true > false > true > false
echo ready: false > true > false > true > false
<echo begins>",
        },
        Scenario { name: "debug", manifest: || pod("", ""), play: debug, expected: DEBUGGED },
        Scenario { name: "quality", manifest: || pod("", GUARANTEED), play: quality, expected: READY },
    ]
}

const GUARANTEED: &str = "resources: {limits: {cpu: 100m, memory: 64Mi}}";

fn quality(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    let told = stage.kubectl("get pod echo -o jsonpath={.status.qosClass}")?;
    // Whatever is beside it asks for nothing.
    let alone = stage.kubectl("get pod echo -o jsonpath={.spec.initContainers}")?.is_empty();
    ensure!(told == if alone { "Guaranteed" } else { "Burstable" }, "{told}");
    Ok(())
}

fn resize(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    let wanted = r#"{"spec":{"containers":[{"name":"echo","resources":{"limits":{"cpu":"200m"}}}]}}"#;
    stage.kubectl(&format!("patch pod echo --subresource=resize -p {wanted}"))?;
    let given = |pod: &Value| pod["status"]["containerStatuses"][0]["resources"]["limits"]["cpu"] == "200m";
    stage.until("it has what it asks for", given)?;
    let told = stage.kubectl("get pod echo -o jsonpath={.status.qosClass}")?;
    ensure!(told == "Burstable", "{told}");
    stage.ok("/").map(drop)
}

/// A container is put into the Pod that runs.
fn debug(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    let image = stage.image("OTHER_TOOL");
    stage.kubectl(&format!(
        "debug echo --image={image} --container=debugger --profile=baseline --attach=false --quiet"
    ))?;
    stage.until("it has ended", |pod| {
        pod["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    })?;
    stage.ok("/").map(drop)
}

const DEBUGGED: &str = "
<pod running> > True
<echo runs>
debugger: *Completed 0
debugger restarts: 0
debugger started: false
debugger ready: false
<echo begins>
<debugger joins> OTHER_TOOL";
