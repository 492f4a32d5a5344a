//! Startup, liveness and readiness probes. A probe asks for a file in a volume, so that the scenario decides when it passes.

use super::{Scenario, pod};
use crate::stage::{ready, running};

/// Fields of a Pod with a volume.
const VOLUME: &str = "volumes: [{name: data, emptyDir: {}}]";
const MOUNT: &str = "volumeMounts: [{name: data, mountPath: /data}]";

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "readiness",
            manifest: || {
                pod(
                    VOLUME,
                    &format!(
                        "{MOUNT}\nreadinessProbe: {{httpGet: {{path: '/read?path=/data/ready', port: http}}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1}}"
                    ),
                )
            },
            play: |stage| {
                stage.until_event("Unhealthy", "statuscode: 404")?;
                stage.ok("/write?path=/data/ready&text=yes")?;
                stage.until("ready", ready("True"))?;
                stage.ok("/remove?path=/data/ready")?;
                stage.until("not ready", ready("False"))?;
                stage.ok("/write?path=/data/ready&text=yes")?;
                stage.until("ready again", ready("True"))
            },
            expected: "
phase: Pending > Running
PodScheduled: True
PodReadyToStartContainers: False > True
Initialized: True
ContainersReady: False/ContainersNotReady > True > False/ContainersNotReady > True
Ready: False/ContainersNotReady > True > False/ContainersNotReady > True
echo: ContainerCreating > Running
echo restarts: 0
echo started: false > true
echo ready: false > true > false > true
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started
Warning Unhealthy spec.containers{echo}: Readiness probe failed: HTTP probe failed with statuscode: 404",
        },
        Scenario {
            name: "liveness",
            manifest: || {
                let asked =
                    "httpGet: {path: '/read?path=/data/alive', port: http}, periodSeconds: 1, timeoutSeconds: 20";
                pod(
                    VOLUME,
                    &format!(
                        "{MOUNT}\nstartupProbe: {{{asked}, failureThreshold: 120}}\nlivenessProbe: {{{asked}, failureThreshold: 2}}"
                    ),
                )
            },
            play: |stage| {
                stage.until_event("Unhealthy", "Startup probe failed: HTTP")?;
                stage.ok("/write?path=/data/alive&text=yes")?;
                stage.until("started", ready("True"))?;
                stage.ok("/remove?path=/data/alive")?;
                stage.until("was restarted", running(1))?;
                stage.ok("/write?path=/data/alive&text=yes")?;
                stage.until("started again", ready("True"))
            },
            expected: "
phase: Pending > Running
PodScheduled: True
PodReadyToStartContainers: False > True
Initialized: True
ContainersReady: False/ContainersNotReady > True > False/ContainersNotReady > True
Ready: False/ContainersNotReady > True > False/ContainersNotReady > True
echo: ContainerCreating > Running > Completed 0 > Running
echo restarts: 0 > 1
echo started: false > true > false > true
echo ready: false > true > false > true
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started
Warning Unhealthy spec.containers{echo}: Startup probe failed: HTTP probe failed with statuscode: 404
Warning Unhealthy spec.containers{echo}: Liveness probe failed: HTTP probe failed with statuscode: 404
Normal Killing spec.containers{echo}: Container echo failed liveness probe, will be restarted",
        },
        Scenario {
            name: "startup",
            manifest: || {
                let asked =
                    "httpGet: {path: /none, port: http}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 10";
                pod("restartPolicy: Never", &format!("startupProbe: {{{asked}}}"))
            },
            play: |stage| stage.until("ended", crate::stage::phase("Succeeded")),
            expected: "
phase: Pending > Running > Succeeded
PodScheduled: True
PodReadyToStartContainers: False > True > False
Initialized: True > True/PodCompleted
ContainersReady: False/ContainersNotReady > False/PodCompleted
Ready: False/ContainersNotReady > False/PodCompleted
echo: ContainerCreating > Running > Completed 0
echo restarts: 0
echo started: false
echo ready: false
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started
Warning Unhealthy spec.containers{echo}: Startup probe failed: HTTP probe failed with statuscode: 404
Normal Killing spec.containers{echo}: Stopping container echo",
        },
        Scenario {
            name: "tcp-readiness",
            manifest: || pod("", "readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1, timeoutSeconds: 20}"),
            play: |stage| stage.until("ready", ready("True")),
            expected: "
phase: Pending > Running
PodScheduled: True
PodReadyToStartContainers: False > True
Initialized: True
ContainersReady: False/ContainersNotReady > True
Ready: False/ContainersNotReady > True
echo: ContainerCreating > Running
echo restarts: 0
echo started: false > true
echo ready: false > true
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started",
        },
        Scenario {
            name: "tcp-liveness",
            manifest: || {
                pod(
                    "restartPolicy: Never",
                    "livenessProbe: {tcpSocket: {port: 9}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 2}",
                )
            },
            play: |stage| stage.until("ended", crate::stage::phase("Succeeded")),
            expected: "
phase: Pending > Running > Succeeded
PodScheduled: True
PodReadyToStartContainers: False > True > False
Initialized: True > True/PodCompleted
ContainersReady: False/ContainersNotReady > True > False/PodCompleted
Ready: False/ContainersNotReady > True > False/PodCompleted
echo: ContainerCreating > Running > Completed 0
echo restarts: 0
echo started: false > true > false
echo ready: false > true > false
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started
Warning Unhealthy spec.containers{echo}: Liveness probe failed: dial tcp IP:9: connect: connection refused
Normal Killing spec.containers{echo}: Stopping container echo",
        },
    ]
}
