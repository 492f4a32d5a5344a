//! `wherry up --isolate`: WebAssembly in processes of its own, whose end is that of their Pods alone.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "hostile/bystander.rs"]
mod bystander;

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, ensure};
use bystander::Bystander;
use serde_json::Value;
use wherry_test::{Cluster, Kubectl, Options, PATIENCE, get, is_root, root, sample};

const HELLO: &str = "samples.wherry.dev/hello:1";

fn cluster(isolate: &str) -> anyhow::Result<Cluster> {
    let mut options = Options::new(env!("CARGO_BIN_EXE_wherry"));
    options.arguments = vec!["--isolate".to_owned(), isolate.to_owned()];
    let cluster = Cluster::start(options)?;
    cluster.load(&sample("hello"), HELLO)?;
    Ok(cluster)
}

/// Two Pods of hello and their Service.
fn hello(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.apply(&std::fs::read_to_string(root().join("samples/hello/manifest.yaml"))?)?;
    kubectl.wait("--for=condition=Available deployment/hello", PATIENCE)
}

/// The hosts of a cluster by their names.
fn hosts(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, i32>> {
    let mark = cluster.data_dir().display().to_string();
    let mut hosts = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may have ended.
        let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        if let [_, "wasm-host", name, plan, ..] = words[..]
            && plan.contains(&mark)
        {
            hosts.insert(name.to_owned(), pid);
        }
    }
    Ok(hosts)
}

/// Waits until a process is no more.
fn gone(pid: i32) -> anyhow::Result<()> {
    let limit = PATIENCE.as_secs().to_string();
    let waited = Command::new("timeout")
        .args([&*limit, "tail", &format!("--pid={pid}"), "-f", "/dev/null"])
        .status()
        .context("start tail")?;
    ensure!(waited.success(), "process {pid} goes on");
    Ok(())
}

/// A host's process may do nothing.
fn is_locked_in(pid: i32) -> anyhow::Result<()> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>()
    };
    let users = of("Uid");
    ensure!(users.len() == 4 && !users.contains(&"0"), "{users:?}");
    ensure!(of("Groups").is_empty(), "{:?}", of("Groups"));
    for held in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        ensure!(of(held) == ["0000000000000000"], "{held}: {:?}", of(held));
    }
    ensure!((of("NoNewPrivs"), of("Seccomp")) == (vec!["1"], vec!["2"]), "{status}");
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap_or_default();
    ensure!(root.contains(" - tmpfs "), "{mounts}");
    let environment = std::fs::read(format!("/proc/{pid}/environ"))?;
    ensure!(environment.iter().filter(|byte| **byte == 0).count() <= 1, "it has an environment");
    Ok(())
}

fn statuses(kubectl: &Kubectl) -> anyhow::Result<Vec<Value>> {
    let pods = kubectl.json("get pods -l app=hello")?;
    let pods = pods["items"].as_array().context("no list")?;
    Ok(pods.iter().map(|pod| pod["status"]["containerStatuses"][0].clone()).collect())
}

#[test]
fn the_end_of_a_namespaces_host_is_noticed_there_alone() -> anyhow::Result<()> {
    if !is_root("hosts") {
        return Ok(());
    }
    let cluster = cluster("namespace")?;
    let (kubectl, tenant) = (cluster.kubectl(), cluster.kubectl().in_namespace("tenant"));
    kubectl.ok("create namespace tenant")?;
    hello(&kubectl)?;
    hello(&tenant)?;
    let bystander = Bystander::ask(cluster.open_url("hello")?);
    let before = hosts(&cluster)?;
    ensure!(before.keys().eq(["default", "tenant"]), "{before:?}");
    for pid in before.values() {
        is_locked_in(*pid)?;
    }

    ensure!(Command::new("kill").args(["-9", &before["tenant"].to_string()]).status()?.success(), "kill");
    let ended = "--for=jsonpath={.status.containerStatuses[0].lastState.terminated.exitCode}=137";
    tenant.wait(&format!("{ended} pod -l app=hello"), PATIENCE)?;
    for status in statuses(&tenant)? {
        let terminated = &status["lastState"]["terminated"];
        ensure!(terminated["reason"] == "Error", "{status}");
        let message = terminated["message"].as_str().unwrap_or_default();
        ensure!(message.contains("the host process of namespace tenant ended: killed by signal 9"), "{status}");
    }
    tenant.wait("--for=condition=Ready pod -l app=hello", PATIENCE)?;
    for status in statuses(&tenant)? {
        ensure!(status["restartCount"] == 1, "{status}");
    }
    ensure!(get(&cluster.open_url("hello -n tenant")?, "/")?.status == 200, "it does not answer again");

    let tally = bystander.stop();
    ensure!(tally.answered > 0 && tally.failed.is_empty(), "{} answered, failed: {:?}", tally.answered, tally.failed);
    for status in statuses(&kubectl)? {
        ensure!(status["restartCount"] == 0, "{status}");
    }
    let after = hosts(&cluster)?;
    ensure!(after["default"] == before["default"] && after["tenant"] != before["tenant"], "{before:?} {after:?}");
    // Nothing of a namespace is left when it goes.
    tenant.ok("delete deployment hello --wait=true")?;
    tenant.wait("--for=delete pod -l app=hello", PATIENCE)?;
    gone(after["tenant"])
}

#[test]
fn a_nodes_guests_share_a_host_that_ends_with_its_agent() -> anyhow::Result<()> {
    if !is_root("hosts") {
        return Ok(());
    }
    let mut cluster = cluster("node")?;
    let kubectl = cluster.kubectl();
    hello(&kubectl)?;
    let address = cluster.open_url("hello")?;
    let answer = get(&address, "/")?;
    ensure!(answer.status == 200 && answer.body.contains("Hello from WebAssembly"), "{answer:?}");
    let only = hosts(&cluster)?;
    ensure!(only.keys().eq(["wherry-0"]), "{only:?}");
    is_locked_in(only["wherry-0"])?;

    cluster.kill()?;
    gone(only["wherry-0"])?;
    cluster.resume()?;
    kubectl.wait("--for=condition=Available deployment/hello", PATIENCE)?;
    ensure!(get(&cluster.open_url("hello")?, "/")?.status == 200, "it does not answer again");
    let again = hosts(&cluster)?;
    ensure!(again.keys().eq(["wherry-0"]), "{again:?}");
    cluster.stop()?;
    gone(again["wherry-0"])
}
