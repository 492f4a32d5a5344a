//! Images that nobody uses go where the disk is fuller than it may be, and what was made of them goes with them.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};
use wherry_test::{Cluster, Kubectl, Options, PATIENCE, Registry, echo_image, image_of, is_root, sample, wasm_layout};

/// Any disk is fuller than this.
const FULL: [&str; 3] =
    ["--image-gc-high-threshold=1", "--image-gc-low-threshold=0", "--minimum-image-ttl-duration=1s"];

#[test]
fn unused_images_go_and_used_ones_stay() -> Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let registry = Registry::start()?;
    let arguments = FULL.map(str::to_owned).to_vec();
    let cluster = Cluster::start(Options { arguments, ..Options::new(env!("CARGO_BIN_EXE_wherry")) })?;
    let kubectl = cluster.kubectl();
    // What was loaded stays: no registry has it.
    let loaded = cluster.scratch().join("loaded.tar");
    wasm_layout(&loaded, b"nobody runs this")?;
    cluster.load(&loaded, "a.test/loaded:1")?;
    let busybox = image_of("busybox", "/bin/busybox", &[("/bin/busybox", "/bin/busybox")])?;
    let images = [
        ("used-wasm", sample("echo"), "[]"),
        ("used-container", echo_image()?, "[]"),
        ("spare-wasm", sample("hello"), "[]"),
        ("spare-container", busybox, "[sleep, \"600\"]"),
    ];
    for (name, file, args) in &images {
        let image = registry.reference(&format!("{name}:1"));
        let pushed = cluster.wherry(&["image", "push"]).arg(file).arg(&image).output()?;
        ensure!(pushed.status.success(), "image push: {}", String::from_utf8_lossy(&pushed.stderr));
        run(&kubectl, name, &image, args)?;
    }
    kubectl.wait("--for=condition=Ready pod --all", PATIENCE)?;
    let mut made = Vec::new();
    for (name, file, _) in &images {
        let id = kubectl.ok(&format!("get pod {name} -o jsonpath={{.status.containerStatuses[0].imageID}}"))?;
        let digest = id.trim().rsplit_once('@').map(|(_, digest)| digest.to_owned()).unwrap_or_default();
        made.push(if name.ends_with("wasm") { hex::encode(Sha256::digest(std::fs::read(file)?)) } else { digest });
    }
    for made in &made {
        ensure!(is_made(&cluster, made)?, "nothing was made of {made}");
    }

    kubectl.ok("delete pod spare-wasm spare-container --grace-period=1")?;
    let end = Instant::now() + PATIENCE;
    while listed(&cluster, "spare")? || is_made(&cluster, &made[2])? || is_made(&cluster, &made[3])? {
        ensure!(Instant::now() < end, "unused images stay");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    ensure!(listed(&cluster, "used-wasm")? && listed(&cluster, "used-container")?, "images in use went");
    ensure!(listed(&cluster, "a.test/loaded:1")?, "an image that was loaded went");
    for (n, name) in ["used-wasm", "used-container"].into_iter().enumerate() {
        ensure!(is_made(&cluster, &made[n])?, "what {name} runs went");
        let status = &kubectl.json(&format!("get pod {name}"))?["status"]["containerStatuses"][0];
        ensure!(status["ready"] == true && status["restartCount"] == 0, "{name}: {status:#}");
    }
    // They come again where they are wanted again.
    for (name, _, args) in &images[2..] {
        run(&kubectl, name, &registry.reference(&format!("{name}:1")), args)?;
    }
    kubectl.wait("--for=condition=Ready pod --all", PATIENCE)
}

fn run(kubectl: &Kubectl, name: &str, image: &str, args: &str) -> Result<()> {
    kubectl
        .apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec: {{containers: [{{name: c, image: {image:?}, imagePullPolicy: IfNotPresent, args: {args}}}]}}
"
        ))
        .map(drop)
}

/// Whether the node has an image of which the name begins so, or holds this.
fn listed(cluster: &Cluster, name: &str) -> Result<bool> {
    let list = cluster.wherry(&["image", "ls"]).output()?;
    Ok(String::from_utf8(list.stdout)?.lines().any(|line| line.contains(name)))
}

/// Whether there is compiled code or a snapshot of an image, by the digest that it is named by.
fn is_made(cluster: &Cluster, digest: &str) -> Result<bool> {
    let compiled = std::fs::read_dir(cluster.data_dir().join("wasm"))?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(digest));
    let socket = cluster.data_dir().join("containerd/containerd/containerd.sock");
    let leases = Command::new("ctr").arg("-a").arg(socket).args(["-n", "wherry-0", "leases", "ls", "-q"]).output()?;
    ensure!(leases.status.success(), "ctr: {}", String::from_utf8_lossy(&leases.stderr));
    Ok(compiled || String::from_utf8(leases.stdout)?.lines().any(|lease| lease.ends_with(digest)))
}
