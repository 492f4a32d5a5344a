//! Volumes: what a Pod may mount, what it sees of it, and what it must not reach.

use anyhow::{Context, ensure};

use super::{READY, Scenario, pod};
use crate::stage::{Stage, ready, waiting};

pub(crate) fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "claim", manifest: || CLAIM.to_owned(), play: claimed, expected: CLAIMED },
        Scenario {
            name: "sub-path",
            manifest: || format!("{CONFIG}---\n{}", pod(SHARED, PATHS)),
            play: paths,
            expected: READY,
        },
        Scenario {
            name: "updated-config",
            manifest: || format!("{CONFIG}---\n{}", pod(FOLLOWED, "volumeMounts: [{name: all, mountPath: /all}]")),
            play: updated,
            expected: READY,
        },
        Scenario { name: "image-volume", manifest: || CONFIG.to_owned(), play: image, expected: IMAGE_READ },
        Scenario { name: "links", manifest: || CONFIG.to_owned(), play: links, expected: READY },
        Scenario { name: "escape", manifest: || CONFIG.to_owned(), play: escape, expected: REFUSED },
        Scenario {
            name: "bad-expression",
            manifest: || {
                pod(
                    "volumes: [{name: data, emptyDir: {}}]",
                    "env: [{name: ANNOTATION, valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['path']\"}}}]
volumeMounts: [{name: data, mountPath: /data, subPathExpr: $(ANNOTATION)}]",
                )
                .replace("labels: {app: echo}", "labels: {app: echo}, annotations: {path: /absolute}")
            },
            play: mended,
            expected: MENDED,
        },
    ]
}

const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

/// A claim gets a volume where its Pod runs, stays while the Pod uses it, and takes the volume with it.
fn claimed(stage: &Stage<'_>) -> anyhow::Result<()> {
    let user = pod(
        "volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]",
        "volumeMounts: [{name: data, mountPath: /data}, {name: data, mountPath: /in, subPath: a/b}]",
    );
    stage.until_event("WaitForFirstConsumer", "waiting for first consumer")?;
    stage.apply(&user)?;
    stage.until("ready", ready("True"))?;
    stage.ok("/write?path=/data/kept&text=from-the-first")?;
    stage.ok("/write?path=/in/deep&text=beneath")?;
    ensure!(stage.ok("/read?path=/data/a/b/deep")? == "beneath");
    // The claim stays while it is used.
    stage.kubectl("delete pvc data --wait=false")?;
    let kept = stage.kubectl("get pvc data -o jsonpath={.status.phase}/{.metadata.finalizers}")?;
    ensure!(kept == "Bound/[\"kubernetes.io/pvc-protection\"]", "{kept}");
    let volume = stage.kubectl("get pvc data -o jsonpath={.spec.volumeName}")?;
    let path = stage.kubectl(&format!("get pv {volume} -o jsonpath={{.spec.local.path}}"))?;
    let written = std::fs::read_to_string(format!("{path}/kept")).with_context(|| path.clone())?;
    ensure!(written == "from-the-first");
    stage.kubectl("delete pod echo --grace-period=1")?;
    stage.until_deleted()?;
    stage.kubectl(&format!("wait --for=delete pvc/data pv/{volume} --timeout=60s"))?;
    ensure!(!std::path::Path::new(&path).exists(), "{path} is left");
    Ok(())
}

const CLAIMED: &str = "
<pod succeeded> > True > False/PodCompleted
<echo ends> Completed 0
deleted
Normal WaitForFirstConsumer: waiting for first consumer to be created before binding
Normal ProvisioningSucceeded: Successfully provisioned volume pvc-* using wherry.dev/local-path
<echo begins>
Normal Killing spec.containers{echo}: Stopping container echo";

const CONFIG: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {a: first, b: second}
";

const SHARED: &str = "
volumes:
  - {name: data, emptyDir: {}}
  - {name: config, configMap: {name: config, items: [{key: a, path: deep/a}]}}
  - {name: memory, emptyDir: {medium: Memory, sizeLimit: 1Mi}}";

