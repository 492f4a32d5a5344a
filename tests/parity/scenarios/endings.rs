//! How containers and Pods end: by themselves, by force, by their limits, by request.

use wherry_test::get;

use super::{Scenario, pod};
use crate::stage::{Stage, phase, ready, running, waiting};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "graceful-stop",
            manifest: || pod("", "readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}"),
            play: |stage| {
                stage.until("ready", ready("True"))?;
                let address = stage.address();
                stage.ok("/")?;
                let request = std::thread::spawn(move || get(&address, "/sleep?ms=2500"));
                stage.until_logged("GET /sleep")?;
                stage.kubectl("delete pod echo --wait=false")?;
                stage.until_deleted()?;
                let answer = request.join().expect("no panic")?;
                anyhow::ensure!(answer.status == 200 && answer.body == "slept\n", "{answer:?}");
                Ok(())
            },
            expected: "
<pod succeeded> > True > False/PodCompleted
<echo ends> Completed 0
deleted
<echo begins>
Normal Killing spec.containers{echo}: Stopping container echo",
        },
        Scenario {
            name: "forced-stop",
            manifest: || pod("", ""),
            play: |stage| {
                stage.until("ready", ready("True"))?;
                let address = stage.address();
                stage.ok("/")?;
                let request = std::thread::spawn(move || get(&address, "/sleep?ms=600000"));
                stage.until_logged("GET /sleep")?;
                stage.kubectl("delete pod echo --wait=false --grace-period=1")?;
                stage.until_deleted()?;
                anyhow::ensure!(!request.join().expect("no panic").is_ok_and(|answer| answer.status == 200), "it was answered");
                Ok(())
            },
            expected: "
<pod failed> > True > False/PodFailed
<echo ends> Error 137
deleted
<echo begins>
Normal Killing spec.containers{echo}: Stopping container echo",
        },
        Scenario {
            name: "crash",
            manifest: || pod("", ""),
            play: |stage| {
                stage.until("runs", running(0))?;
                stage.last("/crash")?;
                stage.until("runs again", running(1))?;
                stage.ok("/healthz")?;
                let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
                anyhow::ensure!(lines(&stage.kubectl("logs echo --previous")?) == ["GET /", "GET /crash", "crashing"]);
                anyhow::ensure!(lines(&stage.kubectl("logs echo")?) == ["GET /healthz"]);
                stage.last("/crash")?;
                stage.until("backs off", waiting("CrashLoopBackOff"))?;
                stage.until("runs after the back-off", running(2))
            },
            expected: "
<pod running> > True > False/ContainersNotReady > True > False/ContainersNotReady > True
echo: ContainerCreating > Running > Error 1 > Running > Error 1 > CrashLoopBackOff (back-off 10s restarting failed container=echo pod=echo_NAMESPACE(UID)) > Running
echo restarts: 0 > 1 > 2
echo started: false > true > false > true > false > true
echo ready: false > true > false > true > false > true
<echo begins>
Warning BackOff spec.containers{echo}: Back-off restarting failed container echo in pod echo_NAMESPACE(UID)",
        },
        Scenario {
            name: "exit",
            manifest: || pod("restartPolicy: OnFailure", ""),
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
        Scenario {
            name: "failure",
            manifest: || pod("restartPolicy: Never", "terminationMessagePolicy: FallbackToLogsOnError"),
            play: |stage| {
                stage.until("runs", running(0))?;
                stage.last("/crash")?;
                stage.until("has failed", phase("Failed"))
            },
            expected: "
<pod failed> > True > False/PodFailed
<echo ends> Error 1 (GET /\\nGET /crash\\ncrashing)
<echo begins>",
        },
        Scenario {
            name: "oom",
            manifest: || pod("restartPolicy: Never", "resources: {limits: {memory: 48Mi}}"),
            play: |stage| {
                stage.until("runs", running(0))?;
                anyhow::ensure!(stage.ok("/alloc?mb=16")? == "allocated 4096 pages\n");
                stage.last("/alloc?mb=200")?;
                stage.until("has failed", phase("Failed"))
            },
            expected: "
<pod failed> > True > False/PodFailed
<echo ends> OOMKilled 137 (out of memory: *the container's limit is 50331648 bytes)
<echo begins>",
        },
        Scenario {
            name: "deadline",
            manifest: || pod("activeDeadlineSeconds: 10", ""),
            play: |stage| stage.until("has failed", phase("Failed")),
            expected: "
<pod failed> > True > False/PodFailed
<echo ends> Completed 0
reason: DeadlineExceeded
message: Pod was active on the node longer than the specified deadline
<echo begins>
Normal DeadlineExceeded: Pod was active on the node longer than the specified deadline
Normal Killing spec.containers{echo}: Stopping container echo",
        },
        Scenario {
            name: "rollout",
            manifest: || DEPLOYMENT.to_owned(),
            play: rollout,
            expected: "
<pod succeeded> > True > False/PodCompleted
<echo ends> Completed 0
deleted
<pod running> > True
<echo runs>
Normal ScalingReplicaSet: Scaled up replica set echo-HASH from 0 to 1
Normal SuccessfulCreate: Created pod: POD
<echo begins>
Normal ScalingReplicaSet: Scaled down replica set echo-HASH from 1 to 0
Normal SuccessfulDelete: Deleted pod: POD
Normal Killing spec.containers{echo}: Stopping container echo",
        },
    ]
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      COMPANION
      containers:
        - name: echo
          image: IMAGE
          env: [{name: VERSION, value: one}]
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
";

fn rollout(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.kubectl("rollout status deployment echo --timeout=60s")?;
    anyhow::ensure!(stage.ok("/env?name=VERSION")? == "one");
    stage.kubectl("set env deployment echo VERSION=two")?;
    stage.kubectl("rollout status deployment echo --timeout=60s")?;
    stage.until_deleted()?;
    anyhow::ensure!(stage.ok("/env?name=VERSION")? == "two");
    let sets = stage.kubectl("get replicasets -o jsonpath={.items[*].status.readyReplicas}")?;
    anyhow::ensure!(sets == "1", "{sets}");
    Ok(())
}
