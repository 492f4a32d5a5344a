//! What a node writes of Secrets lies in memory: on no file of the data directory, kept for containers that outlive the process, and
//! gone with a cluster that was stopped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use wherry_test::{Cluster, PATIENCE, echo_image, get, is_root, sample, until};

use crate::traces;

const KINDS: [&str; 2] = ["wasm", "container"];
const FIRST: &str = "a-secret-that-is-on-no-disk";
const SECOND: &str = "another-that-came-after-the-kill";

/// A Secret, and a Pod a kind that sees it as a directory and, alone, as a file.
fn deploy(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.load(&sample("echo"), "samples.wherry.dev/echo:wasm")?;
    cluster.load(&echo_image()?, "samples.wherry.dev/echo:container")?;
    cluster.kubectl().ok(&format!("create secret generic words --from-literal=first={FIRST}"))?;
    for kind in KINDS {
        cluster.kubectl().apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {kind}, labels: {{app: {kind}}}}}
spec:
  volumes:
  - {{name: words, secret: {{secretName: words}}}}
  containers:
  - name: echo
    image: samples.wherry.dev/echo:{kind}
    ports: [{{containerPort: 8080}}]
    readinessProbe: {{httpGet: {{path: \"/read?path=/words/first\", port: 8080}}, periodSeconds: 1}}
    volumeMounts:
    - {{name: words, mountPath: /words}}
    - {{name: words, mountPath: /alone/first, subPath: first}}
    - {{name: words, mountPath: /etc/first, subPath: first}}",
        ))?;
        cluster.kubectl().ok(&format!("expose pod {kind} --type=NodePort --port=8080"))?;
    }
    cluster.kubectl().wait("--for=condition=Ready pod --all", PATIENCE)
}

/// What the Pod's program reads there; nothing where it cannot be asked or cannot read it.
fn read(cluster: &Cluster, kind: &str, path: &str) -> anyhow::Result<String> {
    let answer = get(&cluster.url(kind)?, &format!("/read?path={path}"));
    Ok(answer.ok().filter(|answer| answer.status == 200).map(|answer| answer.body).unwrap_or_default())
}

/// Waits until it reads `text` there.
fn reads(cluster: &Cluster, kind: &str, path: &str, text: &str) -> anyhow::Result<()> {
    until(PATIENCE, || {
        let found = read(cluster, kind, path)?;
        Ok(if found == text { Ok(()) } else { Err(format!("{kind}: {path} holds {found:?}")) })
    })
}

/// The files below `dir` that hold `text`.
fn holding(dir: &Path, text: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                // What ends meanwhile takes its files with it.
                let bytes = fs::read(entry.path()).unwrap_or_default();
                if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                    found.push(entry.path());
                }
            }
        }
    }
    Ok(found)
}

#[test]
fn secrets_are_in_memory_alone_outlive_the_process_and_go_with_the_cluster() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let mut cluster = Cluster::start(crate::options())?;
    let dir = cluster.data_dir().canonicalize()?;
    deploy(&cluster)?;
    for kind in KINDS {
        for path in ["/words/first", "/alone/first", "/etc/first"] {
            reads(&cluster, kind, path, FIRST)?;
        }
    }
    let memory = traces::memory(&dir).context("nothing is mounted for the cluster")?;
    ensure!(!memory.starts_with(&dir));
    let pods = memory.join("nodes/wherry-0");
    ensure!(holding(&pods, FIRST)?.len() == KINDS.len(), "{:?}", holding(&pods, FIRST)?);
    ensure!(holding(&dir, FIRST)? == Vec::<PathBuf>::new(), "on the disk: {:?}", holding(&dir, FIRST)?);

    cluster.kill()?;
    ensure!(traces::memory(&dir).as_ref() == Some(&memory), "containers run, and their volumes are gone");
    ensure!(holding(&pods, FIRST)?.len() == KINDS.len());
    cluster.resume()?;
    cluster.kubectl().wait("--for=condition=Ready pod --all", PATIENCE)?;
    cluster
        .kubectl()
        .ok(&format!("patch secret words --type=merge -p {{\"stringData\":{{\"second\":\"{SECOND}\"}}}}"))?;
    for kind in KINDS {
        reads(&cluster, kind, "/words/second", SECOND)?;
    }
    let restarts = cluster.kubectl().ok("get pod container -o jsonpath={.status.containerStatuses[0].restartCount}")?;
    ensure!(restarts == "0", "the container was adopted: {restarts} restarts");
    for text in [FIRST, SECOND] {
        ensure!(holding(&dir, text)? == Vec::<PathBuf>::new(), "on the disk: {:?}", holding(&dir, text)?);
    }

    cluster.kubectl().ok("delete pod wasm --grace-period=1")?;
    ensure!(holding(&pods, FIRST)?.len() == 1, "of the container's Pod alone: {:?}", holding(&pods, FIRST)?);
    cluster.stop()?;
    ensure!(traces::memory(&dir).is_none() && !memory.exists(), "{} is left", memory.display());
    Ok(())
}
