//! `cp` to and from containers of both kinds: one has tar, the other has nothing but its module.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use wherry_test::{Cluster, Kubectl, image_of};

use crate::scene::Scene;
use crate::streaming::transports;

const CONTAINER: &str = "tests.wherry.dev/copy:container";

/// Makes the image known that has the programs which kubectl runs.
pub(crate) fn load(cluster: &Cluster) -> Result<()> {
    let names = ["/bin/cat", "/bin/sh", "/bin/tail", "/bin/tar", "/bin/test"];
    let programs = names.map(|name| (name, "/usr/bin/busybox"));
    cluster.load(&image_of("copy", "/bin/cat", &programs)?, CONTAINER).map(drop)
}

fn pod(kind: &str, image: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {kind}}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
    - {{name: data, emptyDir: {{}}}}
  containers:
    - name: c
      image: {image:?}
      imagePullPolicy: IfNotPresent
      stdin: true
      volumeMounts:
        - {{name: data, mountPath: /data}}
        - {{name: data, mountPath: /fixed, readOnly: true}}
"
    )
}

/// Files and directories, both ways.
pub(crate) fn both_ways(s: &Scene) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    for (kind, image) in [("wasm", "tests.wherry.dev/tool:wasm"), ("container", CONTAINER)] {
        s.kubectl.apply(&pod(kind, image))?;
        s.wait(&format!("--for=condition=Ready pod/{kind}"))?;
        for (kubectl, transport) in transports(s).iter().zip(["websocket", "spdy"]) {
            let dir = scratch.path().join(format!("{kind}-{transport}"));
            copy(kubectl, kind, transport, &dir).with_context(|| format!("{kind} over {transport}"))?;
        }
        refusals(s, kind)?;
    }
    let gone = scratch.path().join("gone");
    s.refuses(&format!("cp wasm:/data/none {}", gone.display()), &["exit code 2"])?;
    s.refuses("exec wasm -- tar cf - /proc/self/status", &["not in a volume of the container", "exit code 2"])?;
    let file = scratch.path().join("wasm-spdy/tree/big");
    s.refuses(&format!("cp {} wasm:/big", file.display()), &["not in a volume of the container"])
}

fn copy(kubectl: &Kubectl, pod: &str, name: &str, dir: &Path) -> Result<()> {
    let at = |path: &str| dir.join(path).display().to_string();
    let run = |words: &[&str]| -> Result<()> {
        let done = kubectl.arguments(&[&["cp"], words].concat(), "")?;
        ensure!(done.success, "cp {words:?}: {}{}", done.stdout, done.stderr);
        Ok(())
    };
    let big: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let long = "a-name-that-no-old-tar-takes".repeat(8);
    fs::create_dir_all(dir.join("tree/deep/empty"))?;
    fs::write(dir.join("tree/big"), &big)?;
    fs::write(dir.join("tree/deep").join(&long), "named long")?;

    // Into a directory, under another name, and as a tree.
    run(&[&at("tree/big"), &format!("{pod}:/data")])?;
    run(&[&at("tree/big"), &format!("{pod}:/data/{name}-big"), "--no-preserve"])?;
    run(&[&at("tree"), &format!("{pod}:/data/{name}")])?;

    run(&[&format!("{pod}:/data/big"), &at("big")])?;
    run(&[&format!("{pod}:data/{name}-big"), &at("second"), "--retries=2"])?;
    run(&[&format!("{pod}:/fixed/{name}"), &at("tree-again")])?;
    ensure!(fs::read(dir.join("big"))? == big && fs::read(dir.join("second"))? == big);
    ensure!(fs::read(dir.join("tree-again/big"))? == big);
    ensure!(fs::read_to_string(dir.join("tree-again/deep").join(&long))? == "named long");
    ensure!(dir.join("tree-again/deep/empty").is_dir());
    Ok(())
}

/// What is not there, and what is read-only.
fn refusals(s: &Scene, pod: &str) -> Result<()> {
    // What tar says of what isn't there. A container's ends its archive all the same, and kubectl cp, which stops there, may end
    // well before it has heard of the failure.
    s.refuses(&format!("exec {pod} -- tar cf - /data/none"), &["tar: /data/none: ", "No such file or directory"])?;
    let file = tempfile::NamedTempFile::new()?;
    let into = format!("cp {} {pod}:/fixed/new", file.path().display());
    s.refuses(&into, &["Read-only file system"])?;
    s.refuses(&into.replace("fixed/new", "data/no/such/place"), &["/data/no/such"])
}
