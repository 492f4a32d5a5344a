//! Stop, kill and start with Pods: a stop leaves nothing behind, a start goes on with the same Pods, a kill does not touch
//! containers.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use wherry_test::{Child, Cluster, PATIENCE, echo_image, get, is_root, root, sample};

use crate::footprint::{Footprint, no_more_than};
use crate::traces;

const KINDS: [&str; 2] = ["wasm", "container"];

/// A Pod as a client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    uid: String,
    ip: String,
    restarts: u64,
    container: String,
    started_at: String,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn pods(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, Known>> {
    let list = cluster.kubectl().json("get pods")?;
    let items = list["items"].as_array().context("no items")?;
    let known = |pod: &Value| {
        let container = &pod["status"]["containerStatuses"][0];
        let known = Known {
            uid: text(&pod["metadata"]["uid"]),
            ip: text(&pod["status"]["podIP"]),
            restarts: container["restartCount"].as_u64().unwrap_or_default(),
            container: text(&container["containerID"]),
            started_at: text(&container["state"]["running"]["startedAt"]),
        };
        (text(&pod["metadata"]["name"]), known)
    };
    Ok(items.iter().map(known).collect())
}

fn deploy(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.load(&sample("echo"), "samples.wherry.dev/echo:wasm")?;
    cluster.load(&echo_image()?, "samples.wherry.dev/echo:container")?;
    for kind in KINDS {
        let manifest = std::fs::read_to_string(root().join(format!("samples/echo/{kind}.yaml")))?;
        cluster.kubectl().apply(&manifest)?;
    }
    serve(cluster)
}

/// Waits until both kinds are ready, then asks both Services.
fn serve(cluster: &Cluster) -> anyhow::Result<()> {
    for kind in KINDS {
        cluster.kubectl().wait(&format!("--for=condition=Available deployment/echo-{kind}"), PATIENCE)?;
    }
    answer(cluster)
}

fn answer(cluster: &Cluster) -> anyhow::Result<()> {
    for kind in KINDS {
        let answer = get(&cluster.open_url(&format!("echo-{kind}"))?, "/")?;
        ensure!(answer.status == 200 && answer.body.ends_with(&format!(" {kind}\n")), "{answer:?}");
    }
    Ok(())
}

/// Waits for the run after `restarts` of every Pod of a kind, and that it is ready.
fn wait_for_run(cluster: &Cluster, kind: &str, restarts: u64) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let count = format!("--for=jsonpath={{.status.containerStatuses[0].restartCount}}={restarts}");
    kubectl.wait(&format!("{count} pod -l kind={kind}"), PATIENCE)?;
    kubectl.wait(&format!("--for=condition=Ready pod -l kind={kind}"), PATIENCE)
}

fn ensure_no_trace(cluster: &Cluster, uids: &[String]) -> anyhow::Result<()> {
    let dir = cluster.data_dir().canonicalize()?;
    let processes = traces::processes(&dir.to_string_lossy());
    ensure!(processes.is_empty(), "left behind: {processes:?}");
    let mounts = traces::mounts(&dir);
    ensure!(mounts.is_empty(), "still mounted: {mounts:?}");
    let groups = traces::cgroups(uids);
    ensure!(groups.is_empty(), "control groups left behind: {groups:?}");
    for uid in uids {
        let processes = traces::processes(uid);
        ensure!(processes.is_empty(), "left behind: {processes:?}");
    }
    Ok(())
}

/// What must be the same of every Pod over restarts.
fn identities(pods: &BTreeMap<String, Known>) -> Vec<(&str, &str, &str)> {
    pods.iter().map(|(name, pod)| (&**name, &*pod.uid, &*pod.ip)).collect()
}

