//! Three nodes: Pods of both kinds reach each other and their Services from everywhere, names are found, and Pods are placed
//! where they may be.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io::ErrorKind;

use wherry_test::{Cluster, get, image_of, is_root, request, sample, until};

use crate::netns::{self, inside};
use crate::setting::{CONTAINER, LONG, WASM, cluster, cluster_address, deployment, rolled_out, service, words};

const NODES: [&str; 3] = ["wherry-0", "wherry-1", "wherry-2"];
/// One Pod a node, by anti-affinity to its like.
const APART: &str = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: NAME}}}]}}";
const TOOLS: &str = "samples.wherry.dev/tools:1";

#[test]
fn three_nodes_are_one_network() -> anyhow::Result<()> {
    if !is_root("several nodes") {
        return Ok(());
    }
    let cluster = cluster(3)?;
    cluster.load(
        &image_of("tools", "/bin/busybox", &[("/bin/busybox", "/usr/bin/busybox"), ("/bin/curl", "/usr/bin/curl")])?,
        TOOLS,
    )?;
    for (name, image) in [("native", CONTAINER), ("component", WASM)] {
        let apart = APART.replace("NAME", name);
        cluster.kubectl().apply(&(deployment(name, image, 3, &[&apart]) + &service(name) + &headless(name)))?;
    }
    for name in ["native", "component"] {
        rolled_out(&cluster, name)?;
        assert_eq!(words(&cluster, &format!("pods -l app={name}"), "{.items[*].spec.nodeName}")?, NODES, "{name}");
    }
    every_node_reaches_all(&cluster)?;
    containers_reach_all_by_name(&cluster)?;
    a_component_finds_redis_wherever_it_is(&cluster)?;
    without_endpoints_connections_are_refused(&cluster)?;
    pods_are_placed_where_they_may_be(&cluster)
}

fn headless(name: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}-pods}}
spec: {{clusterIP: None, selector: {{app: {name}}}, ports: [{{name: http, port: 8080}}]}}
"
    )
}

fn pod_ips(cluster: &Cluster, name: &str) -> anyhow::Result<Vec<String>> {
    words(cluster, &format!("pods -l app={name}"), "{.items[*].status.podIP}")
}

/// By Pod IP, by ClusterIP, by every node's NodePort; the Service leads to every Pod.
fn every_node_reaches_all(cluster: &Cluster) -> anyhow::Result<()> {
    let node_ips = words(cluster, "nodes", "{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}")?;
    assert_eq!(node_ips.len(), 3);
    for name in ["native", "component"] {
        let port = cluster.url(name)?.rsplit_once(':').unwrap().1.to_owned();
        let service = cluster_address(cluster, name)?;
        let pods = pod_ips(cluster, name)?;
        let mut addresses: Vec<_> = pods.iter().map(|ip| format!("{ip}:8080")).collect();
        addresses.extend(node_ips.iter().map(|ip| format!("{ip}:{port}")));
        for node in NODES {
            inside(&netns::node(cluster, node), || {
                for address in &addresses {
                    let answer = get(address, "/")
                        .map_err(|error| anyhow::anyhow!("{name} at {address} from {node}: {error}"))?;
                    assert_eq!(answer.status, 200, "{name} at {address} from {node}");
                }
                let mut answered = BTreeSet::new();
                for _ in 0..300 {
                    answered.insert(get(&service, "/")?.body);
                    if answered.len() == 3 {
                        return Ok(());
                    }
                }
                anyhow::bail!("from {node} the Service {name} led to {answered:?} alone")
            })?;
        }
        let outside = get(&cluster.url(name)?, "/")?;
        assert_eq!(outside.status, 200);
    }
    Ok(())
}

