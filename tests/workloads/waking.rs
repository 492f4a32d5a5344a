//! HorizontalPodAutoscalers on what comes to Services: up under load, down to no Pod at all without, and back for the next request.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wherry_test::{Cluster, get, is_root, patient_get};

use crate::setting::{KINDS, LONG, WASM, cluster, deployment, rolled_out};

/// As long as the node holds a connection.
const PATIENCE: Duration = Duration::from_secs(120);

/// Requests of what runs in the agent's process; of a program, whose requests nobody sees, connections through its Service.
fn metric(name: &str, image: &str) -> String {
    let target = "target: {type: AverageValue, averageValue: 1}";
    if image == WASM {
        format!("{{type: Pods, pods: {{metric: {{name: http_requests_per_second}}, {target}}}}}")
    } else {
        let service = format!("describedObject: {{apiVersion: v1, kind: Service, name: {name}}}");
        format!("{{type: Object, object: {{metric: {{name: connections_per_second}}, {service}, {target}}}}}")
    }
}

fn manifests(name: &str, image: &str) -> String {
    format!(
        "{deployment}apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{type: NodePort, selector: {{app: {name}}}, ports: [{{port: 80, targetPort: http}}]}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: {name}}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: 0
  maxReplicas: 3
  metrics: [{metric}]
  behavior: {{scaleDown: {{stabilizationWindowSeconds: 0}}}}
",
        deployment = deployment(name, image),
        metric = metric(name, image),
    )
}

/// Asks each address again and again until `done`.
fn load(addresses: &[String], done: &AtomicBool) {
    std::thread::scope(|threads| {
        for address in addresses {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // What is refused while Pods come and go is none of this test.
                    drop(get(address, "/"));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
    });
}

#[test]
fn pods_come_with_load_go_with_it_and_come_back_for_one_request() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    let kubectl = cluster.kubectl();
    for (name, image) in KINDS {
        kubectl.apply(&manifests(name, image))?;
    }
    for (name, _) in KINDS {
        rolled_out(&cluster, &format!("deployment/{name}"))?;
    }
    let addresses: Vec<String> = KINDS.iter().map(|(name, _)| cluster.url(name)).collect::<Result<_, _>>()?;
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| load(&addresses, &done));
        let seen = grown(&cluster);
        done.store(true, Ordering::Relaxed);
        seen
    })?;
    for (name, _) in KINDS {
        kubectl.wait(&format!("--for=jsonpath={{.spec.replicas}}=0 deployment/{name}"), LONG)?;
        kubectl.wait(&format!("--for=delete pod -l app={name}"), LONG)?;
        // Until its endpoints are gone, too, the Service leads to Pods that are no more.
        cluster.without_endpoints(name)?;
    }
    std::thread::scope(|threads| {
        let asked = addresses.iter().map(|address| threads.spawn(|| patient_get(address, "/", PATIENCE)));
        for (asked, (name, _)) in asked.collect::<Vec<_>>().into_iter().zip(KINDS) {
            let answer = asked.join().unwrap().map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
            assert_eq!(answer.status, 200, "{name}: {}", answer.body);
        }
        anyhow::Ok(())
    })?;
    for (name, _) in KINDS {
        let events = kubectl
            .ok(&format!("get events --field-selector=involvedObject.name={name} -o jsonpath={{.items[*].message}}"))?;
        assert!(events.contains("New size: 0; reason: All metrics below target"), "{events}");
        // The connection is counted, too: a look at the very moment may see that first.
        let why =
            [format!("a connection to Service {name} waits"), "Service metric connections_per_second above".to_owned()];
        assert!(why.iter().any(|why| events.contains(&format!("New size: 1; reason: {why}"))), "{events}");
    }
    Ok(())
}

/// Waits until the load has brought as many Pods as may be, and looks at what is told of it.
fn grown(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    for (name, image) in KINDS {
        kubectl.wait(&format!("--for=jsonpath={{.spec.replicas}}=3 deployment/{name}"), LONG)?;
        kubectl.wait(&format!("--for=condition=ScalingActive hpa/{name}"), LONG)?;
        let row = kubectl.ok(&format!("get hpa {name} --no-headers"))?;
        let targets = if image == WASM { "/1" } else { "/1 (avg)" };
        assert!(row.contains(targets) && !row.contains("unknown"), "{row}");
        let service = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services";
        let told = kubectl.ok(&format!("get --raw {service}/{name}/connections_per_second"))?;
        assert!(told.contains(&format!("\"name\":\"{name}\"")) && !told.contains("\"value\":\"0\""), "{told}");
    }
    Ok(())
}
