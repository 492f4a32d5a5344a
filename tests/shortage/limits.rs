//! Pods that outgrow what they may have on the node's disk.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use wherry_test::{Cluster, Kubectl, Options, PATIENCE, echo_image, get, is_root, sample};

const KINDS: [(&str, &str); 2] =
    [("wasm", "samples.wherry.dev/echo:wasm"), ("container", "samples.wherry.dev/echo:container")];

/// How a Pod uses up what it has: requests until it is gone.
type Filling = fn(u32) -> String;

/// One way to outgrow a limit.
struct Way {
    name: &'static str,
    /// `limits.ephemeral-storage` of the container that is asked, and of the one beside it.
    limits: [Option<&'static str>; 2],
    /// The volume at `/data`.
    volume: &'static str,
    fill: Filling,
    told: &'static str,
}

const FILES: Filling = |n| format!("/write?path=/data/{n}&text=x");
const LOGS: Filling = |_| format!("/{}", "x".repeat(4000));

static WAYS: [Way; 3] = [
    Way {
        name: "volume",
        limits: [None, None],
        volume: "emptyDir: {sizeLimit: 400Ki}",
        fill: FILES,
        told: "Usage of EmptyDir volume \"data\" exceeds the limit \"400Ki\". ",
    },
    Way {
        name: "pod",
        limits: [Some("300Ki"), Some("100Ki")],
        volume: "emptyDir: {}",
        fill: FILES,
        told: "Pod ephemeral local storage usage exceeds the total limit of containers 400Ki. ",
    },
    Way {
        name: "container",
        limits: [Some("400Ki"), Some("1Gi")],
        volume: "emptyDir: {}",
        fill: LOGS,
        told: "Container echo exceeded its local ephemeral storage limit \"400Ki\". ",
    },
];

/// What a container writes into its own root counts as its logs do. A module has no root of its own.
static ROOT: Way = Way {
    name: "root",
    limits: [Some("400Ki"), Some("1Gi")],
    volume: "emptyDir: {}",
    fill: |n| format!("/write?path=/file-{n}&text=x"),
    told: "Container echo exceeded its local ephemeral storage limit \"400Ki\". ",
};

#[test]
fn who_outgrows_a_limit_is_evicted_and_nobody_else() -> Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    cluster.load(&sample("echo"), KINDS[0].1)?;
    cluster.load(&echo_image()?, KINDS[1].1)?;
    let kubectl = cluster.kubectl();
    let mut filled = Vec::new();
    for (kind, image) in KINDS {
        let ways = WAYS.iter().chain(Some(&ROOT).filter(|_| kind == "container"));
        for way in ways {
            let name = format!("{}-{kind}", way.name);
            apply(&kubectl, &name, image, way)?;
            filled.push((name, way));
        }
        // A neighbour that has limits as well, and keeps to them.
        apply(&kubectl, &format!("neighbour-{kind}"), image, &WAYS[1])?;
    }
    kubectl.wait("--for=condition=Ready pod --all", PATIENCE)?;
    for (name, way) in &filled {
        fill(&address(&kubectl, name)?, way.fill)?;
    }
    for (name, way) in &filled {
        kubectl.wait(&format!("--for=jsonpath={{.status.phase}}=Failed pod/{name}"), PATIENCE)?;
        let pod = kubectl.json(&format!("get pod {name}"))?;
        ensure!(pod["status"]["reason"] == "Evicted" && pod["status"]["message"] == way.told, "{name}: {pod:#}");
        for container in pod["status"]["containerStatuses"].as_array().unwrap() {
            ensure!(container["state"]["terminated"].is_object(), "{name}: {pod:#}");
        }
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        ensure!(
            !conditions.iter().any(|one| one["type"] == "DisruptionTarget"),
            "{name}: the node was not short: {pod:#}"
        );
        let events = kubectl.json(&format!("get events --field-selector=reason=Evicted,involvedObject.name={name}"))?;
        let event = &events["items"][0];
        ensure!(event["type"] == "Warning" && event["message"] == way.told, "{name}: {events:#}");
    }
    for (kind, _) in KINDS {
        let name = format!("neighbour-{kind}");
        let status = &kubectl.json(&format!("get pod {name}"))?["status"];
        ensure!(status["phase"] == "Running" && status["containerStatuses"][0]["restartCount"] == 0, "{status:#}");
        ensure!(get(&address(&kubectl, &name)?, "/healthz")?.status == 200, "{name} does not answer");
    }
    Ok(())
}

fn apply(kubectl: &Kubectl, name: &str, image: &str, way: &Way) -> Result<()> {
    let resources = |limit: Option<&str>| {
        limit.map(|limit| format!("{{limits: {{ephemeral-storage: {limit}}}}}")).unwrap_or_else(|| "{}".to_owned())
    };
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  restartPolicy: Always
  volumes: [{{name: data, {}}}]
  containers:
    - name: echo
      image: {image}
      ports: [{{containerPort: 8080}}]
      volumeMounts: [{{name: data, mountPath: /data}}]
      resources: {}
    - name: beside
      image: {image}
      env: [{{name: PORT, value: \"8081\"}}]
      ports: [{{containerPort: 8081}}]
      resources: {}
",
        way.volume,
        resources(way.limits[0]),
        resources(way.limits[1]),
    );
    kubectl.apply(&manifest)?;
    kubectl.ok(&format!("expose pod {name} --port=80 --target-port=8080 --type=NodePort")).map(drop)
}

fn address(kubectl: &Kubectl, name: &str) -> Result<String> {
    let port = kubectl.ok(&format!("get service {name} -o jsonpath={{.spec.ports[0].nodePort}}"))?;
    Ok(format!("127.0.0.1:{port}"))
}

/// Makes requests, of which each takes some room, beyond all limits of the test.
fn fill(address: &str, path: Filling) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut answered = 0;
    while answered < 200 {
        match get(address, &path(answered)) {
            Ok(answer) if matches!(answer.status, 200 | 404) => answered += 1,
            // A look may be sooner than all of them.
            Err(_) if answered > 90 => return Ok(()),
            // Services follow their Pods with a delay of which nothing tells.
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            other => bail!("{address}: {other:?}"),
        }
    }
    Ok(())
}
