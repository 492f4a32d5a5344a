//! What is allowed but probably not meant (upstream: `pkg/api/pod/warnings.go`, `pkg/api/service/warnings.go`).
//!
//! Not warned of: the paths of a volume's files that overlap, and addresses written with leading zeros, which are refused.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::validation::{CONTAINER_LISTS, entries, is_set, items, names, text};

/// Labels of Nodes that have newer names.
const OLD_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
/// Volume sources that are gone, by the name that the warning has for them.
const OLD_VOLUMES: &[(&str, &str, &str)] = &[
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn old_label(key: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(old, _)| *old == key).map(|(_, why)| *why)
}

/// A Pod, or a template of Pods whose fields are called `prefix` and then `metadata` and `spec`.
pub(super) fn pod(pod: &Value, prefix: &str, warnings: &mut Vec<String>) {
    let (spec, path) = (&pod["spec"], format!("{prefix}spec"));
    node_labels(spec, &path, warnings);
    let annotations = &pod["metadata"]["annotations"];
    for (key, why) in OLD_ANNOTATIONS.iter().filter(|(key, _)| is_set(annotations, key)) {
        warnings.push(format!("{prefix}metadata.annotations[{key}]: {why}"));
    }
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        for (_, shown, why) in OLD_VOLUMES.iter().filter(|(key, ..)| is_set(volume, key)) {
            warnings.push(format!("{path}.volumes[{i}].{shown}: {why}"));
        }
        for source in items(&volume["projected"], "sources") {
            if entries(source).all(|(_, part)| part.is_null()) {
                warnings.push(format!("volume {:?} (Projected) has no sources provided", text(volume, "name")));
            }
        }
        let claim = &volume["ephemeral"]["volumeClaimTemplate"]["spec"];
        claim_spec(claim, &format!("{path}.volumes[{i}].ephemeral.volumeClaimTemplate.spec"), warnings);
    }
    for (list, key, what) in [("hostAliases", "ip", "ip"), ("imagePullSecrets", "name", "name")] {
        let all = items(spec, list);
        for (i, item) in all.iter().enumerate() {
            if all[..i].iter().any(|earlier| text(earlier, key) == text(item, key)) {
                warnings.push(format!("{path}.{list}[{i}].{key}: duplicate {what} {:?}", text(item, key)));
            }
        }
    }
    for (i, _) in items(spec, "imagePullSecrets").iter().enumerate().filter(|(_, s)| text(s, "name").is_empty()) {
        warnings.push(format!("{path}.imagePullSecrets[{i}].name: invalid empty name \"\""));
    }
    fractions(&spec["overhead"], &format!("{path}.overhead"), warnings);
    seccomp(pod, prefix, warnings);
    each_container(spec, &path, |container, path| {
        for resources in ["limits", "requests"] {
            fractions(&container["resources"][resources], &format!("{path}.resources.{resources}"), warnings);
        }
        hidden_variables(container, path, warnings);
    });
    ports(spec, &path, warnings);
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    selectors(spec, &path, warnings);
}

fn each_container<'a>(spec: &'a Value, path: &str, mut visit: impl FnMut(&'a Value, &str)) {
    for list in CONTAINER_LISTS {
        for (i, container) in items(spec, list).iter().enumerate() {
            visit(container, &format!("{path}.{list}[{i}]"));
        }
    }
}

fn node_labels(spec: &Value, path: &str, warnings: &mut Vec<String>) {
    for (key, _) in entries(&spec["nodeSelector"]) {
        if let Some(why) = old_label(key) {
            warnings.push(format!("{path}.nodeSelector[{key}]: {why}"));
        }
    }
    let affinity = &spec["affinity"]["nodeAffinity"];
    let path_of = |rest: &str| format!("{path}.affinity.nodeAffinity.{rest}");
    for (i, term) in items(&affinity[REQUIRED], "nodeSelectorTerms").iter().enumerate() {
        term_labels(term, false, &path_of(&format!("{REQUIRED}.nodeSelectorTerms[{i}]")), warnings);
    }
    for (i, term) in items(affinity, PREFERRED).iter().enumerate() {
        term_labels(&term["preference"], true, &path_of(&format!("{PREFERRED}[{i}].preference")), warnings);
    }
    for (i, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{i}]");
        let key = text(constraint, "topologyKey");
        if let Some(why) = old_label(key) {
            warnings.push(format!("{path}.topologyKey: {key} is {why}"));
        }
        if !is_set(constraint, "labelSelector") {
            warnings.push(no_pod(&path));
        }
    }
}

fn term_labels(term: &Value, values: bool, path: &str, warnings: &mut Vec<String>) {
    for (i, expression) in items(term, "matchExpressions").iter().enumerate() {
        let (key, path) = (text(expression, "key"), format!("{path}.matchExpressions[{i}]"));
        if let Some(why) = old_label(key) {
            warnings.push(format!("{path}.key: {key} is {why}"));
        }
        let values = items(expression, "values").iter().filter_map(Value::as_str).enumerate().filter(|_| values);
        for (j, value) in values {
            for why in names::label_value(value) {
                warnings.push(format!("{path}.values[{j}]: {value} is invalid, {why}"));
            }
        }
    }
}

fn no_pod(path: &str) -> String {
    format!("{path}.labelSelector: a null labelSelector results in matching no pod")
}

