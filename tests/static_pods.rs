//! Pods that a node runs from manifests of its own, of both kinds, by the real binary and kubectl.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use wherry_test::{Cluster, Kubectl, Options, PATIENCE, echo_image, is_root, sample};

const KINDS: [(&str, &str); 2] =
    [("wasm", "samples.wherry.dev/echo:wasm"), ("container", "samples.wherry.dev/echo:container")];

/// Puts a manifest into the directory as a whole.
fn write(dir: &Path, kind: &str, image: &str, version: &str) -> Result<()> {
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: echo-{kind}, labels: {{app: echo}}}}
spec:
  terminationGracePeriodSeconds: 5
  containers:
    - name: echo
      image: {image}
      imagePullPolicy: IfNotPresent
      env: [{{name: VERSION, value: '{version}'}}]
      ports: [{{name: http, containerPort: 8080}}]
      readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
"
    );
    std::fs::write(dir.join(".new"), manifest)?;
    Ok(std::fs::rename(dir.join(".new"), dir.join(format!("{kind}.yaml")))?)
}

/// Waits until the Pod is ready and is not `before`.
fn another(kubectl: &Kubectl, pod: &str, before: &str) -> Result<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        let output = kubectl.run(&format!("get pod {pod} -o json --ignore-not-found"))?;
        let found: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        if ready && found["metadata"]["uid"] != before {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "{pod} is not there anew: {output:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap_or_default()
}

fn ask(kubectl: &Kubectl, pod: &str) -> Result<String> {
    kubectl.ok(&format!("get --raw /api/v1/namespaces/default/pods/{pod}:8080/proxy/env?name=VERSION"))
}

#[test]
fn manifests_run_on_their_node_and_only_their_files_end_them() -> Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let mut options = Options::new(env!("CARGO_BIN_EXE_wherry"));
    options.arguments = vec!["--pod-manifest-path".to_owned(), dir.path().display().to_string()];
    let mut cluster = Cluster::start(options)?;
    let kubectl = cluster.kubectl();
    cluster.load(&sample("echo"), KINDS[0].1)?;
    cluster.load(&echo_image()?, KINDS[1].1)?;
    for (kind, image) in KINDS {
        write(dir.path(), kind, image, "one")?;
    }
    for (kind, image) in KINDS {
        let name = format!("echo-{kind}-wherry-0");
        let first = another(&kubectl, &name, "")?;
        let annotations = &first["metadata"]["annotations"];
        ensure!(annotations["kubernetes.io/config.source"] == "file", "{annotations}");
        ensure!(
            annotations["kubernetes.io/config.mirror"] == annotations["kubernetes.io/config.hash"],
            "{annotations}"
        );
        let owner = &first["metadata"]["ownerReferences"][0];
        ensure!(owner["kind"] == "Node" && owner["name"] == "wherry-0" && owner["controller"] == true, "{owner}");
        ensure!(ask(&kubectl, &name)? == "one");
        ensure!(kubectl.ok(&format!("logs {name}"))?.contains("GET /healthz"), "{name} has no log");

        // The API ends nothing: what it deletes is shown again.
        kubectl.ok(&format!("delete pod {name}"))?;
        let again = another(&kubectl, &name, uid(&first))?;
        let container = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
        ensure!(container(&again) == container(&first), "{name} was started again");

        // Another manifest is another Pod.
        write(dir.path(), kind, image, "two")?;
        let changed = another(&kubectl, &name, uid(&again))?;
        ensure!(container(&changed) != container(&again), "{name} was not started again");
        ensure!(ask(&kubectl, &name)? == "two");
    }
    cluster.stop()?;
    cluster.resume()?;
    let kubectl = cluster.kubectl();
    for (kind, _) in KINDS {
        let name = format!("echo-{kind}-wherry-0");
        another(&kubectl, &name, "")?;
        std::fs::remove_file(dir.path().join(format!("{kind}.yaml")))?;
        kubectl.wait(&format!("--for=delete pod/{name}"), PATIENCE).context("its file is gone")?;
    }
    Ok(())
}
