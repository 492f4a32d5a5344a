//! Startup, liveness and readiness probes (those by commands are in [`super::hooks`]). A probe asks for a file in a volume, so that the scenario decides when it passes.

use super::{READY, Scenario, pod};
use crate::stage::{Stage, ready, running};

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
<pod running> > True > False/ContainersNotReady > True
echo: ContainerCreating > Running
echo restarts: 0
echo started: false > true
echo ready: false > true > false > true
<echo begins>
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
<pod running> > True > False/ContainersNotReady > True
echo: ContainerCreating > Running > Completed 0 > Running
echo restarts: 0 > 1
echo started: false > true > false > true
echo ready: false > true > false > true
<echo begins>
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
<pod succeeded> > False/PodCompleted
<echo waits> Running > Completed 0
<echo begins>
Warning Unhealthy spec.containers{echo}: Startup probe failed: HTTP probe failed with statuscode: 404
Normal Killing spec.containers{echo}: Stopping container echo",
        },
        Scenario { name: "https", manifest: String::new, play: of_the_api, expected: READY },
        Scenario {
            name: "tcp-readiness",
            manifest: || pod("", "readinessProbe: {tcpSocket: {port: http}, periodSeconds: 1, timeoutSeconds: 20}"),
            play: |stage| stage.until("ready", ready("True")),
            expected: READY,
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
<pod succeeded> > True > False/PodCompleted
<echo ends> Completed 0
<echo begins>
Warning Unhealthy spec.containers{echo}: Liveness probe failed: dial tcp IP:9: connect: connection refused
Normal Killing spec.containers{echo}: Stopping container echo",
        },
    ]
}

/// Whom the API server answers: a request over TLS with a header. The server's certificate is not looked at.
fn of_the_api(stage: &Stage<'_>) -> anyhow::Result<()> {
    let of_api = |path: &str| stage.kubectl(&format!("get endpoints kubernetes -n default -o jsonpath={path}"));
    let host = of_api("{.subsets[0].addresses[0].ip}")?;
    let port = of_api("{.subsets[0].ports[0].port}")?;
    let token = stage.kubectl("create token default")?;
    let header = format!("httpHeaders: [{{name: Authorization, value: 'Bearer {}'}}]", token.trim());
    let asked = format!("httpGet: {{scheme: HTTPS, host: {host}, port: {port}, path: /api, {header}}}");
    let probe = format!("readinessProbe: {{{asked}, periodSeconds: 1, timeoutSeconds: 20}}");
    stage.apply(&pod("", &probe))?;
    stage.until("ready", ready("True"))
}
