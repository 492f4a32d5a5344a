//! What nodes and Pods use, as tools see it: kubectl top, the metrics of node and server read by Prometheus' own parser. The same
//! for both kinds of container.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use wherry_test::{Cluster, Kubectl, Options, PATIENCE, echo_image, get, is_root, root, sample};

const KINDS: [(&str, &str); 2] =
    [("wasm", "samples.wherry.dev/echo:wasm"), ("container", "samples.wherry.dev/echo:container")];

/// Requests made of the busy Pods.
const REQUESTS: usize = 300;

#[test]
fn what_is_used_is_told_alike_for_both_kinds() -> Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    cluster.load(&sample("echo"), KINDS[0].1)?;
    cluster.load(&echo_image()?, KINDS[1].1)?;
    let kubectl = cluster.kubectl();
    for (kind, image) in KINDS {
        for role in ["busy", "idle"] {
            kubectl.apply(&pod(&format!("{role}-{kind}"), role, image))?;
        }
        kubectl.ok(&format!("expose pod busy-{kind} --port=80 --target-port=8080 --type=NodePort"))?;
    }
    kubectl.wait("--for=condition=Ready pod --all", PATIENCE)?;
    for (kind, _) in KINDS {
        let port = kubectl.ok(&format!("get service busy-{kind} -o jsonpath={{.spec.ports[0].nodePort}}"))?;
        let address = format!("127.0.0.1:{port}");
        let end = Instant::now() + PATIENCE;
        let mut answered = 0;
        while answered < REQUESTS {
            match get(&address, "/") {
                Ok(answer) if answer.status == 200 => answered += 1,
                // Services follow their Pods with a delay of which nothing tells.
                other if Instant::now() > end => bail!("{kind}: {other:?}"),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
    let node = kubectl.ok("get nodes -o jsonpath={.items[0].metadata.name}")?;
    prometheus_text(&kubectl, &node)?;
    summary(&kubectl, &node)?;
    for kubectl in cluster.kubectls() {
        top(&kubectl, &node)?;
    }
    objects(&kubectl, &node)?;
    who_may(&kubectl, &node)?;
    server(&kubectl)
}

fn pod(name: &str, role: &str, image: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{role: {role}, app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: echo
      image: {image}
      ports: [{{containerPort: 8080}}]
      resources: {{limits: {{cpu: 500m, memory: 64Mi}}}}
"
    )
}

/// A text that Prometheus' own parser and linter has read, by series without their values' times.
fn parsed(kubectl: &Kubectl, path: &str) -> Result<BTreeMap<String, f64>> {
    let text = kubectl.ok(&format!("get --raw {path}"))?;
    ensure!(
        Command::new(root().join("tests/install.sh")).arg("prometheus").status()?.success(),
        "prometheus cannot be installed"
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start promtool")?;
    promtool.stdin.take().context("no stdin")?.write_all(text.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // It exits 3 where it does not like a name; upstream's own names are such.
    ensure!(
        matches!(output.status.code(), Some(0 | 3)) && !said.contains("error while linting"),
        "{path}: {said}\n{text}"
    );
    let series = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, rest) = match line.rfind('}') {
            Some(end) => line.split_at(end + 1),
            None => line.split_once(' ').context("no value")?,
        };
        let value = rest.split_whitespace().next().context("no value")?.parse()?;
        Ok((name.to_owned(), value))
    });
    series.collect()
}

/// The only series of a family with these labels.
fn one(series: &BTreeMap<String, f64>, family: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let mut found = series.iter().filter(|(name, _)| {
        name.split('{').next() == Some(family) && wanted.iter().all(|label| name.contains(label.as_str()))
    });
    let (_, value) = found.next().with_context(|| format!("no {family} with {labels:?}"))?;
    ensure!(found.next().is_none(), "more than one {family} with {labels:?}");
    Ok(*value)
}

fn prometheus_text(kubectl: &Kubectl, node: &str) -> Result<()> {
    let proxy = |path: &str| format!("/api/v1/nodes/{node}/proxy{path}");
    let cadvisor = parsed(kubectl, &proxy("/metrics/cadvisor"))?;
    let resource = parsed(kubectl, &proxy("/metrics/resource"))?;
    let kubelet = parsed(kubectl, &proxy("/metrics"))?;
    for (kind, image) in KINDS {
        let (busy, idle) = (format!("busy-{kind}"), format!("idle-{kind}"));
        let of = |pod: &str, family: &str| {
            one(&cadvisor, family, &[("namespace", "default"), ("pod", pod), ("container", "echo"), ("image", image)])
        };
        for pod in [&busy, &idle] {
            let cpu = of(pod, "container_cpu_usage_seconds_total")?;
            let memory = of(pod, "container_memory_working_set_bytes")?;
            ensure!(cpu > 0.0 && memory > 0.0 && memory < 64e6, "{pod}: {cpu} {memory}");
            ensure!(of(pod, "container_memory_usage_bytes")? >= memory, "{pod}");
            ensure!(of(pod, "container_spec_memory_limit_bytes")? == 67_108_864.0, "{pod}");
            ensure!(of(pod, "container_spec_cpu_quota")? == 50_000.0, "{pod}");
            ensure!(of(pod, "container_cpu_cfs_periods_total")? >= 1.0, "{pod}");
            let labels = [("namespace", "default"), ("pod", pod.as_str()), ("container", "echo")];
            ensure!(one(&resource, "container_cpu_usage_seconds_total", &labels)? >= cpu, "{pod}");
            ensure!(one(&resource, "container_start_time_seconds", &labels)? > 1e9, "{pod}");
            ensure!(one(&resource, "pod_cpu_usage_seconds_total", &[("pod", pod.as_str())])? >= cpu, "{pod}");
        }
        let (used, unused) =
            (of(&busy, "container_cpu_usage_seconds_total")?, of(&idle, "container_cpu_usage_seconds_total")?);
        ensure!(used > unused, "{kind}: {used} {unused}");
        for family in ["container_network_receive_bytes_total", "container_network_transmit_bytes_total"] {
            let of = |pod: &str| one(&cadvisor, family, &[("pod", pod), ("interface", "eth0")]);
            ensure!(of(&busy)? > 30.0 * REQUESTS as f64 && of(&idle)? < 10_000.0, "{kind}: {family}");
        }
    }
    ensure!(one(&cadvisor, "machine_cpu_cores", &[])? >= 1.0, "no cores");
    ensure!(one(&cadvisor, "container_cpu_usage_seconds_total", &[("id", "/")])? > 0.0, "no machine");
    ensure!(one(&resource, "node_memory_working_set_bytes", &[])? > 0.0, "no node");
    ensure!(one(&kubelet, "kubelet_node_name", &[("node", node)])? == 1.0, "no name");
    ensure!(one(&kubelet, "kubelet_running_pods", &[])? == 4.0, "not four Pods");
    ensure!(one(&kubelet, "kubelet_running_containers", &[("container_state", "running")])? == 4.0, "not four");
    ensure!(one(&kubelet, "process_resident_memory_bytes", &[])? > 1e6, "no process");
    Ok(())
}

fn summary(kubectl: &Kubectl, node: &str) -> Result<()> {
    let text = kubectl.ok(&format!("get --raw /api/v1/nodes/{node}/proxy/stats/summary"))?;
    let summary: serde_json::Value = serde_json::from_str(&text)?;
    ensure!(summary["node"]["nodeName"] == node && summary["node"]["fs"]["capacityBytes"].as_u64() > Some(0), "{text}");
    let pods = summary["pods"].as_array().context("no Pods")?;
    ensure!(pods.len() == 4, "{text}");
    for pod in pods {
        let container = &pod["containers"][0];
        for (of, figure) in [
            (&container["cpu"], "usageCoreNanoSeconds"),
            (&container["cpu"], "usageNanoCores"),
            (&container["memory"], "workingSetBytes"),
            (&container["logs"], "usedBytes"),
            (&container["rootfs"], "usedBytes"),
            (&pod["network"], "rxBytes"),
            (&pod["ephemeral-storage"], "usedBytes"),
        ] {
            ensure!(of[figure].is_u64(), "{figure} is missing: {pod:#}");
        }
    }
    Ok(())
}

/// The words of the lines of a table, without its head.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

fn top(kubectl: &Kubectl, node: &str) -> Result<()> {
    let nodes = kubectl.ok("top nodes")?;
    ensure!(nodes.starts_with("NAME") && nodes.contains("CPU(cores)"), "{nodes}");
    ensure!(rows(&nodes).len() == 1 && rows(&nodes)[0][0] == node && rows(&nodes)[0][1].ends_with('m'), "{nodes}");
    let pods = kubectl.ok("top pods --sort-by=cpu")?;
    ensure!(rows(&pods).len() == 4, "{pods}");
    for row in rows(&pods).into_iter().filter(|row| row[0].starts_with("idle")) {
        let cpu: u64 = row[1].trim_end_matches('m').parse()?;
        let memory: u64 = row[2].trim_end_matches("Mi").parse()?;
        ensure!(cpu <= 20 && memory < 64, "an idle Pod uses much: {pods}");
    }
    let containers = kubectl.ok("top pods --containers -l role=idle --sort-by=memory")?;
    ensure!(rows(&containers).len() == 2 && rows(&containers).iter().all(|row| row[1] == "echo"), "{containers}");
    let all = kubectl.ok("top pods -A --no-headers")?;
    ensure!(all.lines().count() == 4 && all.lines().all(|line| line.starts_with("default")), "{all}");
    let one = kubectl.ok("top pod busy-wasm")?;
    ensure!(rows(&one).len() == 1, "{one}");
    let none = kubectl.run("top pod nobody")?;
    ensure!(!none.success && none.stderr.contains("not found"), "{}", none.stderr);
    Ok(())
}

fn objects(kubectl: &Kubectl, node: &str) -> Result<()> {
    let pods = kubectl.json("get pods.metrics.k8s.io -l role=busy")?;
    let names: Vec<_> =
        pods["items"].as_array().context("no items")?.iter().map(|pod| &pod["metadata"]["name"]).collect();
    ensure!(names == ["busy-container", "busy-wasm"], "{pods:#}");
    ensure!(pods["items"][0]["metadata"]["labels"]["role"] == "busy", "{pods:#}");
    ensure!(
        pods["items"][0]["containers"][0]["usage"]["memory"].as_str().is_some_and(|text| text.ends_with("Ki")),
        "{pods:#}"
    );
    let table = kubectl.ok("get nodes.metrics.k8s.io")?;
    let words: Vec<_> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    ensure!(words == ["NAME", "CPU", "MEMORY", "WINDOW"] && rows(&table)[0][0] == node, "{table}");
    let none = kubectl.run("get pods.metrics.k8s.io nobody")?;
    ensure!(none.stderr.contains("pods \"default/nobody\" not found"), "{}", none.stderr);
    let kinds = kubectl.ok("api-resources --api-group=metrics.k8s.io -o wide")?;
    ensure!(rows(&kinds).len() == 2 && kinds.contains("get,list"), "{kinds}");
    let explained = kubectl.ok("explain podmetrics.containers.usage --api-version=metrics.k8s.io/v1beta1");
    ensure!(explained.is_ok_and(|text| text.contains("KIND:       PodMetrics")), "explain does not know PodMetrics");
    Ok(())
}

/// Roles as upstream has them: who may view a namespace sees its Pods' use; agents are for those with nodes/proxy.
fn who_may(kubectl: &Kubectl, node: &str) -> Result<()> {
    kubectl.ok("create serviceaccount viewer")?;
    let viewer = "--as=system:serviceaccount:default:viewer";
    let refused = kubectl.run(&format!("top pods {viewer}"))?;
    ensure!(!refused.success && refused.stderr.contains("forbidden"), "{}", refused.stderr);
    kubectl.ok("create rolebinding viewer --clusterrole=view --serviceaccount=default:viewer")?;
    let end = Instant::now() + PATIENCE;
    // The role's rules are put together by a controller.
    while !kubectl.run(&format!("top pods {viewer}"))?.success {
        ensure!(Instant::now() < end, "a viewer may not see what Pods use");
        std::thread::sleep(Duration::from_millis(100));
    }
    let path = format!("/api/v1/nodes/{node}/proxy/metrics");
    let refused = kubectl.run(&format!("get --raw {path} {viewer}"))?;
    ensure!(!refused.success && refused.stderr.contains("nodes/proxy"), "{}", refused.stderr);
    kubectl.ok("create clusterrole scraper --verb=get --resource=nodes/proxy")?;
    kubectl.ok("create clusterrolebinding scraper --clusterrole=scraper --serviceaccount=default:viewer")?;
    kubectl.ok(&format!("get --raw {path} {viewer}"))?;
    let none = kubectl.run("get --raw /api/v1/nodes/nowhere/proxy/metrics")?;
    ensure!(none.stderr.contains("nodes \"nowhere\" not found"), "{}", none.stderr);
    Ok(())
}

fn server(kubectl: &Kubectl) -> Result<()> {
    let metrics = parsed(kubectl, "/metrics")?;
    let get = [("verb", "GET"), ("resource", "pods"), ("code", "200"), ("group", "metrics.k8s.io")];
    ensure!(one(&metrics, "apiserver_request_total", &get)? >= 1.0, "no request was counted");
    let sum: f64 = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("apiserver_request_duration_seconds_count{"))
        .map(|(_, count)| count)
        .sum();
    ensure!(sum > 100.0, "{sum} requests were timed");
    let watches = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("apiserver_longrunning_requests{") && name.contains("verb=\"WATCH\""))
        .map(|(_, count)| count)
        .sum::<f64>();
    ensure!(watches >= 3.0, "{watches} watches");
    ensure!(one(&metrics, "apiserver_storage_objects", &[("resource", "pods")])? == 4.0, "not four Pods");
    ensure!(
        one(&metrics, "apiserver_current_inflight_requests", &[("request_kind", "readOnly")])? >= 1.0,
        "not even this one"
    );
    ensure!(one(&metrics, "process_open_fds", &[])? > 1.0, "no process");
    parsed(kubectl, "/metrics/slis")?;
    let nobody = kubectl.run("get --raw /metrics --as=jane")?;
    ensure!(nobody.stderr.contains("forbidden"), "{}", nobody.stderr);
    Ok(())
}
