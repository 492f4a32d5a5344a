//! Defaults of Pods and of the Pod templates inside other objects.

use super::*;
use Lit::*;

const POD_SPEC: &[(&str, Lit)] = &[
    ("dnsPolicy", Str("ClusterFirst")),
    ("restartPolicy", Str("Always")),
    ("schedulerName", Str("default-scheduler")),
    ("securityContext", Struct),
    ("terminationGracePeriodSeconds", Int(30)),
];
const CONTAINER: &[(&str, Lit)] = &[
    ("resources", Struct),
    ("terminationMessagePath", Str("/dev/termination-log")),
    ("terminationMessagePolicy", Str("File")),
];
const PROBE: &[(&str, Lit)] = &[
    ("timeoutSeconds", Positive(1)),
    ("periodSeconds", Positive(10)),
    ("successThreshold", Positive(1)),
    ("failureThreshold", Positive(3)),
];
const HTTP_GET: &[(&str, Lit)] = &[("path", Str("/")), ("scheme", Str("HTTP"))];
/// Defaults of the volume sources, by the source's field.
const VOLUMES: &[(&str, &[(&str, Lit)])] = &[
    ("secret", &[("defaultMode", Int(0o644))]),
    ("configMap", &[("defaultMode", Int(0o644))]),
    ("downwardAPI", &[("defaultMode", Int(0o644))]),
    ("projected", &[("defaultMode", Int(0o644))]),
    ("hostPath", &[("type", Text(""))]),
    ("iscsi", &[("iscsiInterface", Str("default"))]),
    ("rbd", &[("pool", Str("rbd")), ("user", Str("admin")), ("keyring", Str("/etc/ceph/keyring"))]),
    (
        "azureDisk",
        &[
            ("cachingMode", Str("ReadWrite")),
            ("kind", Str("Shared")),
            ("fsType", Str("ext4")),
            ("readOnly", Bool(false)),
        ],
    ),
    ("scaleIO", &[("storageMode", Str("ThinProvisioned")), ("fsType", Str("xfs"))]),
];

/// Pod: the spec, and what only Pods, not templates, get.
pub(crate) fn pod(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    pod_spec(spec);
    // Less than no time to end means as little as there is; templates keep what they say.
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
    for list in ["containers", "initContainers"] {
        each(spec, list, |container| {
            if let Some(resources) = child(container, "resources") {
                inherit(resources, "limits", "requests");
            }
        });
    }
    pod_level_requests(spec);
    fill(spec, &[("enableServiceLinks", Bool(true))]);
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        for list in ["containers", "initContainers"] {
            each(spec, list, |container| {
                each(container, "ports", |port| {
                    if port.get("hostPort").and_then(Value::as_i64).unwrap_or(0) == 0
                        && let Some(number) = port.get("containerPort").cloned()
                    {
                        port.insert("hostPort".into(), number);
                    }
                });
            });
        }
    }
}

/// Requests of the Pod as a whole: what its containers ask for together, else the Pod's limits.
fn pod_level_requests(spec: &mut Object) {
    let Some(limits) = spec.get("resources").and_then(|r| r.get("limits")).and_then(Value::as_object) else {
        return;
    };
    let mut wanted: Vec<(String, String)> = Vec::new();
    for (name, limit) in limits {
        let supported = name == "cpu" || name == "memory" || name.starts_with("hugepages-");
        let set = spec.get("resources").and_then(|r| r.get("requests")).and_then(|r| r.get(name)).is_some();
        if set || !supported {
            continue;
        }
        let asked = if name.starts_with("hugepages-") { Quantity::ZERO } else { requested(spec, name) };
        let value = if asked.is_zero() { limit.as_str().unwrap_or_default().to_owned() } else { asked.to_string() };
        wanted.push((name.clone(), value));
    }
    if let Some(requests) = child(spec, "resources").and_then(|r| child_or_new(r, "requests")) {
        requests.extend(wanted.into_iter().map(|(k, v)| (k, Value::String(v))));
    }
}

/// What a Pod's containers need of a resource: the sum of those that run together, or the largest init container
/// with the sidecars started before it.
pub(crate) fn requested(spec: &Object, resource: &str) -> Quantity {
    let request = |container: &Value| {
        container["resources"]["requests"].get(resource).and_then(Quantity::from_value).unwrap_or_default()
    };
    let list = |key: &str| spec.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut sidecars = Quantity::ZERO;
    let mut peak = Quantity::ZERO;
    for container in list("initContainers") {
        if container["restartPolicy"] == "Always" {
            sidecars = sidecars + request(container);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + request(container));
        }
    }
    peak.max(list("containers").iter().map(request).sum::<Quantity>() + sidecars)
}

