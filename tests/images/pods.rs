//! Pods of one container, and what is waited for.

use std::path::Path;

use anyhow::ensure;
use serde_json::json;
use wherry_test::{Child, Cluster, Kubectl, PATIENCE};

/// Applies a Pod with one container.
pub(crate) fn run(kubectl: &Kubectl, name: &str, image: &str, policy: &str) -> anyhow::Result<()> {
    run_with(kubectl, name, image, policy, &[])
}

/// The same with the names of its `imagePullSecrets`.
pub(crate) fn run_with(
    kubectl: &Kubectl,
    name: &str,
    image: &str,
    policy: &str,
    secrets: &[&str],
) -> anyhow::Result<()> {
    let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
    let containers = json!([{"name": "c", "image": image, "imagePullPolicy": policy}]);
    let spec = json!({"containers": containers, "imagePullSecrets": secrets, "terminationGracePeriodSeconds": 1});
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}).to_string())?;
    Ok(())
}

/// Waits until the Pod is Ready; the digest of the image that it runs.
pub(crate) fn ready(kubectl: &Kubectl, name: &str) -> anyhow::Result<String> {
    kubectl.wait(&format!("--for=condition=Ready pod/{name}"), PATIENCE)?;
    let id = kubectl.ok(&format!("get pod {name} -o jsonpath={{.status.containerStatuses[0].imageID}}"))?;
    Ok(digest(&id))
}

/// `sha256:...` at the end of a text.
pub(crate) fn digest(text: &str) -> String {
    text.trim().rsplit_once('@').map(|(_, digest)| digest.to_owned()).unwrap_or_default()
}

/// Waits until the container waits for this reason; the message.
pub(crate) fn waits(kubectl: &Kubectl, name: &str, reason: &str) -> anyhow::Result<String> {
    let waiting = ".status.containerStatuses[0].state.waiting";
    kubectl.wait(&format!("--for=jsonpath={{{waiting}.reason}}={reason} pod/{name}"), PATIENCE)?;
    kubectl.ok(&format!("get pod {name} -o jsonpath={{{waiting}.message}}"))
}

/// Waits for an event of the Pod that says all of this.
pub(crate) fn event(kubectl: &Kubectl, pod: &str, words: &[&str]) -> anyhow::Result<()> {
    let about = format!("--field-selector=involvedObject.name={pod}");
    let mut watch = Child::start("kubectl get events", &mut kubectl.command(["get", "events", "-w", &about]))?;
    watch.wait_for_line(PATIENCE, |line| words.iter().all(|word| line.contains(word)))?;
    Ok(())
}

/// `wherry image push`; the digest that it printed.
pub(crate) fn push(cluster: &Cluster, file: &Path, reference: &str) -> anyhow::Result<String> {
    let file = cluster.within_reach(file)?;
    let output = cluster.wherry(&["image", "push"]).arg(file).arg(reference).output()?;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "image push: {err}");
    ensure!(err.is_empty(), "a bar, though nobody looks: {err:?}");
    let name = reference.rsplit_once(':').map_or(reference, |(name, _)| name);
    ensure!(out.starts_with(&format!("pushed {name}@sha256:")), "{out}");
    Ok(digest(&out))
}
