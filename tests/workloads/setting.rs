//! A cluster with both builds of the samples.

use std::time::Duration;

use wherry_test::{Cluster, Options, echo_image, sample, worker_image};

/// How long a step may take where several clusters share two cores.
pub(crate) const LONG: Duration = Duration::from_secs(85);
/// echo as a component.
pub(crate) const WASM: &str = "samples.wherry.dev/echo:wasm";
/// echo as a program.
pub(crate) const CONTAINER: &str = "samples.wherry.dev/echo:container";
/// The kinds, with a name for what is made of them.
pub(crate) const KINDS: [(&str, &str); 2] = [("native", CONTAINER), ("component", WASM)];

/// Starts a cluster that has the images of echo and worker.
pub(crate) fn cluster(nodes: u16) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(Options { nodes, ..Options::new(env!("CARGO_BIN_EXE_wherry")) })?;
    cluster.load(&sample("echo"), WASM)?;
    cluster.load(&echo_image()?, CONTAINER)?;
    cluster.load(&sample("worker"), &WASM.replace("echo", "worker"))?;
    cluster.load(&worker_image()?, &CONTAINER.replace("echo", "worker"))?;
    Ok(cluster)
}

/// A Pod template of echo, indented to stand in a spec.
pub(crate) fn template(name: &str, image: &str) -> String {
    format!(
        "  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: echo
          image: {image}
          imagePullPolicy: IfNotPresent
          ports: [{{name: http, containerPort: 8080}}]
          env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
          readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
"
    )
}

/// A Deployment of echo, and the line that begins the next manifest.
pub(crate) fn deployment(name: &str, image: &str) -> String {
    let template = template(name, image);
    format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n{template}---\n")
}

/// Waits until an update has gone through.
pub(crate) fn rolled_out(cluster: &Cluster, what: &str) -> anyhow::Result<()> {
    cluster.kubectl().ok(&format!("rollout status --timeout={}s {what}", LONG.as_secs())).map(drop)
}

/// Space-separated words of a jsonpath, sorted.
pub(crate) fn words(cluster: &Cluster, what: &str, path: &str) -> anyhow::Result<Vec<String>> {
    let text = cluster.kubectl().ok(&format!("get {what} -o jsonpath={path}"))?;
    let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
    words.sort_unstable();
    Ok(words)
}
