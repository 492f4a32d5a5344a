//! A StatefulSet: Pods that are found by their own names, canaries, going back, order.
#![allow(clippy::unwrap_used, reason = "tests")]

use wherry_test::{Cluster, is_root};

use crate::setting::{KINDS, LONG, cluster, rolled_out, template};

#[test]
fn stateful_sets_keep_their_names() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    for (name, image) in KINDS {
        cluster.kubectl().apply(&format!(
            "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: None, selector: {{app: {name}}}, ports: [{{port: 8080}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  replicas: 3
  serviceName: {name}
{}",
            template(name, image)
        ))?;
        rolled_out(&cluster, &format!("statefulset/{name}"))?;
        names_outlive_pods(&cluster, name)?;
        canaries_and_going_back(&cluster, name)?;
        scaling_takes_the_last(&cluster, name)?;
        cluster.kubectl().ok(&format!("delete statefulset {name} --cascade=foreground"))?;
        assert_eq!(cluster.kubectl().ok(&format!("get pods,controllerrevisions -l app={name} -o name"))?, "");
        claims_outlive_pods(&cluster, &format!("{name}-kept"), image)?;
    }
    Ok(())
}

/// Claims of the default class: they are bound, found again, and go as the policy says.
fn claims_outlive_pods(cluster: &Cluster, name: &str, image: &str) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let mounted = template(name, image)
        .replace("          ports:", "          volumeMounts: [{name: data, mountPath: /data}]\n          ports:");
    kubectl.apply(&format!(
        "apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}}}
spec:
  replicas: 2
  serviceName: {name}
  podManagementPolicy: Parallel
  persistentVolumeClaimRetentionPolicy: {{whenDeleted: Delete, whenScaled: Retain}}
  volumeClaimTemplates:
    - metadata: {{name: data}}
      spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
{mounted}"
    ))?;
    rolled_out(cluster, &format!("statefulset/{name}"))?;
    let volume =
        |n: u32| kubectl.ok(&format!("get pvc data-{name}-{n} -o jsonpath={{.status.phase}}/{{.spec.volumeName}}"));
    let before = (volume(0)?, volume(1)?);
    assert!(before.0.starts_with("Bound/") && before.1.starts_with("Bound/") && before.0 != before.1, "{before:?}");
    kubectl.ok(&format!("scale statefulset {name} --replicas=1"))?;
    kubectl.wait(&format!("--for=delete pod/{name}-1"), LONG)?;
    kubectl.ok(&format!("scale statefulset {name} --replicas=2"))?;
    rolled_out(cluster, &format!("statefulset/{name}"))?;
    assert_eq!((volume(0)?, volume(1)?), before, "what they had before");
    kubectl.ok(&format!("delete statefulset {name}"))?;
    kubectl.wait(&format!("--for=delete pvc -l app={name}"), LONG)
}

fn words(cluster: &Cluster, name: &str, path: &str) -> anyhow::Result<Vec<String>> {
    // In the order of their names, and so of their ordinals.
    let text = cluster.kubectl().ok(&format!("get pods -l app={name} --sort-by=.metadata.name -o jsonpath={path}"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn names_outlive_pods(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let all: Vec<String> = (0..3).map(|n| format!("{name}-{n}")).collect();
    assert_eq!(words(cluster, name, "{.items[*].metadata.name}")?, all);
    assert_eq!(words(cluster, name, "{.items[*].spec.hostname}")?, all);
    let created = words(cluster, name, "{.items[*].metadata.creationTimestamp}")?;
    assert!(created.is_sorted(), "one after the other: {created:?}");
    let uid = kubectl.ok(&format!("get pod {name}-1 -o jsonpath={{.metadata.uid}}"))?;
    kubectl.ok(&format!("delete pod {name}-1"))?;
    rolled_out(cluster, &format!("statefulset/{name}"))?;
    kubectl.wait(&format!("--for=condition=Ready pod/{name}-1"), LONG)?;
    assert_ne!(kubectl.ok(&format!("get pod {name}-1 -o jsonpath={{.metadata.uid}}"))?, uid);
    Ok(())
}

const COLORS: &str = "{.items[*].spec.containers[0].env[?(@.name==\"COLOR\")].value}";

fn canaries_and_going_back(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let (kubectl, set) = (cluster.kubectl(), format!("statefulset/{name}"));
    let partition = |n: u32| format!(r#"{{"spec":{{"updateStrategy":{{"rollingUpdate":{{"partition":{n}}}}}}}}}"#);
    assert!(kubectl.arguments(&["patch", &set, "-p", &partition(2)], "")?.success);
    kubectl.ok(&format!("set env {set} COLOR=blue"))?;
    rolled_out(cluster, &set)?;
    assert_eq!(words(cluster, name, COLORS)?, ["blue"], "the last one only");
    assert!(kubectl.arguments(&["patch", &set, "-p", &partition(0)], "")?.success);
    rolled_out(cluster, &set)?;
    assert_eq!(words(cluster, name, COLORS)?, ["blue"; 3]);
    let created = words(cluster, name, "{.items[*].metadata.creationTimestamp}")?;
    assert!(created.iter().rev().is_sorted(), "from the last to the first: {created:?}");
    kubectl.ok(&format!("rollout undo {set}"))?;
    rolled_out(cluster, &set)?;
    assert_eq!(words(cluster, name, COLORS)?, [""; 0]);
    Ok(())
}

fn scaling_takes_the_last(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok(&format!("scale statefulset {name} --replicas=1"))?;
    kubectl.wait(&format!("--for=delete pod/{name}-1 pod/{name}-2"), LONG)?;
    kubectl.wait(&format!("--for=jsonpath={{.status.replicas}}=1 statefulset/{name}"), LONG)?;
    assert_eq!(words(cluster, name, "{.items[*].metadata.name}")?, [format!("{name}-0")]);
    Ok(())
}
