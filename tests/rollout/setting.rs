//! A cluster with both builds of echo, and Deployments of them.

use std::time::Duration;

use wherry_test::{Cluster, Options, echo_image, sample};

/// How long a step may take where several clusters share two cores.
pub(crate) const LONG: Duration = Duration::from_secs(85);
/// echo as a component.
pub(crate) const WASM: &str = "samples.wherry.dev/echo:wasm";
/// echo as a program.
pub(crate) const CONTAINER: &str = "samples.wherry.dev/echo:container";

/// Starts a cluster that has the images of echo.
pub(crate) fn cluster(nodes: u16) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(Options { nodes, ..Options::new(env!("CARGO_BIN_EXE_wherry")) })?;
    cluster.load(&sample("echo"), WASM)?;
    cluster.load(&echo_image()?, CONTAINER)?;
    Ok(cluster)
}

/// A Deployment of echo. `pod` are further fields of the Pod's spec, one line of flow-style YAML each.
pub(crate) fn deployment(name: &str, image: &str, replicas: u32, pod: &[&str]) -> String {
    let pod: String = pod.iter().map(|line| format!("      {line}\n")).collect();
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
{pod}      containers:
        - name: echo
          image: {image}
          imagePullPolicy: IfNotPresent
          ports: [{{name: http, containerPort: 8080}}]
          env: [{{name: POD_NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}]
          readinessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1}}
"
    )
}

/// A Service of it.
pub(crate) fn service(name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{type: NodePort, selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: http}}]}}
"
    )
}

/// Waits until a Deployment has rolled out.
pub(crate) fn rolled_out(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    cluster.kubectl().ok(&format!("rollout status --timeout={}s deployment/{name}", LONG.as_secs())).map(drop)
}

/// `ip:port` of a Service inside the cluster.
pub(crate) fn cluster_address(cluster: &Cluster, service: &str) -> anyhow::Result<String> {
    let ip = cluster.kubectl().ok(&format!("get service {service} -o jsonpath={{.spec.clusterIP}}"))?;
    Ok(format!("{ip}:80"))
}

/// Space-separated words of a jsonpath, sorted.
pub(crate) fn words(cluster: &Cluster, what: &str, path: &str) -> anyhow::Result<Vec<String>> {
    let text = cluster.kubectl().ok(&format!("get {what} -o jsonpath={path}"))?;
    let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
    words.sort_unstable();
    Ok(words)
}