const PATHS: &str = "
env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
volumeMounts:
  - {name: data, mountPath: /all}
  - {name: data, mountPath: /sub, subPath: in/side}
  - {name: data, mountPath: /mine, subPathExpr: $(POD_NAME)/x}
  - {name: data, mountPath: /fixed, readOnly: true}
  - {name: config, mountPath: /config}
  - {name: config, mountPath: /one/a.txt, subPath: deep/a}
  - {name: memory, mountPath: /memory}";

fn paths(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    for (write, read) in
        [("/sub/x", "/all/in/side/x"), ("/mine/y", "/all/echo/x/y"), ("/all/z", "/fixed/z"), ("/memory/m", "/memory/m")]
    {
        stage.ok(&format!("/write?path={write}&text=seen"))?;
        ensure!(stage.ok(&format!("/read?path={read}"))? == "seen", "{write} {read}");
    }
    ensure!(stage.ok("/read?path=/config/deep/a")? == "first");
    ensure!(stage.ok("/read?path=/one/a.txt")? == "first");
    for path in ["/fixed/no", "/config/no", "/config/deep/a", "/one/a.txt"] {
        let answer = stage.get(&format!("/write?path={path}&text=no"))?;
        ensure!(answer.status == 500, "{path} was written: {answer:?}");
    }
    Ok(())
}

const FOLLOWED: &str = "
volumes:
  - name: all
    projected:
      sources:
        - {configMap: {name: config}}
        - {secret: {name: later, optional: true}}
        - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}";

/// What changes at the API is seen by the container that runs.
fn updated(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("ready", ready("True"))?;
    ensure!(stage.ok("/read?path=/all/a")? == "first");
    ensure!(stage.ok("/read?path=/all/labels")? == "app=\"echo\"");
    stage.kubectl("patch configmap config --type=merge -p {\"data\":{\"a\":\"changed\",\"b\":null}}")?;
    stage.kubectl("create secret generic later --from-literal=s=secret")?;
    stage.kubectl("label pod echo more=yes")?;
    until_read(stage, "/all/a", |found| found == Some("changed"))?;
    until_read(stage, "/all/b", |found| found.is_none())?;
    until_read(stage, "/all/s", |found| found == Some("secret"))?;
    until_read(stage, "/all/labels", |found| found == Some("app=\"echo\"\nmore=\"yes\""))?;
    stage.kubectl("delete secret later")?;
    until_read(stage, "/all/s", |found| found.is_none())
}

/// Nothing tells when a volume has been written: it is read until it has.
fn until_read(stage: &Stage<'_>, path: &str, wanted: impl Fn(Option<&str>) -> bool) -> anyhow::Result<()> {
    wherry_test::until(wherry_test::PATIENCE, || {
        let answer = stage.get(&format!("/read?path={path}"))?;
        let found = wanted((answer.status == 200).then_some(&*answer.body));
        Ok(if found { Ok(()) } else { Err(format!("{path}: {answer:?}")) })
    })
}

/// An image and an artifact as volumes.
fn image(stage: &Stage<'_>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let artifact = dir.path().join("artifact.tar");
    wherry_test::wasm_layout(&artifact, b"an artifact")?;
    stage.load(&artifact, "samples.wherry.dev/artifact:1")?;
    let readme = wherry_test::root().join("README.md").display().to_string();
    let files = wherry_test::image_of("files", "/docs/readme", &[("/docs/readme", &readme)])?;
    stage.load(&files, "samples.wherry.dev/files:1")?;
    let volumes = "
volumes:
  - {name: artifact, image: {reference: samples.wherry.dev/artifact:1, pullPolicy: Never}}
  - {name: files, image: {reference: samples.wherry.dev/files:1, pullPolicy: IfNotPresent}}";
    let mounts = "
volumeMounts:
  - {name: artifact, mountPath: /artifact}
  - {name: files, mountPath: /files}
  - {name: files, mountPath: /docs, subPath: docs}";
    stage.apply(&pod(volumes, mounts))?;
    stage.until("ready", ready("True"))?;
    ensure!(stage.ok("/read?path=/artifact/module.wasm")? == "an artifact");
    for path in ["/files/docs/readme", "/docs/readme"] {
        ensure!(stage.ok(&format!("/read?path={path}"))?.starts_with("# Wherry"), "{path}");
    }
    for path in ["/files/new", "/docs/readme", "/artifact/module.wasm"] {
        let answer = stage.get(&format!("/write?path={path}&text=no"))?;
        ensure!(answer.status == 500, "{path} was written: {answer:?}");
    }
    Ok(())
}

