//! Hooks, and the sidecars that they ask.

use anyhow::ensure;

use super::{Scenario, pod};
use crate::stage::{Stage, phase, preparing, ready};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "hooks", manifest: String::new, play: requests, expected: REQUESTED },
        Scenario {
            name: "sidecar",
            manifest: || pod(&sidecar(""), ""),
            play: |stage| {
                stage.until("ready", ready("True"))?;
                // It ends before it can answer.
                let answer = stage.get("/fetch?authority=127.0.0.1:8081&path=crash")?;
                ensure!(answer.status >= 500, "{answer:?}");
                stage.until("ready again", |pod| preparing(1)(pod) && ready("True")(pod))
            },
            expected: "
<pod running> > True > False/ContainersNotReady > True
first: PodInitializing > Running > Error 1 > Running
first restarts: 0 > 1
first started: false > true > false > true
first ready: false > true > false > true
<echo runs>
<first prepares>
<echo begins>",
        },
        Scenario {
            name: "commands",
            manifest: || {
                let hooks = "stdin: true
startupProbe: {exec: {command: [/bin/cat]}, periodSeconds: 1, timeoutSeconds: 20}
lifecycle:
  postStart: {exec: {command: [/bin/cat]}}
  preStop: {exec: {command: [/bin/cat, b, c, d, e, f, g, h, i]}}";
                pod("terminationGracePeriodSeconds: 3", hooks).replace("IMAGE", "TOOL")
            },
            play: |stage| {
                stage.until("ready", ready("True"))?;
                stage.kubectl("delete pod echo --wait=false")?;
                stage.until_deleted()
            },
            expected: "
<pod failed> > True > False/PodFailed
<echo ends> Error 1*
deleted
<echo begins> TOOL
Normal Killing spec.containers{echo}: Stopping container echo
Warning FailedPreStopHook spec.containers{echo}: PreStopHook failed",
        },
        Scenario {
            name: "command-liveness",
            manifest: || {
                let probe = "stdin: true
livenessProbe:
  {exec: {command: [/bin/cat, b, c, d, e, f, g, h, i]}, initialDelaySeconds: 1, failureThreshold: 1, timeoutSeconds: 20, terminationGracePeriodSeconds: 1}";
                pod("restartPolicy: Never\nterminationGracePeriodSeconds: 3600", probe).replace("IMAGE", "TOOL")
            },
            play: |stage| stage.until("ended", phase("Failed")),
            expected: "
<pod failed> > True > False/PodFailed
<echo ends> Error 1*
<echo begins> TOOL
Warning Unhealthy spec.containers{echo}: Liveness probe failed: *
Normal Killing spec.containers{echo}: Stopping container echo",
        },
    ]
}

/// A sidecar `first` on port 8081 with all of the Pod's volumes.
fn sidecar(volumes: &str) -> String {
    let mounts = if volumes.is_empty() {
        ""
    } else {
        ", volumeMounts: [{name: data, mountPath: /data}, {name: host, mountPath: /host}]"
    };
    format!(
        "{volumes}
initContainers: [{{name: first, image: OTHER, restartPolicy: Always, env: [{{name: PORT, value: '8081'}}], ports: [{{containerPort: 8081}}], startupProbe: {{tcpSocket: {{port: 8081}}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}}{mounts}}}]"
    )
}

/// Each hook asks the sidecar to write a file: it is there before the container, and still there after it.
fn requests(stage: &Stage<'_>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let volumes = format!(
        "volumes: [{{name: data, emptyDir: {{}}}}, {{name: host, hostPath: {{path: {}, type: Directory}}}}]",
        dir.path().display()
    );
    let hooks = "
lifecycle:
  postStart: {httpGet: {port: 8081, path: '/write?path=/data/started&text=yes'}}
  preStop: {httpGet: {port: 8081, path: '/write?path=/host/stopped&text=yes'}}
volumeMounts: [{name: data, mountPath: /data}]";
    stage.apply(&pod(&sidecar(&volumes), hooks))?;
    stage.until("ready", ready("True"))?;
    ensure!(stage.ok("/read?path=/data/started")? == "yes");
    ensure!(!dir.path().join("stopped").exists(), "the hook ran too early");
    stage.kubectl("delete pod echo --wait=false")?;
    stage.until_deleted()?;
    ensure!(std::fs::read_to_string(dir.path().join("stopped"))? == "yes");
    Ok(())
}

const REQUESTED: &str = "
<pod succeeded> > True > False/PodCompleted
<first ends> Completed 0
<echo ends> Completed 0
deleted
<first prepares>
Normal Killing spec.initContainers{first}: Stopping container first
<echo begins>
Normal Killing spec.containers{echo}: Stopping container echo";