/// Terms of affinity to Pods that match none.
fn selectors(spec: &Value, path: &str, warnings: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, path) = (&spec["affinity"][kind], format!("{path}.affinity.{kind}"));
        for (i, term) in items(affinity, REQUIRED).iter().enumerate() {
            if !is_set(term, "labelSelector") {
                warnings.push(no_pod(&format!("{path}.{REQUIRED}[{i}]")));
            }
        }
        for (i, term) in items(affinity, PREFERRED).iter().enumerate() {
            if !is_set(&term["podAffinityTerm"], "labelSelector") {
                warnings.push(no_pod(&format!("{path}.{PREFERRED}[{i}].podAffinityTerm")));
            }
        }
    }
}

/// Parts of a byte.
fn fractions(list: &Value, path: &str, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        fraction(&list[name], &format!("{path}[{name}]"), warnings);
    }
}

fn fraction(amount: &Value, path: &str, warnings: &mut Vec<String>) {
    if let Some(amount) = Quantity::from_value(amount).filter(|amount| !amount.is_whole()) {
        let amount = amount.to_string();
        warnings.push(format!("{path}: fractional byte value {amount:?} is invalid, must be an integer"));
    }
}

/// Profiles of seccomp that are said only as annotations, which nothing reads.
fn seccomp(pod: &Value, prefix: &str, warnings: &mut Vec<String>) {
    let (spec, annotations) = (&pod["spec"], &pod["metadata"]["annotations"]);
    let mut tell = |holder: &Value, key: String| {
        if !is_set(&holder["securityContext"], "seccompProfile") && is_set(annotations, &key) {
            warnings.push(format!(
                "{prefix}metadata.annotations[{key}]: non-functional in v1.27+; use the \"seccompProfile\" field instead"
            ));
        }
    };
    tell(spec, SECCOMP_POD.to_owned());
    each_container(spec, "", |container, _| tell(container, format!("{SECCOMP_CONTAINER}{}", text(container, "name"))));
}

/// Variables that are there twice and whose later value is not made of the earlier one.
fn hidden_variables(container: &Value, path: &str, warnings: &mut Vec<String>) {
    let list = items(container, "env");
    for (i, variable) in list.iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let reference = format!("$({name})");
        let extends = value.contains(&reference) && value != reference && !is_set(variable, "valueFrom");
        if !extends && list[..i].iter().any(|earlier| text(earlier, "name") == name) {
            warnings.push(format!(
                "{path}.env[{i}]: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

/// Ports that are there twice, by number or by name.
fn ports(spec: &Value, path: &str, warnings: &mut Vec<String>) {
    let mut ports: Vec<(String, &Value)> = Vec::new();
    each_container(spec, path, |container, path| {
        let own = items(container, "ports").iter().enumerate();
        ports.extend(own.map(|(i, port)| (format!("{path}.ports[{i}]"), port)));
    });
    let host = |port: &Value| port["hostPort"].as_i64().unwrap_or(0);
    for (i, (path, port)) in ports.iter().enumerate() {
        if !text(port, "hostIP").is_empty() && host(port) == 0 {
            warnings.push(format!(
                "{path}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
                text(port, "name"),
                port["containerPort"].as_i64().unwrap_or(0),
                text(port, "protocol"),
                text(port, "hostIP")
            ));
        }
        let same = |other: &Value| ["containerPort", "protocol"].iter().all(|key| other[*key] == port[*key]);
        for (other_path, other) in ports[..i].iter().filter(|(_, other)| same(other)) {
            let (ip, other_ip) = (text(port, "hostIP"), text(other, "hostIP"));
            let how = if ip == other_ip && host(port) == host(other) {
                "duplicate"
            } else if host(port) == 0 || host(other) == 0 {
                "overlapping"
            } else if host(port) == host(other) && (ip.is_empty() != other_ip.is_empty()) {
                "dangerously ambiguous"
            } else {
                continue;
            };
            warnings.push(format!("{path}: {how} port definition with {other_path}"));
        }
    }
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, port) in &ports {
        let name = text(port, "name");
        if name.is_empty() {
            continue;
        }
        if let Some(first) = named.get(name) {
            warnings.push(format!(
                "{path}: duplicate port name {name:?} with {first}, services and probes that select ports by name will use {first}"
            ));
        } else {
            named.insert(name, path);
        }
    }
}

/// A PersistentVolumeClaim.
pub(super) fn claim(claim: &Value, warnings: &mut Vec<String>) {
    claim_spec(&claim["spec"], "spec", warnings);
}

fn claim_spec(spec: &Value, path: &str, warnings: &mut Vec<String>) {
    for list in ["requests", "limits"] {
        fraction(&spec["resources"][list]["storage"], &format!("{path}.resources.{list}[storage]"), warnings);
    }
}

/// A Service.
pub(super) fn service(service: &Value, warnings: &mut Vec<String>) {
    let spec = &service["spec"];
    let external_name = text(spec, "type") == "ExternalName";
    let headless = text(spec, "clusterIP") == "None";
    let external_ips = !items(spec, "externalIPs").is_empty();
    let mut tell = |said: bool, what: &str| {
        if said {
            warnings.push(what.to_owned());
        }
    };
    tell(
        is_set(&service["metadata"]["annotations"], "service.kubernetes.io/topology-aware-hints"),
        "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead",
    );
    tell(headless && !text(spec, "loadBalancerIP").is_empty(), "spec.loadBalancerIP is ignored for headless services");
    tell(headless && external_ips, "spec.externalIPs is ignored for headless services");
    tell(headless && text(spec, "sessionAffinity") != "None", "spec.SessionAffinity is ignored for headless services");
    tell(
        external_ips && !headless && !external_name,
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
    );
    tell(external_ips && external_name, "spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    tell(
        !external_name && !text(spec, "externalName").is_empty(),
        "spec.externalName is ignored when spec.type is not \"ExternalName\"",
    );
    tell(
        text(spec, "trafficDistribution") == "PreferClose",
        "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
    );
}
