//! Pods of several containers, their volumes and network; logs; limits.

use anyhow::ensure;

use super::{READY, Scenario, pod};
use crate::stage::{Stage, phase, preparing, ready};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "two-containers", manifest: two, play: together, expected: TWO },
        Scenario {
            name: "init",
            manifest: || pod("initContainers: [{name: first, image: OTHER, ports: [{containerPort: 8080}]}]", ""),
            play: |stage| {
                stage.until("the init container runs", preparing(0))?;
                stage.last("/exit")?;
                stage.until("ready", ready("True"))
            },
            expected: "
<pod running> > True
first: PodInitializing > Running > Completed 0
first restarts: 0
first started: false > true > false
first ready: false > true
<echo runs>
<first prepares>
<echo begins>",
        },
        Scenario {
            name: "failed-init",
            manifest: || {
                pod(
                    "restartPolicy: Never\ninitContainers: [{name: first, image: OTHER, ports: [{containerPort: 8080}]}]",
                    "",
                )
            },
            play: |stage| {
                stage.until("the init container runs", preparing(0))?;
                stage.last("/crash")?;
                stage.until("has failed", phase("Failed"))
            },
            expected: "
phase: Pending > Failed
PodScheduled: True
PodReadyToStartContainers: False > True > False
Initialized: False/ContainersNotInitialized
ContainersReady: False/ContainersNotReady > False/PodFailed
Ready: False/ContainersNotReady > False/PodFailed
first: PodInitializing > Running > Error 1
first restarts: 0
first started: false > true > false
first ready: false
echo: PodInitializing
echo restarts: 0
echo started: false
echo ready: false
<first prepares>",
        },
        Scenario { name: "logs", manifest: || pod("", ""), play: logs, expected: READY },
        Scenario {
            name: "cpu",
            manifest: || {
                two().replacen(
                    "image: IMAGE",
                    "image: IMAGE\n      resources: {limits: {cpu: 50m}, requests: {cpu: 1m}}",
                    1,
                )
            },
            play: throttled,
            expected: TWO,
        },
    ]
}

/// The Pod echo with a second container, `second`, on port 8081, and a volume that both mount.
fn two() -> String {
    let mount = "volumeMounts: [{name: data, mountPath: /data}]";
    format!(
        "{}    - name: second
      image: OTHER
      env: [{{name: PORT, value: '8081'}}]
      ports: [{{containerPort: 8081}}]
      {mount}
",
        pod("volumes: [{name: data, emptyDir: {}}]", mount)
    )
}

/// Both containers have one volume and one network, in which 127.0.0.1 is the Pod.
fn together(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    let second = "/fetch?authority=127.0.0.1:8081&path=";
    stage.ok("/write?path=/data/a&text=from-the-first")?;
    ensure!(stage.ok(&format!("{second}read?path=/data/a"))? == "from-the-first");
    // From the second to the first and back.
    let kind = stage.ok("/")?;
    let back = stage.ok("/fetch?authority=127.0.0.1:8081&path=fetch?authority=127.0.0.1:8080%26path=")?;
    ensure!(back == kind, "{back} instead of {kind}");
    Ok(())
}

/// How fast the work goes, with the limit and without. The node's other load takes from both; the best of short spells tells
/// how fast the machine is.
fn throttled(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    let rounds = |path: &str| -> anyhow::Result<u64> { Ok(stage.ok(path)?.parse()?) };
    let mut free = 0;
    for _ in 0..10 {
        free = free.max(rounds("/fetch?authority=127.0.0.1:8081&path=spin?ms=20")? * 50);
    }
    let limited = rounds("/spin?ms=2000")? / 2;
    ensure!(limited > 0 && limited < free / 3, "{limited} rounds a second with 50m of CPU, {free} without a limit");
    Ok(())
}

fn logs(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    for path in ["/", "/healthz", "/env?name=NONE", "/none"] {
        stage.get(path)?;
    }
    stage.until_logged("GET /none")?;
    let all = "GET /\nGET /healthz\nGET /env\nGET /none\n";
    for (line, wanted) in [
        ("logs echo", all),
        ("logs echo -c echo", all),
        ("logs -l app=echo", all),
        ("logs echo --since=1h", all),
        ("logs echo --tail=2", "GET /env\nGET /none\n"),
        ("logs echo --tail=0", ""),
        ("logs echo --limit-bytes=8", "GET /\nGE"),
    ] {
        let found = stage.kubectl(line)?;
        ensure!(found == wanted, "{line}: {found:?}");
    }
    let stamped = stage.kubectl("logs echo --timestamps")?;
    let mut times = Vec::new();
    for (line, wanted) in stamped.lines().zip(all.lines()) {
        let (time, text) = line.split_once(' ').unwrap_or_default();
        ensure!(text == wanted, "{line}");
        times.push(time.parse::<k8s_openapi::jiff::Timestamp>()?);
    }
    ensure!(times.len() == 4 && times.is_sorted(), "{stamped}");
    let since = stage.kubectl(&format!("logs echo --since-time={}", times[3]))?;
    ensure!(since.ends_with("GET /none\n"), "{since}");
    Ok(())
}

const TWO: &str = "
<pod running> > True
<echo runs>
<second runs>
<echo begins>
<second begins>";
