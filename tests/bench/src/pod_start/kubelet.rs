//! A kubelet with containerd, beside kube-apiserver, etcd and kube-scheduler: all of it in a network of its own, so that nothing of the
//! machine's is changed, with a bridge for its Pods.
//!
//! This program runs itself in that network ([`inside`]) and reads what it says.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::Api;
use serde_json::{Value, json};
use wherry_test::{Child, PATIENCE, echo_image};

use super::{CONTAINER, Subject, many, one_by_one};
use crate::Setup;
use crate::peer::{Part, Peer, mortal};
use crate::process;
use crate::report::{Column, Report};

const PAUSE: &str = "bench.wherry.dev/pause:latest";
/// A kubelet has room for 110 Pods, and takes its time.
const MOST: usize = 50;

/// The same with as many Pods as a kubelet can be asked for.
pub(super) fn few(setup: &Setup) -> Setup {
    Setup { pods: setup.pods.min(MOST / 2), burst: setup.burst.min(MOST), ..setup.clone() }
}

/// What a kubelet does.
pub(super) async fn run(setup: &Setup) -> anyhow::Result<Column> {
    let setup = few(setup);
    // What is mounted below it is gone with the mount namespace; only then it can be removed.
    let dir = tempfile::tempdir()?;
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--"])
        .arg(std::env::current_exe()?)
        .arg("--inside")
        .arg("--wherry")
        .arg(&setup.wherry);
    command.arg("--out").arg(&setup.out).arg("--peers").arg(setup.peers.as_ref().context("no peers")?);
    command
        .env("TMPDIR", dir.path())
        .arg("--pods")
        .arg(setup.pods.to_string())
        .arg("--burst")
        .arg(setup.burst.to_string());
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("start unshare")?;
    ensure!(output.status.success(), "beside a kubelet: {}", String::from_utf8_lossy(&output.stderr));
    let reports: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let reports =
        reports.iter().map(Report::parse).collect::<Option<_>>().context("what a kubelet does is not told")?;
    Ok(Column { by: "kubelet, container", reports })
}

/// Starts it all in the present network, which is empty and ours; prints what was measured.
pub(crate) async fn inside(setup: &Setup) -> anyhow::Result<()> {
    let bin = setup.peers.as_deref().context("no peers")?;
    let dir = tempfile::Builder::new().prefix("kubelet").tempdir()?;
    network(dir.path())?;
    let peer = Peer::start(bin, &[Part::Scheduler]).await?;
    let containerd = containerd(dir.path())?;
    let kubelet = kubelet(bin, dir.path(), &peer)?;
    let outcome = measure(setup, &peer, &[containerd.id(), kubelet.id()]).await;
    let outcome = outcome.with_context(|| format!("kubelet: {}", last(&kubelet.output())));
    drop(kubelet);
    remove_groups();
    let reports: Vec<Value> = outcome?.iter().map(Report::to_json).collect();
    println!("{}", Value::from(reports));
    Ok(())
}

