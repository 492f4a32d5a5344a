//! What a deletion takes with it, and what it leaves.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use wherry_test::{Cluster, is_root};

use crate::setting::{CONTAINER, LONG, WASM, cluster, deployment, rolled_out, service, words};

#[test]
fn deletions_leave_nothing_behind() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = cluster(1)?;
    let before = left(&cluster)?;
    for (name, image) in [("native", CONTAINER), ("component", WASM)] {
        dependents_go_in_the_background(&cluster, name, image)?;
        dependents_are_orphaned(&cluster, name, image)?;
        dependents_go_first(&cluster, name, image)?;
    }
    owners_by_reference(&cluster)?;
    a_namespace_goes_with_all_in_it(&cluster)?;
    assert_eq!(left(&cluster)?, before, "namespaces and directories of Pods");
    Ok(())
}

/// What Pods have on the node: directories, network namespaces.
fn left(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    for dir in ["network/pods/wherry-0", "nodes/wherry-0/pods"] {
        left.extend(entries(&cluster.data_dir().join(dir))?);
    }
    Ok(left)
}

fn entries(dir: &Path) -> anyhow::Result<Vec<String>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path().display().to_string())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn start(cluster: &Cluster, name: &str, image: &str) -> anyhow::Result<Vec<String>> {
    cluster.kubectl().apply(&deployment(name, image, 2, &[]))?;
    rolled_out(cluster, name)?;
    words(cluster, &format!("pods -l app={name}"), "{.items[*].metadata.name}")
}

fn dependents_go_in_the_background(cluster: &Cluster, name: &str, image: &str) -> anyhow::Result<()> {
    let pods = start(cluster, name, image)?;
    cluster.kubectl().ok(&format!("delete deployment {name}"))?;
    cluster.kubectl().wait(&format!("--for=delete pod/{}", pods.join(" pod/")), LONG)?;
    cluster.kubectl().wait(&format!("--for=delete replicasets -l app={name}"), LONG)
}

fn dependents_are_orphaned(cluster: &Cluster, name: &str, image: &str) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    let pods = start(cluster, name, image)?;
    let set = kubectl.ok(&format!("get replicasets -l app={name} -o jsonpath={{.items[*].metadata.name}}"))?;
    kubectl.ok(&format!("delete deployment {name} --cascade=orphan"))?;
    assert_eq!(kubectl.ok(&format!("get replicaset {set} -o jsonpath={{.metadata.ownerReferences}}"))?, "");
    kubectl.ok(&format!("delete replicaset {set} --cascade=orphan"))?;
    assert_eq!(words(cluster, &format!("pods -l app={name}"), "{.items[*].metadata.name}")?, pods);
    assert_eq!(words(cluster, &format!("pods -l app={name}"), "{.items[*].metadata.ownerReferences}")?, [""; 0]);
    // A Deployment with their labels takes the orphans in: by way of a ReplicaSet with the same template, not with a new one.
    kubectl.ok(&format!("delete pods -l app={name}")).map(drop)
}

fn dependents_go_first(cluster: &Cluster, name: &str, image: &str) -> anyhow::Result<()> {
    start(cluster, name, image)?;
    cluster.kubectl().ok(&format!("delete deployment {name} --cascade=foreground"))?;
    // The command returns once the Deployment is gone: all that it owned went before.
    let left = cluster.kubectl().ok(&format!("get replicasets,pods -l app={name} -o name"))?;
    assert_eq!(left, "");
    Ok(())
}

/// Objects of kinds that no controller knows: a ConfigMap owned by a ConfigMap, and one whose owner never was.
fn owners_by_reference(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok("create configmap owner")?;
    let uid = kubectl.ok("get configmap owner -o jsonpath={.metadata.uid}")?;
    let owned = |name: &str, owner: &str, uid: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: {owner}, uid: {uid}}}]}}}}\n"
        )
    };
    kubectl
        .apply(&(owned("owned", "owner", &uid) + &owned("lost", "nobody", "6b2e8a7e-0000-4000-8000-000000000000")))?;
    kubectl.wait("--for=delete configmap/lost", LONG)?;
    kubectl.ok("get configmap owned")?;
    kubectl.ok("delete configmap owner")?;
    kubectl.wait("--for=delete configmap/owned", LONG)
}

fn a_namespace_goes_with_all_in_it(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.ok("create namespace brief")?;
    let manifests: String = [("native", CONTAINER), ("component", WASM)]
        .iter()
        .map(|(name, image)| deployment(name, image, 2, &[]) + &service(name))
        .collect();
    kubectl.ok_with("apply -n brief -f -", &manifests)?;
    for name in ["native", "component"] {
        kubectl.ok(&format!("rollout status -n brief --timeout={}s deployment/{name}", LONG.as_secs()))?;
    }
    kubectl.ok("create configmap -n brief kept")?;
    let kept = r#"{"metadata":{"finalizers":["wherry.dev/test"]}}"#;
    assert!(kubectl.arguments(&["patch", "configmap", "-n", "brief", "kept", "-p", kept], "")?.success);
    kubectl.ok("delete namespace brief --wait=false")?;
    // All goes but what has a finalizer, and the Namespace says so.
    let condition = "{.status.conditions[?(@.type==\"NamespaceFinalizersRemaining\")].status}";
    kubectl.wait(&format!("--for=jsonpath={condition}=True namespace/brief"), LONG)?;
    let refused = kubectl.run("create configmap -n brief another")?;
    assert!(!refused.success && refused.stderr.contains("because it is being terminated"), "{refused:?}");
    kubectl.wait("--for=delete -n brief deployments,replicasets,pods,services --all", LONG)?;
    let free = r#"{"metadata":{"finalizers":null}}"#;
    assert!(kubectl.arguments(&["patch", "configmap", "-n", "brief", "kept", "--type=merge", "-p", free], "")?.success);
    kubectl.wait("--for=delete namespace/brief", LONG)
}
