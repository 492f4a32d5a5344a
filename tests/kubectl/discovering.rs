//! What kubectl asks the server about itself.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::scene::{Scene, row};

/// Discovery, documentation, versions, identity.
pub(crate) fn everything(s: &Scene) -> Result<()> {
    let table = s.kubectl.ok("api-resources -o wide")?;
    ensure!(row(&table, "deployments")?[1..5] == ["deploy", "apps/v1", "true", "Deployment"], "{table}");
    ensure!(row(&table, "nodes")?[1..5] == ["no", "v1", "false", "Node"], "{table}");
    ensure!(
        row(&table, "pods")?[5] == "create,delete,deletecollection,get,list,patch,update,watch"
            && row(&table, "pods")?[6] == "all",
        "{table}"
    );
    s.prints(
        "api-resources --api-group=apps -o name --sort-by=name",
        "controllerrevisions.apps\ndaemonsets.apps\ndeployments.apps\nreplicasets.apps\nstatefulsets.apps\n",
    )?;
    let namespaced = s.kubectl.ok("api-resources --namespaced=true --verbs=list -o name")?;
    ensure!(
        namespaced.lines().any(|name| name == "pods")
            && !namespaced.lines().any(|name| name == "nodes" || name == "bindings"),
        "{namespaced}"
    );
    let versions = s.kubectl.ok("api-versions")?;
    for version in [
        "v1",
        "apps/v1",
        "batch/v1",
        "autoscaling/v1",
        "autoscaling/v2",
        "networking.k8s.io/v1",
        "policy/v1",
        "rbac.authorization.k8s.io/v1",
    ] {
        ensure!(versions.lines().any(|line| line == version), "{version} is not in {versions}");
    }
    s.says("cluster-info", &["Kubernetes control plane", "is running at", "https://127.0.0.1:"])?;
    let version: Value = s.kubectl.json("version")?;
    ensure!(version["serverVersion"]["minor"] == "36", "{version}");
    let node = s.kubectl.ok("get nodes -o jsonpath={.items[0].status.nodeInfo.kubeletVersion}")?;
    ensure!(version["serverVersion"]["gitVersion"] == node, "{version} {node}");

    s.says("explain pods", &["KIND:       Pod\nVERSION:    v1\n", "FIELDS:\n", "spec\t<PodSpec>"])?;
    s.says("explain deployments.spec.strategy", &["GROUP:      apps\n", "rollingUpdate\t<RollingUpdateDeployment>"])?;
    s.says("explain pod.spec.containers.image", &["FIELD: image <string>", "Container image name."])?;
    s.says("explain hpa.spec --api-version=autoscaling/v2", &["VERSION:    v2", "metrics\t<[]MetricSpec>"])?;
    s.says("explain svc --recursive", &["    clusterIP\t<string>", "      targetPort\t<IntOrString>"])?;
    s.says("explain cm --output=plaintext-openapiv2", &["KIND:     ConfigMap", "binaryData", "immutable"])?;
    explain_all(s)?;
    s.refuses("explain pods.spec.nothing", &["field \"nothing\" does not exist"])?;
    s.refuses("explain nothing", &["the server doesn't have a resource type \"nothing\""])?;

    s.prints("auth can-i create pods", "yes\n")?;
    s.refuses("auth can-i create pods --as nobody", &["no"])?;
    s.says("auth can-i --list", &["*.*", "[*]"])?;
    s.says("auth whoami", &["kubernetes-admin", "system:masters"])?;
    s.refuses("get pods --as nobody", &["Error from server (Forbidden): pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace"])?;
    s.says("config view", &["certificate-authority-data: DATA+OMITTED", "current-context:"])?;
    s.refuses("certificate approve none", &["certificatesigningrequests.certificates.k8s.io \"none\" not found"])?;
    s.prints("get --raw /healthz", "ok")?;
    s.says("get --raw /readyz?verbose", &["[+]ping ok", "readyz check passed"])?;
    s.refuses("get --raw /nothing", &["(NotFound)", "the server could not find the requested resource"])?;
    s.refuses("get nothing", &["the server doesn't have a resource type \"nothing\""])
}

/// Every kind is documented to the last field.
fn explain_all(s: &Scene) -> Result<()> {
    let table = s.kubectl.ok("api-resources --no-headers")?;
    // The end of a line is APIVERSION NAMESPACED KIND; short names are not always there.
    let kinds: BTreeSet<(String, String, String)> = table
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [.., version, _, kind] = words.as_slice() else { return None };
            Some(((*version).to_owned(), words[0].to_owned(), (*kind).to_owned()))
        })
        .collect();
    ensure!(kinds.len() > 50, "{table}");
    for (version, plural, kind) in &kinds {
        let text = s.kubectl.ok(&format!("explain --recursive --api-version={version} {plural}"))?;
        ensure!(text.contains(&format!("KIND:       {kind}\n")) && text.contains("\nFIELDS:\n"), "{plural}: {text}");
        ensure!(text.contains("metadata\t<ObjectMeta>"), "{plural}: {text}");
        ensure!(!text.contains("<empty>"), "{plural} has no description: {text}");
    }
    s.says("explain pods.spec.containers.ports.protocol", &["ENUM:", "SCTP"])?;
    Ok(())
}