/// Runs a busybox on a node to its end; its output.
fn tool(cluster: &Cluster, name: &str, node: &str, script: &str) -> anyhow::Result<String> {
    let manifest = format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, nodeName: {node}, containers: [{{name: tool, image: \"{TOOLS}\", imagePullPolicy: IfNotPresent, args: [sh, -c, {}]}}]}}}}",
        serde_json::Value::from(script)
    );
    let kubectl = cluster.kubectl();
    kubectl.apply(&manifest)?;
    let waited = kubectl.wait(&format!("--for=jsonpath={{.status.phase}}=Succeeded pod/{name}"), LONG);
    let output = kubectl.ok(&format!("logs {name}"))?;
    waited.map_err(|error| error.context(output.clone()))?;
    kubectl.ok(&format!("delete pod {name} --wait=false"))?;
    Ok(output)
}

/// From a container on each node: A and SRV records, headless Services, Services of both kinds, other nodes' Pods.
fn containers_reach_all_by_name(cluster: &Cluster) -> anyhow::Result<()> {
    let api = cluster.kubectl().ok("get service kubernetes -o jsonpath={.spec.clusterIP}")?;
    for node in NODES {
        let mut script =
            "set -e; b=/bin/busybox; page() { /bin/curl -sS --fail --max-time 10 http://$1/; }\n".to_owned();
        script += "$b nslookup -type=a kubernetes.default.svc.cluster.local\n";
        for name in ["native", "component"] {
            // Short names by the search path; the full name for what asks for records.
            script += &format!("for n in 1 2 3; do page {name}; done\n");
            script += &format!("page {name}.default.svc\n");
            script += &format!("$b nslookup -type=a {name}-pods.default.svc.cluster.local\n");
            script += &format!("$b nslookup -type=srv _http._tcp.{name}-pods.default.svc.cluster.local\n");
            script += &format!("$b nslookup -type=srv _http._tcp.{name}.default.svc.cluster.local\n");
            for ip in pod_ips(cluster, name)? {
                script += &format!("page {ip}:8080\n");
            }
        }
        let output = tool(cluster, &format!("tool-{node}"), node, &script)?;
        assert!(output.contains(&api), "{output}");
        for name in ["native", "component"] {
            for ip in pod_ips(cluster, name)? {
                assert!(
                    output.contains(&format!("Address: {ip}")),
                    "{ip} is no A record of {name}-pods on {node}:\n{output}"
                );
            }
            assert!(output.contains(&format!("{name}.default.svc.cluster.local\tservice = ")), "{output}");
            let service = output
                .lines()
                .filter(|line| line.contains(&format!("_http._tcp.{name}-pods")) && line.contains(" 8080 "));
            assert_eq!(service.count(), 3, "{output}");
        }
        assert_eq!(output.lines().filter(|line| line.ends_with(" wasm")).count(), 7, "{output}");
        assert_eq!(output.lines().filter(|line| line.ends_with(" container")).count(), 7, "{output}");
    }
    Ok(())
}

/// The guestbook: components on any node, redis in a container that moves to another.
fn a_component_finds_redis_wherever_it_is(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    cluster.load(&sample("guestbook"), "samples.wherry.dev/guestbook:1")?;
    cluster.load(
        &image_of("redis", "/usr/bin/redis-server", &[("/usr/bin/redis-server", "/usr/bin/redis-server")])?,
        "samples.wherry.dev/redis:1",
    )?;
    kubectl.apply(&std::fs::read_to_string(wherry_test::root().join("samples/guestbook/manifest.yaml"))?)?;
    rolled_out(cluster, "redis")?;
    rolled_out(cluster, "guestbook")?;
    let address = cluster.url("guestbook")?;
    for n in 0..10 {
        let written = request("POST", &address, "/", &format!("line {n}"))?;
        assert_eq!((written.status, written.body.as_str()), (201, "written\n"));
    }
    assert_eq!(get(&address, "/")?.body.lines().count(), 10);

    let place = kubectl.ok("get pods -l app=redis -o jsonpath={.items[0].spec.nodeName}")?;
    kubectl.ok(&format!("cordon {place}"))?;
    kubectl.ok("delete pods -l app=redis")?;
    rolled_out(cluster, "redis")?;
    let moved = kubectl.ok("get pods -l app=redis -o jsonpath={.items[0].spec.nodeName}")?;
    assert_ne!(moved, place);
    kubectl.ok(&format!("uncordon {place}"))?;
    // The rollout is done when the Pod is Ready; its endpoints follow.
    let ip = kubectl.ok("get pods -l app=redis -o jsonpath={.items[0].status.podIP}")?;
    kubectl.wait(&format!("--for=jsonpath={{.subsets[0].addresses[0].ip}}={ip} endpoints/redis"), LONG)?;
    for n in 0..10 {
        let written = request("POST", &address, "/", &format!("line {n}"))?;
        assert_eq!((written.status, written.body.as_str()), (201, "written\n"));
    }
    assert_eq!(get(&address, "/")?.body.lines().count(), 10, "redis keeps nothing");
    kubectl.ok("delete deployment,service redis guestbook").map(drop)
}

fn without_endpoints_connections_are_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    for name in ["native", "component"] {
        let outside = cluster.url(name)?;
        let service = cluster_address(cluster, name)?;
        kubectl.ok(&format!("scale deployment/{name} --replicas=0"))?;
        kubectl.wait(&format!("--for=delete pods -l app={name}"), LONG)?;
        cluster.without_endpoints(name)?;
        for node in NODES {
            inside(&netns::node(cluster, node), || {
                let refused = get(&service, "/").unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{name} from {node}: {refused}");
                Ok(())
            })?;
        }
        refused_in_the_end(&outside)?;
        kubectl.ok(&format!("scale deployment/{name} --replicas=3"))?;
        rolled_out(cluster, name)?;
    }
    Ok(())
}

/// The port on this machine's loopback closes when its publisher has seen the rules that the node follows already. Nothing tells
/// when; whoever comes in between is let in and then led nowhere, but never answered.
fn refused_in_the_end(address: &str) -> anyhow::Result<()> {
    until(LONG, || {
        let error = get(address, "/").unwrap_err();
        let refused = error.kind() == ErrorKind::ConnectionRefused;
        Ok(if refused { Ok(()) } else { Err(format!("{address} is still open: {error}")) })
    })
}

fn bare_pod(name: &str, image: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, labels: {{app: {name}}}}}, spec: {{{spec}, containers: [{{name: echo, image: \"{image}\", imagePullPolicy: IfNotPresent}}]}}}}\n"
    )
}

/// Waits until the Pod cannot be scheduled; its condition says the same as its event.
fn unschedulable(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let kubectl = cluster.kubectl();
    let condition = "{.status.conditions[?(@.type==\"PodScheduled\")].reason}";
    kubectl.wait(&format!("--for=jsonpath={condition}=Unschedulable pod/{name}"), LONG)?;
    let message = kubectl
        .ok(&format!("get pod {name} -o jsonpath={{.status.conditions[?(@.type==\"PodScheduled\")].message}}"))?;
    kubectl.wait(
        &format!("--for=create event --field-selector=involvedObject.name={name},reason=FailedScheduling"),
        LONG,
    )?;
    let described = kubectl.ok(&format!("describe pod {name}"))?;
    assert!(described.contains("FailedScheduling") && described.contains(&message), "{message}\n{described}");
    Ok(message)
}

fn runs(cluster: &Cluster, name: &str) -> anyhow::Result<String> {
    let kubectl = cluster.kubectl();
    kubectl.wait(&format!("--for=condition=Ready pod/{name}"), LONG)?;
    kubectl.ok(&format!("get pod {name} -o jsonpath={{.spec.nodeName}}"))
}

fn pods_are_placed_where_they_may_be(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    // Anti-affinity: there is no fourth node.
    kubectl.ok("scale deployment/native --replicas=4")?;
    kubectl.wait("--for=jsonpath={.status.unavailableReplicas}=1 deployment/native", LONG)?;
    kubectl.wait("--for=jsonpath={.status.updatedReplicas}=4 deployment/native", LONG)?;
    let fourth =
        kubectl.ok("get pods -l app=native --field-selector=spec.nodeName= -o jsonpath={.items[*].metadata.name}")?;
    let message = unschedulable(cluster, &fourth)?;
    assert!(
        message.starts_with("0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules"),
        "{message}"
    );
    kubectl.ok("scale deployment/native --replicas=3")?;

    // nodeSelector: the label comes later.
    for (name, image) in [("picky-wasm", WASM), ("picky-container", CONTAINER)] {
        kubectl.apply(&bare_pod(name, image, "nodeSelector: {disk: fast}"))?;
        let message = unschedulable(cluster, name)?;
        assert!(
            message.starts_with("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector"),
            "{message}"
        );
    }
    kubectl.ok("label node wherry-1 disk=fast")?;
    for name in ["picky-wasm", "picky-container"] {
        assert_eq!(runs(cluster, name)?, "wherry-1");
    }

    // More than a node has.
    let huge = bare_pod("huge", WASM, "priority: 0")
        .replace("imagePullPolicy", "resources: {requests: {cpu: 100k}}, imagePullPolicy")
        .replace("priority: 0, ", "");
    kubectl.apply(&huge)?;
    assert!(unschedulable(cluster, "huge")?.contains("Insufficient cpu"));
    kubectl.ok("delete pod huge")?;

    // Taints: NoSchedule keeps away, NoExecute drives out, a toleration lets in.
    kubectl.ok("taint node wherry-0 wherry-2 team=red:NoSchedule")?;
    kubectl.ok("cordon wherry-1")?;
    kubectl.apply(&bare_pod("homeless", WASM, "terminationGracePeriodSeconds: 5"))?;
    let message = unschedulable(cluster, "homeless")?;
    assert!(
        message.contains("1 node(s) were unschedulable") && message.contains("2 node(s) had untolerated taint"),
        "{message}"
    );
    kubectl.apply(&bare_pod("tolerant", CONTAINER, "tolerations: [{key: team, operator: Exists}]"))?;
    assert_ne!(runs(cluster, "tolerant")?, "wherry-1");
    kubectl.ok("uncordon wherry-1")?;
    assert_eq!(runs(cluster, "homeless")?, "wherry-1");
    kubectl.ok("taint node wherry-1 team=blue:NoExecute")?;
    kubectl.wait("--for=delete pod/homeless pod/picky-wasm pod/picky-container", LONG)?;
    kubectl.ok("taint node wherry-0 wherry-1 wherry-2 team-")?;
    rolled_out(cluster, "native")?;
    rolled_out(cluster, "component")
}
