//! What a cluster leaves on the disk leads nowhere: whoever removes its directory removes nothing else, however it ended.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wherry_test::{Cluster, PATIENCE, echo_image, is_root, sample};

use crate::traces;

const KINDS: [&str; 2] = ["wasm", "container"];

/// A machine's directory with files in use by somebody, and a filesystem mounted in it.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> anyhow::Result<Self> {
        let host = Self(tempfile::tempdir()?);
        fs::create_dir_all(host.path("sub/other"))?;
        for file in ["sub/mine", "alone"] {
            fs::write(host.path(file), "mine")?;
        }
        // Shared, as a machine's mounts are under systemd: what is unmounted in a copy of it is unmounted here as well.
        run("mount", &["--bind", &host.text(""), &host.text("")])?;
        run("mount", &["--make-rshared", &host.text("")])?;
        run("mount", &["-t", "tmpfs", "other", &host.text("sub/other")])?;
        fs::write(host.path("sub/other/mine"), "mine")?;
        Ok(host)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn text(&self, file: &str) -> String {
        self.path(file).to_string_lossy().into_owned()
    }

    fn ensure_whole(&self) -> anyhow::Result<()> {
        for file in ["sub/mine", "sub/other/mine", "alone"] {
            let found = fs::read_to_string(self.path(file)).with_context(|| format!("{file} of the machine"))?;
            ensure!(found == "mine", "{file} of the machine holds {found:?}");
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for mount in ["sub/other", ""] {
            if let Err(error) = run("umount", &[&self.text(mount)]) {
                eprintln!("{error:#}");
            }
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One Pod a kind with the host's directory in every way that a manifest can say it.
fn deploy(cluster: &Cluster, host: &Host) -> anyhow::Result<Vec<String>> {
    cluster.load(&sample("echo"), "samples.wherry.dev/echo:wasm")?;
    cluster.load(&echo_image()?, "samples.wherry.dev/echo:container")?;
    for kind in KINDS {
        let both_ways = if kind == "wasm" {
            ""
        } else {
            "
    - {name: host, mountPath: /both, subPath: sub, mountPropagation: Bidirectional}
    - {name: host, mountPath: /from, subPath: sub, mountPropagation: HostToContainer}
    securityContext: {privileged: true}"
        };
        cluster.kubectl().apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {kind}}}
spec:
  volumes:
  - {{name: host, hostPath: {{path: {}, type: Directory}}}}
  - {{name: memory, emptyDir: {{medium: Memory}}}}
  containers:
  - name: echo
    image: samples.wherry.dev/echo:{kind}
    ports: [{{containerPort: 8080}}]
    readinessProbe: {{httpGet: {{path: \"/read?path=/sub/mine\", port: 8080}}, periodSeconds: 1}}
    volumeMounts:
    - {{name: memory, mountPath: /memory}}
    - {{name: host, mountPath: /whole}}
    - {{name: host, mountPath: /sub, subPath: sub}}
    - {{name: host, mountPath: /file/alone, subPath: alone, readOnly: true}}{both_ways}",
            host.text(""),
        ))?;
    }
    ready(cluster)?;
    let uids = cluster.kubectl().ok("get pods -o jsonpath={.items[*].metadata.uid}")?;
    Ok(uids.split_whitespace().map(str::to_owned).collect())
}

fn ready(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.kubectl().wait("--for=condition=Ready pod --all", PATIENCE)
}

/// No path below the directory leads to the host's files.
fn ensure_no_way(dir: &Path) -> anyhow::Result<()> {
    let found = run("find", &[&dir.to_string_lossy(), "-name", "mine"])?;
    ensure!(found.is_empty(), "the host's files are reached by {found}");
    Ok(())
}

#[test]
fn the_directory_of_a_cluster_that_was_stopped_can_be_removed() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let host = Host::new()?;
    let mut cluster = Cluster::start(crate::options())?;
    deploy(&cluster, &host)?;
    ensure_no_way(&cluster.data_dir())?;
    cluster.stop()?;
    let dir = cluster.data_dir().canonicalize()?;
    ensure_no_way(&dir)?;
    let mounts = traces::mounts(&dir);
    ensure!(mounts.is_empty(), "still mounted: {mounts:?}");
    host.ensure_whole()?;

    cluster.resume()?;
    cluster.kubectl().wait("--for=jsonpath={.status.containerStatuses[0].restartCount}=1 pod --all", PATIENCE)?;
    ready(&cluster)?;
    // A Pod's end is its own affair, too.
    cluster.kubectl().ok("delete pod --all --grace-period=1")?;
    host.ensure_whole()?;
    cluster.stop()?;
    run("rm", &["-rf", &dir.to_string_lossy()])?;
    host.ensure_whole()
}

#[test]
fn the_directory_of_a_cluster_that_was_killed_can_be_removed() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let host = Host::new()?;
    let mut cluster = Cluster::start(crate::options())?;
    let uids = deploy(&cluster, &host)?;
    for _ in 0..2 {
        cluster.kill()?;
        ensure_no_way(&cluster.data_dir())?;
        cluster.resume()?;
        ready(&cluster)?;
        ensure_no_way(&cluster.data_dir())?;
    }
    cluster.kill()?;
    let dir = cluster.data_dir().canonicalize()?;
    // Its containers run on their root filesystems, which therefore stay.
    let removed = Command::new("rm").args(["-rf"]).arg(&dir).output()?;
    println!("{}", String::from_utf8_lossy(&removed.stderr));
    let whole = host.ensure_whole();
    clear(&dir, &uids)?;
    whole
}

/// Ends what a killed cluster left that no later life will take up.
fn clear(dir: &Path, uids: &[String]) -> anyhow::Result<()> {
    let names = uids.iter().cloned().chain([dir.to_string_lossy().into_owned()]);
    for (pid, _) in names.flat_map(|name| traces::processes(&name)) {
        // Shims end with their containers.
        let _ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for point in traces::mounts(dir).iter().rev() {
        run("umount", &["-l", point])?;
    }
    Ok(())
}
