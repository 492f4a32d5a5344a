//! Mirror Pods: what a node shows of the Pods that it runs by itself, from manifests of its own (static Pods).

use serde_json::Value;

/// The annotation that makes a Pod a mirror Pod; the hash of what it mirrors.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation with the hash of a static Pod's manifest.
pub const HASH: &str = "kubernetes.io/config.hash";
/// The annotation that says where a static Pod's manifest came from: `file`.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// The annotation with the time at which the manifest was read first.
pub const SEEN: &str = "kubernetes.io/config.seen";

/// Volumes that need the API, and what they need of it.
const REFERRING: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];
/// The same of the sources of projected volumes.
const REFERRING_SOURCES: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];

/// The first thing of the API that a Pod refers to. Static Pods refer to nothing: they run without it.
#[must_use]
pub fn referred(spec: &Value) -> Option<&'static str> {
    if spec["serviceAccountName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    let list = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
    let containers = ["initContainers", "containers", "ephemeralContainers"].map(|key| list(&spec[key])).concat();
    let env = |reference: &str, key: &str| {
        containers.iter().any(|container| {
            list(&container["envFrom"]).iter().any(|source| source[reference].is_object())
                || list(&container["env"]).iter().any(|variable| variable["valueFrom"][key].is_object())
        })
    };
    if !list(&spec["imagePullSecrets"]).is_empty() || env("secretRef", "secretKeyRef") {
        return Some("secrets");
    }
    if env("configMapRef", "configMapKeyRef") {
        return Some("configmaps");
    }
    if !list(&spec["resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    let first = |value: &Value, table: &[(&str, &'static str)]| {
        table.iter().find(|(key, _)| value[key].is_object()).map(|(_, what)| *what)
    };
    list(&spec["volumes"]).iter().find_map(|volume| {
        let secret = || {
            let sources = volume.as_object().into_iter().flat_map(|volume| volume.values());
            let named = sources.filter(|source| source["secretRef"].is_object());
            named.map(|_| "secrets").next()
        };
        let sources = || list(&volume["projected"]["sources"]).iter().find_map(|s| first(s, &REFERRING_SOURCES));
        first(volume, &REFERRING).or_else(sources).or_else(secret)
    })
}