const IMAGE_READ: &str = "
<pod running> > True
<echo runs>
Normal Pulled: Container image \"samples.wherry.dev/artifact:1\" already present on machine and can be accessed by the pod
Normal Pulled: Container image \"samples.wherry.dev/files:1\" already present on machine and can be accessed by the pod
<echo begins>";

/// Links and `..` lead nowhere but to where the container's own root has it, for a module to nothing at all.
fn links(stage: &Stage<'_>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let volume = dir.path().join("volume");
    std::fs::create_dir_all(volume.join("within"))?;
    std::fs::write(dir.path().join("secret"), "secret")?;
    std::fs::write(volume.join("within/file"), "mine")?;
    for (link, to) in [
        ("absolute", dir.path()),
        ("up", "..".as_ref()),
        ("proc", "/proc/self/root".as_ref()),
        ("inside", "within".as_ref()),
    ] {
        std::os::unix::fs::symlink(to, volume.join(link))?;
    }
    let volumes = format!("volumes: [{{name: host, hostPath: {{path: {}, type: Directory}}}}]", volume.display());
    stage.apply(&pod(
        &volumes,
        "volumeMounts: [{name: host, mountPath: /host}, {name: host, mountPath: /in, subPath: inside}]",
    ))?;
    stage.until("ready", ready("True"))?;
    for path in ["/host/inside/file", "/in/file"] {
        ensure!(stage.ok(&format!("/read?path={path}"))? == "mine", "{path}");
    }
    let (host, secret) = (dir.path().display(), dir.path().join("secret"));
    let paths = [
        "/host/absolute/secret".to_owned(),
        "/host/up/secret".to_owned(),
        "/host/../secret".to_owned(),
        "/in/../../secret".to_owned(),
        format!("/host/proc{}", secret.display()),
        format!("/host/up{host}/secret"),
        secret.display().to_string(),
    ];
    for path in &paths {
        let answer = stage.get(&format!("/read?path={path}"))?;
        ensure!(answer.status == 404, "{path} was read: {answer:?}");
    }
    // A container may write such a path in its own root.
    for path in &paths {
        stage.get(&format!("/write?path={path}&text=overwritten"))?;
    }
    ensure!(std::fs::read_to_string(secret)? == "secret", "the node's file was written");
    Ok(())
}

/// A link that leads out of the volume: no subPath follows it.
fn escape(stage: &Stage<'_>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let volume = dir.path().join("volume");
    std::fs::create_dir(&volume)?;
    std::fs::write(dir.path().join("secret"), "secret")?;
    std::os::unix::fs::symlink(dir.path(), volume.join("out"))?;
    let volumes = format!("volumes: [{{name: host, hostPath: {{path: {}, type: Directory}}}}]", volume.display());
    stage.apply(&pod(&volumes, "volumeMounts: [{name: host, mountPath: /host, subPath: out}]"))?;
    stage.until("refused", waiting("CreateContainerConfigError"))
}

const REFUSED: &str = "
<pod pending>
<echo waits> CreateContainerConfigError (failed to prepare subPath for volumeMount \"host\" of container \"echo\")
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Warning Failed spec.containers{echo}: Error: failed to prepare subPath for volumeMount \"host\" of container \"echo\"";

/// An expression that cannot be used is told; once what it is made of has changed, the container starts.
fn mended(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.until("refused", waiting("CreateContainerConfigError"))?;
    stage.kubectl("annotate pod echo path=relative --overwrite")?;
    stage.until("ready", ready("True"))
}

const MENDED: &str = "
<pod running> > True
echo: ContainerCreating > CreateContainerConfigError (error SubPath `/absolute` must not be an absolute path) > Running
echo restarts: 0
echo started: false > true
echo ready: false > true
Normal Pulled spec.containers{echo}: Container image \"IMAGE\" already present on machine and can be accessed by the pod
Warning Failed spec.containers{echo}: Error: error SubPath `/absolute` must not be an absolute path
Normal Created spec.containers{echo}: Container created
Normal Started spec.containers{echo}: Container started";