#[test]
fn a_stop_leaves_nothing_behind_and_a_start_goes_on() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let rules = traces::rules().0;
    let mut cluster = Cluster::start(crate::options())?;
    deploy(&cluster)?;
    let before = pods(&cluster)?;
    ensure!(traces::rules().0 == rules, "the machine's own rules were changed");
    let uids: Vec<String> = before.values().map(|pod| pod.uid.clone()).collect();
    cluster.stop()?;
    ensure_no_trace(&cluster, &uids)?;
    ensure!(traces::rules().0 == rules, "the machine's own rules were changed");

    cluster.resume()?;
    for kind in KINDS {
        wait_for_run(&cluster, kind, 1)?;
    }
    serve(&cluster)?;
    let after = pods(&cluster)?;
    ensure!(identities(&after) == identities(&before), "{after:#?} instead of {before:#?}");
    cluster.stop()?;
    ensure_no_trace(&cluster, &uids)
}

#[test]
fn a_kill_leaves_containers_running_and_brings_wasm_back() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let mut cluster = Cluster::start(crate::options())?;
    deploy(&cluster)?;
    let before = pods(&cluster)?;
    let uids: Vec<String> = before.values().map(|pod| pod.uid.clone()).collect();
    let of = |pods: &BTreeMap<String, Known>, kind: &str| -> anyhow::Result<Known> {
        let found = pods.iter().find(|(name, _)| name.starts_with(&format!("echo-{kind}-")));
        Ok(found.context("no such Pod")?.1.clone())
    };
    let container = of(&before, "container")?;
    let wasm = of(&before, "wasm")?;
    let processes = || traces::processes(&container.uid);
    let running = processes();
    ensure!(!running.is_empty(), "the container has no process");
    let kills = std::env::var("WHERRY_AGENT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let footprint = Footprint::outside(&cluster, &uids)?;
    let (mut slowest, mut all) = (Duration::ZERO, Duration::ZERO);
    for kill in 1..=kills {
        cluster.kill()?;
        ensure!(processes() == running, "the container was touched: {:?} instead of {running:?}", processes());
        cluster.resume()?;
        let ready = Instant::now();
        wait_for_run(&cluster, "wasm", kill)?;
        slowest = slowest.max(ready.elapsed());
        all += ready.elapsed();
        serve(&cluster)?;
        let after = pods(&cluster)?;
        ensure!(identities(&after) == identities(&before), "{after:#?} instead of {before:#?}");
        ensure!(of(&after, "container")? == container, "{after:#?} instead of {container:?}");
        ensure!(of(&after, "wasm")?.restarts == wasm.restarts + kill, "{after:#?}");
        ensure!(processes() == running, "the container was touched: {:?} instead of {running:?}", processes());
        no_more_than(&footprint, || Footprint::outside(&cluster, &uids)).with_context(|| format!("kill {kill}"))?;
    }
    println!(
        "{kills} kills; modules run again {:.1?} after the cluster was ready, {slowest:.1?} at most",
        all.checked_div(kills.try_into()?).unwrap_or_default()
    );
    cluster.stop()?;
    ensure_no_trace(&cluster, &uids)
}

#[test]
fn a_second_start_in_a_directory_in_use_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start(crate::options())?;
    let output = cluster.up().output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "{said}");
    ensure!(said.contains("another wherry runs the cluster in") && said.contains("--data-dir"), "{said}");
    cluster.kubectl().ok("get namespaces")?;
    Ok(())
}

#[test]
fn a_taken_port_is_refused_and_leaves_nothing_behind() -> anyhow::Result<()> {
    let cluster = Cluster::create(crate::options())?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_wherry"))
        .args(["up", "--api-port", &port, "--data-dir"])
        .arg(cluster.data_dir())
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains(&port) && said.contains("--api-port"), "{said}");
    ensure_no_trace(&cluster, &[])
}

#[test]
fn sigterm_during_start_up_ends_in_order() -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(crate::seed());
    let cluster = Cluster::create(crate::options())?;
    for _ in 0..12 {
        let mut process = Child::start("wherry up", &mut cluster.up())?;
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        process.signal(Signal::SIGTERM)?;
        let status = process.wait()?;
        // Before the process has begun to listen for it, the signal is the kernel's affair.
        let unheard = std::os::unix::process::ExitStatusExt::signal(&status) == Some(Signal::SIGTERM as i32);
        ensure!(status.success() || unheard, "{status}: {}", process.output());
        ensure_no_trace(&cluster, &[])?;
    }
    Ok(())
}