/// The spec of an object, made if it is missing.
pub(crate) fn spec(object: &mut Value) -> Option<&mut Object> {
    child_or_new(object.as_object_mut()?, "spec")
}

/// A PodTemplateSpec below `template`.
pub(crate) fn template(owner: &mut Object) {
    if let Some(template) = child_or_new(owner, "template")
        && let Some(spec) = child_or_new(template, "spec")
    {
        pod_spec(spec);
    }
}

/// A PodSpec.
pub(crate) fn pod_spec(spec: &mut Object) {
    fill(spec, POD_SPEC);
    // `serviceAccount` is the old name of `serviceAccountName`: both are served, the new one rules.
    let account = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    if !account.is_empty() && (text(spec, "serviceAccountName") != account || text(spec, "serviceAccount") != account) {
        let account = Value::from(account);
        spec.insert("serviceAccountName".into(), account.clone());
        spec.insert("serviceAccount".into(), account);
    }
    each(spec, "volumes", volume);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        each(spec, list, container);
    }
    resource_list(spec, "overhead");
    if let Some(resources) = child(spec, "resources") {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    }
}

fn container(container: &mut Object) {
    fill(container, CONTAINER);
    if text(container, "imagePullPolicy").is_empty() {
        let policy = if is_latest(text(container, "image")) { "Always" } else { "IfNotPresent" };
        container.insert("imagePullPolicy".into(), policy.into());
    }
    each(container, "ports", |port| fill(port, &[("protocol", Str("TCP"))]));
    each(container, "env", |env| {
        if let Some(from) = child(env, "valueFrom") {
            field_ref(from);
            if let Some(key) = child(from, "fileKeyRef") {
                fill(key, &[("optional", Bool(false))]);
            }
        }
    });
    if let Some(resources) = child(container, "resources") {
        resource_list(resources, "limits");
        resource_list(resources, "requests");
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = child(container, key) {
            fill(probe, PROBE);
            http_get(probe);
            if let Some(grpc) = child(probe, "grpc") {
                fill(grpc, &[("service", Text(""))]);
            }
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = child(lifecycle, hook) {
                http_get(hook);
            }
        }
    }
}

fn http_get(handler: &mut Object) {
    if let Some(get) = child(handler, "httpGet") {
        fill(get, HTTP_GET);
    }
}

fn field_ref(holder: &mut Object) {
    if let Some(field) = child(holder, "fieldRef") {
        fill(field, &[("apiVersion", Str("v1"))]);
    }
}

fn volume(volume: &mut Object) {
    if !volume.iter().any(|(key, source)| key != "name" && !source.is_null()) {
        volume.insert("emptyDir".into(), Value::Object(Object::new()));
        return;
    }
    volume_source(volume);
    if let Some(downward) = child(volume, "downwardAPI") {
        each(downward, "items", field_ref);
    }
    if let Some(projected) = child(volume, "projected") {
        each(projected, "sources", |source| {
            if let Some(downward) = child(source, "downwardAPI") {
                each(downward, "items", field_ref);
            }
            if let Some(token) = child(source, "serviceAccountToken") {
                fill(token, &[("expirationSeconds", Int(3600))]);
            }
        });
    }
    if let Some(image) = child(volume, "image")
        && text(image, "pullPolicy").is_empty()
    {
        let policy = if is_latest(text(image, "reference")) { "Always" } else { "IfNotPresent" };
        image.insert("pullPolicy".into(), policy.into());
    }
    if let Some(ephemeral) = child(volume, "ephemeral")
        && let Some(template) = child(ephemeral, "volumeClaimTemplate")
        && let Some(spec) = child_or_new(template, "spec")
    {
        claim_spec(spec);
    }
}

/// What a volume is filled from, in a Pod or as a PersistentVolume.
pub(crate) fn volume_source(holder: &mut Object) {
    for (source, table) in VOLUMES {
        if let Some(source) = child(holder, source) {
            fill(source, table);
        }
    }
}

/// Whether an image reference means the tag `latest`: it names it, or it names neither tag nor digest.
fn is_latest(image: &str) -> bool {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or_default();
    let (repository, tag) = match last.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (last, None),
    };
    // A reference that does not parse has no tag.
    if repository.is_empty() || repository.bytes().any(|b| b.is_ascii_uppercase() || b == b' ') {
        return false;
    }
    match tag {
        Some(tag) => tag == "latest",
        None => !digest,
    }
}
