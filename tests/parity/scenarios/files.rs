//! Files that are written for a Pod or read of it: secrets and tokens with their modes, environment files, last messages.

use std::os::unix::fs::MetadataExt as _;

use anyhow::ensure;

use super::{READY, Scenario, pod};
use crate::stage::{Stage, phase, ready, running, waiting};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "modes",
            manifest: || format!("{SECRET}---\n{}", pod(VOLUMES, MOUNTS)),
            play: modes,
            expected: READY,
        },
        Scenario { name: "env-file", manifest: || READER.to_owned(), play: env_file, expected: READ },
        Scenario {
            name: "message",
            manifest: || pod("restartPolicy: Never", "terminationMessagePath: /last/words"),
            play: |stage| {
                stage.until("runs", running(0))?;
                stage.ok("/write?path=/last/words&text=farewell")?;
                stage.last("/crash")?;
                stage.until("has failed", phase("Failed"))
            },
            expected: "
<pod failed> > True > False/PodFailed
<echo ends> Error 1 (farewell)
<echo begins>",
        },
    ]
}

const SECRET: &str = "
apiVersion: v1
kind: Secret
metadata: {name: secret}
stringData: {a: first, b: second}
";

const VOLUMES: &str = "
securityContext: {runAsUser: 1000, fsGroup: 2000}
volumes:
  - {name: data, emptyDir: {}}
  - {name: secret, secret: {secretName: secret, defaultMode: 0440, items: [{key: a, path: a}, {key: b, path: b, mode: 0400}]}}
  - {name: about, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}
  - {name: token, projected: {sources: [{serviceAccountToken: {path: token, audience: somebody, expirationSeconds: 600}}]}}";

const MOUNTS: &str = "
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: secret, mountPath: /secret}
  - {name: about, mountPath: /about}
  - {name: token, mountPath: /token}";

fn modes(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    for (path, wanted) in [("/secret/a", "first"), ("/about/name", "echo")] {
        ensure!(stage.ok(&format!("/read?path={path}"))? == wanted, "{path}");
    }
    let token = stage.ok("/read?path=/token/token")?;
    ensure!(token.split('.').count() == 3, "{token}");
    stage.ok("/write?path=/data/new&text=new")?;
    let volumes = stage.written_dir()?;
    // A group may read whatever its owner may.
    for (path, mode) in [("secret/a", 0o440), ("secret/b", 0o440), ("about/name", 0o644)] {
        let meta = std::fs::metadata(volumes.join(path))?;
        ensure!((meta.mode() & 0o777, meta.gid()) == (mode, 2000), "{path}: {:o} {}", meta.mode(), meta.gid());
    }
    ensure!(std::fs::metadata(stage.pod_dir()?.join("volumes/data/new"))?.gid() == 2000);
    Ok(())
}

/// A sidecar on the Service's port writes what the container is started with.
const READER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  volumes: [{name: data, emptyDir: {}}]
  initContainers:
    - name: first
      image: OTHER
      restartPolicy: Always
      ports: [{containerPort: 8080}]
      volumeMounts: [{name: data, mountPath: /data}]
  containers:
    - name: echo
      image: IMAGE
      ports: [{containerPort: 8081}]
      env:
        - {name: PORT, value: '8081'}
        - {name: COLOUR, valueFrom: {fileKeyRef: {volumeName: data, path: env, key: COLOUR}}}
        - {name: NONE, valueFrom: {fileKeyRef: {volumeName: data, path: env, key: NONE, optional: true}}}
        - {name: BOTH, value: 'the $(COLOUR) one'}
";

fn env_file(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("there is nothing to read", waiting("CreateContainerConfigError"))?;
    stage.ok("/write?path=/data/env&text=COLOUR='blue'")?;
    stage.until("ready", ready("True"))?;
    for (name, status, value) in [("COLOUR", 200, "blue"), ("BOTH", 200, "the blue one"), ("NONE", 404, "not set\n")] {
        let answer = stage.get(&format!("/fetch?authority=127.0.0.1:8081&path=env?name={name}"))?;
        ensure!((answer.status, &*answer.body) == (status, value), "{name}: {answer:?}");
    }
    Ok(())
}

const READ: &str = "
<pod running> > True
<first runs>
echo: ContainerCreating > CreateContainerConfigError (couldn't parse env file) > Running
echo restarts: 0
echo started: false > true
echo ready: false > true
<first prepares>
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Warning Failed spec.containers{echo}: Error: couldn't parse env file
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started";
