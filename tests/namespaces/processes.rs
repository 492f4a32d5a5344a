//! Whose processes containers see, through restarts of all that takes part.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use wherry_test::{Kubectl, PATIENCE, is_root};

use super::{WASM, apply, cluster, ready, shell, told};

/// Tells what it sees of the other container and of the first process, whenever the other one is there.
const WATCHER: &str = "until grep -qs '^sleep' /proc/[0-9]*/cmdline /dev/null; do sleep 0.1; done; \
     echo first: $(cat /proc/1/comm); \
     echo root: $(ls /proc/1/root/ /proc/1/root/../..); \
     echo end; exec sleep 88888";

fn restarts(pod: &Value, container: &str) -> Option<i64> {
    let statuses = pod["status"]["containerStatuses"].as_array()?;
    statuses.iter().find(|status| status["name"] == container)?["restartCount"].as_i64()
}

/// Waits until a container has been started this often.
fn restarted(kubectl: &Kubectl, pod: &str, index: usize, count: u32) -> anyhow::Result<()> {
    let path = format!(".status.containerStatuses[{index}].restartCount");
    kubectl.wait(&format!("--for=jsonpath={{{path}}}={count} pod/{pod}"), PATIENCE)
}

/// The machine's processes with these words in their command line.
fn processes(words: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let line = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| String::from_utf8_lossy(&line(*pid)).replace('\0', " ").trim() == words).collect()
}

fn kill(pid: i32) -> anyhow::Result<()> {
    Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?)
}

#[test]
fn processes_are_shared_as_asked() -> anyhow::Result<()> {
    if !is_root("containers and namespaces") {
        return Ok(());
    }
    let mut cluster = cluster()?;
    let kubectl = cluster.kubectl();
    let before = processes("/pause pod-init");
    let ours = || processes("/pause pod-init").into_iter().filter(|pid| !before.contains(pid)).collect::<Vec<_>>();
    let mut watcher = shell("watcher", WATCHER);
    // With it a container may look into any process of its namespace; what it finds there must be nothing of the machine.
    watcher["securityContext"] = json!({ "capabilities": { "add": ["SYS_PTRACE"] } });
    let containers = json!([shell("sleeper", "sleep 77777"), watcher, { "name": "wasm", "image": WASM }]);
    apply(&kubectl, "shared", json!({ "shareProcessNamespace": true, "containers": containers }))?;
    ready(&kubectl, "shared")?;
    told(&kubectl, "shared", "watcher", |line| line == "first: init")?;
    // Nothing lies there but itself.
    told(&kubectl, "shared", "watcher", |line| line == "root: /proc/1/root/: init /proc/1/root/../..: init")?;
    let init = ours();
    ensure!(init.len() == 1, "{init:?}");

    // A container that ends is one that ends; the namespace stays.
    kill(*processes("sleep 77777").first().context("no sleeper")?)?;
    restarted(&kubectl, "shared", 0, 1)?;
    let pod = ready(&kubectl, "shared")?;
    ensure!(restarts(&pod, "watcher") == Some(0) && ours() == init, "{}", pod["status"]);

    // So does it when the agent dies and comes back.
    cluster.kill()?;
    cluster.resume()?;
    let pod = ready(&kubectl, "shared")?;
    ensure!(restarts(&pod, "sleeper") == Some(1) && restarts(&pod, "watcher") == Some(0), "{}", pod["status"]);
    ensure!(ours() == init);

    // Where somebody ends its first process, all end, and are started again in a new one.
    kill(init[0])?;
    restarted(&kubectl, "shared", 0, 2)?;
    restarted(&kubectl, "shared", 1, 1)?;
    ready(&kubectl, "shared")?;
    told(&kubectl, "shared", "watcher", |line| line == "end")?;
    ensure!(ours().len() == 1 && ours() != init);
    kubectl.ok("delete pod shared")?;
    ensure!(ours().is_empty(), "{:?}", ours());

    let machine =
        |name: &str| Ok::<_, anyhow::Error>(fs::read_link(format!("/proc/self/ns/{name}"))?.display().to_string());
    for (name, field, namespace) in [("pid", "hostPID", "pid"), ("ipc", "hostIPC", "ipc")] {
        let script = format!("readlink /proc/self/ns/{namespace}; exec sleep 100000");
        apply(
            &kubectl,
            name,
            json!({ field: true, "containers": [shell("c", &script), { "name": "wasm", "image": WASM }] }),
        )?;
        ready(&kubectl, name)?;
        let machine = machine(namespace)?;
        told(&kubectl, name, "c", |line| line == machine)?;
        kubectl.ok(&format!("delete pod {name}"))?;
    }
    Ok(())
}
