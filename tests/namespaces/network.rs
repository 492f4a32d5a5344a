//! Pods in the node's network, and ports of the node that lead to Pods.

use anyhow::ensure;
use serde_json::{Value, json};
use wherry_test::{Kubectl, get, is_root};

use super::{CONTAINER, WASM, apply, cluster, ready};

/// What a Pod answers through a NodePort Service.
fn ask(cluster: &wherry_test::Cluster, kubectl: &Kubectl, pod: &str, port: u16, path: &str) -> anyhow::Result<String> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": pod },
        "spec": { "type": "NodePort", "selector": { "app": pod }, "ports": [{ "port": 80, "targetPort": port }] },
    });
    kubectl.apply(&service.to_string())?;
    let address = cluster.url(pod)?;
    let deadline = std::time::Instant::now() + wherry_test::PATIENCE;
    loop {
        match get(&address, path) {
            Ok(answer) if answer.status == 200 => return Ok(answer.body),
            other if std::time::Instant::now() > deadline => anyhow::bail!("{path}: {other:?}"),
            _ => std::thread::yield_now(),
        }
    }
}

fn echo(image: &str, port: u16, more: Value) -> Value {
    let mut ports = json!({ "containerPort": port });
    if let (Some(ports), Value::Object(more)) = (ports.as_object_mut(), more) {
        ports.extend(more);
    }
    let name = json!({ "fieldRef": { "fieldPath": "metadata.name" } });
    let env = json!([{ "name": "PORT", "value": port.to_string() }, { "name": "POD_NAME", "valueFrom": name }]);
    json!([{ "name": "c", "image": image, "env": env, "ports": [ports] }])
}

#[test]
fn the_nodes_network_and_its_ports_are_had_by_both_kinds() -> anyhow::Result<()> {
    if !is_root("containers and namespaces") {
        return Ok(());
    }
    let cluster = cluster()?;
    let kubectl = cluster.kubectl();
    let node = kubectl.json("get node wherry-0")?;
    let node_ip = node["status"]["addresses"].as_array().unwrap()[0]["address"].clone();
    let kinds = [("wasm", WASM, 8901), ("container", CONTAINER, 8902)];
    for (name, image, port) in kinds {
        apply(&kubectl, name, json!({ "hostNetwork": true, "containers": echo(image, port, json!({})) }))?;
        let pod = ready(&kubectl, name)?;
        ensure!(pod["status"]["podIP"] == node_ip && pod["status"]["hostIP"] == node_ip, "{}", pod["status"]);
        ensure!(pod["spec"]["containers"][0]["ports"][0]["hostPort"] == port, "{}", pod["spec"]);
        ensure!(!ask(&cluster, &kubectl, name, port, "/")?.is_empty());
    }
    ensure!(ask(&cluster, &kubectl, "container", 8902, "/env?name=HOSTNAME")?.trim() == "wherry-0");
    let hosts = ask(&cluster, &kubectl, "container", 8902, "/read?path=/etc/hosts")?;
    ensure!(hosts.starts_with("# Kubernetes-managed hosts file (host network)."), "{hosts}");
    for (name, image, port) in kinds {
        let other = format!("{name}-port");
        let host_port = port + 100;
        apply(&kubectl, &other, json!({ "containers": echo(image, 8080, json!({ "hostPort": host_port })) }))?;
        ready(&kubectl, &other)?;
        // From the node's network, of which each kind has a Pod.
        for (from, _, at) in kinds {
            for target in ["127.0.0.1", node_ip.as_str().unwrap_or_default()] {
                let told = ask(&cluster, &kubectl, from, at, &format!("/fetch?authority={target}:{host_port}&path="))?;
                ensure!(told.contains(&other), "{from} asked {target} for {other}: {told}");
            }
        }
    }
    // The node's address is its neighbour's too, which goes on when it goes.
    kubectl.ok("delete pod wasm")?;
    ensure!(!ask(&cluster, &kubectl, "container", 8902, "/")?.is_empty());
    Ok(())
}
