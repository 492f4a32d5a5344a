//! What Pods share with their node and among their containers, and what of the kernel they may set.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "namespaces/network.rs"]
mod network;
#[path = "namespaces/processes.rs"]
mod processes;
#[path = "namespaces/settings.rs"]
mod settings;

use serde_json::{Value, json};
use wherry_test::{Child, Cluster, Kubectl, Options, PATIENCE, echo_image, image_of, sample};

const WASM: &str = "test.local/echo:wasm";
const CONTAINER: &str = "test.local/echo:container";
const BUSYBOX: &str = "test.local/busybox:1";

/// A cluster of one node with echo in both kinds and busybox.
fn cluster() -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    let applets = ["/bin/sh", "/bin/cat", "/bin/grep", "/bin/id", "/bin/ls", "/bin/readlink", "/bin/sleep"];
    let busybox = image_of("shell", "/bin/sh", &applets.map(|applet| (applet, "/bin/busybox")))?;
    for (file, reference) in [(sample("echo"), WASM), (echo_image()?, CONTAINER), (busybox, BUSYBOX)] {
        cluster.load(&file, reference)?;
    }
    Ok(cluster)
}

/// Applies a Pod, labelled with its name.
fn apply(kubectl: &Kubectl, name: &str, mut spec: Value) -> anyhow::Result<()> {
    spec["terminationGracePeriodSeconds"] = json!(1);
    let meta = json!({ "name": name, "labels": { "app": name } });
    kubectl.apply(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec }).to_string())?;
    Ok(())
}

fn ready(kubectl: &Kubectl, name: &str) -> anyhow::Result<Value> {
    kubectl.wait(&format!("--for=condition=Ready pod/{name}"), PATIENCE)?;
    kubectl.json(&format!("get pod {name}"))
}

/// A container that runs a script of busybox.
fn shell(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": BUSYBOX, "command": ["/bin/sh", "-c", script] })
}

/// Waits for a line of a container's log; whether it is this is asked of `wanted`.
fn told(kubectl: &Kubectl, pod: &str, container: &str, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let mut command = kubectl.command(["logs", "-f", "--pod-running-timeout=60s", pod, "-c", container]);
    let mut logs = Child::start("kubectl logs", &mut command)?;
    logs.wait_for_line(PATIENCE, wanted)
}