fn last(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

async fn measure(setup: &Setup, peer: &Peer, more: &[u32]) -> anyhow::Result<Vec<Report>> {
    let client = peer.client().await?;
    ready(&Api::all(client.clone())).await?;
    let processes: Vec<u32> = peer.processes().into_iter().map(|(_, id)| id).chain(more.iter().copied()).collect();
    let cpu = || processes.iter().map(|id| process::cpu_time(*id)).sum();
    let subject = Subject { client, image: CONTAINER, cpu: &cpu };
    let mut reports = one_by_one(&subject, setup).await?;
    reports.extend(many::bursts(&subject, setup).await?);
    Ok(reports)
}

async fn ready(nodes: &Api<Node>) -> anyhow::Result<()> {
    let condition = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let begun = std::time::Instant::now();
    loop {
        let all = nodes.list(&Default::default()).await?;
        if all.items.iter().any(condition) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE * 2, "the kubelet's node is not Ready: {:?}", all.items);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A device (a bridge to nowhere) with an address and a route, as a kubelet wants to find; what the Pods' network is.
fn network(dir: &Path) -> anyhow::Result<()> {
    run_all(&[
        "ip link set lo up",
        "ip link add node0 type bridge",
        "ip address add 192.0.2.1/24 dev node0",
        "ip link set node0 up",
        "ip route add default dev node0",
    ])?;
    std::fs::create_dir(dir.join("cni"))?;
    let network = json!({
        "cniVersion": "0.4.0", "name": "pods",
        "plugins": [{
            "type": "bridge", "bridge": "pods0", "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": dir.join("ipam"), "ranges": [[{"subnet": "10.88.0.0/16"}]]},
        }],
    });
    Ok(std::fs::write(dir.join("cni/pods.conflist"), network.to_string())?)
}

fn run_all(commands: &[&str]) -> anyhow::Result<()> {
    for command in commands {
        let mut words = command.split(' ');
        let output =
            Command::new(words.next().unwrap_or_default()).args(words).output().context(command.to_string())?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Debian's, with the sample's image and one that sleeps for the Pods' sandboxes.
fn containerd(dir: &Path) -> anyhow::Result<Child> {
    let socket = dir.join("containerd.sock");
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\n  address = {socket:?}\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = {PAUSE:?}\n  \
         restrict_oom_score_adj = true\n  [plugins.\"io.containerd.grpc.v1.cri\".cni]\n    bin_dir = \"/usr/lib/cni\"\n    conf_dir = {:?}\n",
        dir.join("root"),
        dir.join("state"),
        dir.join("cni"),
    );
    std::fs::write(dir.join("containerd.toml"), config)?;
    let mut command = mortal(Path::new("containerd"));
    let mut child = Child::start("containerd", command.arg("--config").arg(dir.join("containerd.toml")))?;
    child.wait_for_line(PATIENCE, |line| line.contains("containerd successfully booted"))?;
    let source = dir.join("pause.c");
    std::fs::write(&source, "#include <unistd.h>\nint main(void) { pause(); return 0; }\n")?;
    let (pause, source) = (dir.join("pause").display().to_string(), source.display().to_string());
    run_all(&[&format!("gcc -static -o {pause} {source}")])?;
    let pause = wherry_test::image_of("pause", "/pause", &[("/pause", &pause)])?;
    for (name, image) in [(PAUSE, pause), (CONTAINER, echo_image()?)] {
        // The tag is the image's own; under any further name the runtime would look for it in vain.
        let (socket, name) = (socket.display(), name.trim_end_matches(":latest"));
        let import =
            format!("ctr --address {socket} --namespace k8s.io images import --base-name {name} {}", image.display());
        run_all(&[&import])?;
    }
    Ok(child)
}

fn kubelet(bin: &Path, dir: &Path, peer: &Peer) -> anyhow::Result<Child> {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "failCgroupV1": false, "cgroupDriver": "cgroupfs", "failSwapOn": false, "localStorageCapacityIsolation": false,
        "containerRuntimeEndpoint": format!("unix://{}", dir.join("containerd.sock").display()),
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": false}, "x509": {}},
        "authorization": {"mode": "AlwaysAllow"}, "address": "127.0.0.1", "healthzPort": 0,
        "kubeAPIQPS": 100_000, "kubeAPIBurst": 100_000, "eventRecordQPS": 0,
    });
    let path = dir.join("kubelet.json");
    std::fs::write(&path, config.to_string())?;
    let mut command = mortal(&bin.join("kubelet"));
    command
        .arg("--config")
        .arg(path)
        .arg("--kubeconfig")
        .arg(peer.kubeconfig())
        .arg("--root-dir")
        .arg(dir.join("kubelet"));
    Child::start("kubelet", command.args(["--hostname-override", "kubelet", "--node-ip", "192.0.2.1"]))
}

/// A kubelet leaves its groups behind.
fn remove_groups() {
    let removed = Command::new("find")
        .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", "*/kubepods*", "-exec", "rmdir", "{}", ";"])
        .output();
    if removed.is_ok_and(|output| !output.status.success()) {
        eprintln!("the groups below kubepods in /sys/fs/cgroup were left behind");
    }
}
