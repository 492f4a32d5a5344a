//! One manifest as a Pod of this node.

use std::io::Read as _;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use wherry_api::decode::{ContentType, FieldValidation, decode_as};
use wherry_api::facts::Schema;
use wherry_api::strategy::strategy;
use wherry_api::{meta, mirror};

/// The longest manifest, in bytes (kubelet's figure).
const LIMIT: u64 = 10 << 20;

/// Reads, completes and checks it as the API server would, and makes it this node's.
///
/// # Errors
/// What is wrong with it.
pub(super) fn pod(path: &Path, node: &str) -> Result<Pod, String> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(LIMIT + 1).read_to_end(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > LIMIT {
        return Err(format!("it is longer than {LIMIT} bytes"));
    }
    parse(&text, path, node)
}

fn parse(text: &[u8], path: &Path, node: &str) -> Result<Pod, String> {
    let schema = Schema::builtin("v1", "Pod").ok_or("Pods are not known")?;
    let decoded =
        decode_as(text, ContentType::Yaml, &schema, FieldValidation::Warn).map_err(|status| status.message)?;
    for warning in decoded.warnings {
        tracing::warn!(file = %path.display(), warning, "a manifest has what is not known");
    }
    let mut pod = decoded.object;
    if meta::name(&pod).is_empty() {
        return Err("invalid pod: name is needed for the pod".to_owned());
    }
    if let Some(what) = mirror::referred(&pod["spec"]) {
        return Err(format!("static pods may not reference {what}"));
    }
    settle(&mut pod, path, node);
    let strategy = strategy("", "Pod");
    strategy.default(&mut pod);
    let errors = strategy.validate(&pod);
    if !errors.is_empty() {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(format!("invalid pod: [{}]", errors.join(", ")));
    }
    serde_json::from_value(pod).map_err(|error| error.to_string())
}

/// What makes it a Pod of this node.
fn settle(pod: &mut Value, path: &Path, node: &str) {
    if meta::uid(pod).is_empty() {
        let told = format!("{pod}host:{node}file:{}", path.display());
        let hash: String = Sha256::digest(told).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        meta::set(pod, "uid", &hash);
    }
    let (uid, name) = (meta::uid(pod).to_owned(), format!("{}-{}", meta::name(pod), node.to_lowercase()));
    meta::set(pod, "name", &name);
    if meta::namespace(pod).is_empty() {
        meta::set(pod, "namespace", "default");
    }
    let seen = Timestamp::now().to_string();
    for (key, value) in [(mirror::HASH, uid), (mirror::SOURCE, "file".to_owned()), (mirror::SEEN, seen)] {
        pod["metadata"]["annotations"][key] = value.into();
    }
    pod["spec"]["nodeName"] = node.into();
    // What befalls the node does not make it leave.
    let stays = json!({ "operator": "Exists", "effect": "NoExecute" });
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(known) if known.contains(&stays) => {}
        Some(known) => known.push(stays),
        None => pod["spec"]["tolerations"] = json!([stays]),
    }
    pod["status"] = json!({ "phase": "Pending" });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Pod, String> {
        parse(text.as_bytes(), Path::new("/m/web.yaml"), "node-1")
    }

    #[test]
    fn a_manifest_is_completed_and_is_this_node_s() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, annotations: {a: b}}\nspec: {containers: [{name: c, image: i}]}\n";
        let pod = of(text).unwrap();
        let (meta, spec) = (&pod.metadata, pod.spec.as_ref().unwrap());
        assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("web-node-1"), Some("default")));
        let uid = meta.uid.clone().unwrap();
        assert_eq!(uid.len(), 32);
        let annotations = meta.annotations.as_ref().unwrap();
        for (key, value) in [(mirror::HASH, &*uid), (mirror::SOURCE, "file"), ("a", "b")] {
            assert_eq!(annotations[key], value);
        }
        assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref()), (Some("node-1"), Some("Always")));
        assert_eq!(spec.tolerations.as_ref().unwrap()[0].effect.as_deref(), Some("NoExecute"));
        // The same is the same, in JSON as well; another is another.
        assert_eq!(of(text).unwrap().metadata.uid.unwrap(), uid);
        assert_ne!(of(&text.replace("image: i", "image: j")).unwrap().metadata.uid.unwrap(), uid);
        let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;
        assert_eq!(of(json).unwrap().metadata.name.unwrap(), "web-node-1");
    }

    #[test]
    fn what_is_wrong_is_told() {
        let with = |spec: &str| of(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{{spec}}}\n"));
        let told = |spec: &str| with(spec).unwrap_err();
        assert!(
            told("containers: []").starts_with("invalid pod: [spec.containers: Required value"),
            "{}",
            told("containers: []")
        );
        let container = "containers: [{name: c, image: i, envFrom: [{secretRef: {name: s}}]}]";
        assert_eq!(told(container), "static pods may not reference secrets");
        assert_eq!(
            told("serviceAccountName: a, containers: [{name: c, image: i}]"),
            "static pods may not reference serviceaccounts"
        );
        assert!(of("apiVersion: v1\nkind: Service\nmetadata: {name: web}\n").is_err());
        assert!(of("kind: [").is_err());
    }
}
