//! Namespace, Node, Service, ConfigMap, Secret.

use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use super::base::{DATA, UNCOUNTED};
use super::{StatusRule, Strategy, Sub, fields, warnings};
use crate::columns;
use crate::defaults::{self, Object, child_or_new};
use crate::validation::{Fixed, cluster, items, names, service, text};

pub(super) const NAMESPACE: Strategy = Strategy {
    check: cluster::namespace,
    columns: columns::NAMESPACE,
    row: columns::namespace,
    default: defaults::namespace,
    create: new_namespace,
    update: update_namespace,
    name: names::label,
    fields: fields::NAMESPACE,
    ..UNCOUNTED
};

pub(super) const NODE: Strategy = Strategy {
    check: cluster::node,
    check_update: cluster::node_update,
    columns: columns::NODE,
    row: columns::node,
    default: defaults::node,
    status: StatusRule::Kept,
    fields: fields::NODE,
    ..UNCOUNTED
};

pub(super) const SERVICE: Strategy = Strategy {
    check: service::service,
    warn: warnings::service,
    check_update: service::update,
    columns: columns::SERVICE,
    row: columns::service,
    default: defaults::service,
    create: new_service,
    update: update_service,
    name: names::label,
    fields: fields::SERVICE,
    allow_create_on_update: true,
    ..UNCOUNTED
};

pub(super) const CONFIG_MAP: Strategy = Strategy {
    check: cluster::config_map,
    check_update: cluster::immutable_data,
    columns: columns::CONFIG_MAP,
    row: columns::config_map,
    ..DATA
};

pub(super) const SECRET: Strategy = Strategy {
    check: cluster::secret,
    fixed: &[Fixed::Immutable("type")],
    check_update: cluster::immutable_data,
    columns: columns::SECRET,
    row: columns::secret,
    default: defaults::secret,
    fields: fields::SECRET,
    ..DATA
};

/// A claim begins as pending; what it is filled from is said in both ways, or not at all
/// (upstream: `NormalizeDataSources` and `EnforceDataSourceBackwardsCompatibility`).
pub(super) fn new_claim(claim: &mut Object) {
    pending(claim);
    let Some(spec) = child_or_new(claim, "spec") else { return };
    let is =
        |source: &Value, group: &str, kind: &str| text(source, "apiGroup") == group && text(source, "kind") == kind;
    let known = |source: &Value| {
        is(source, "", "PersistentVolumeClaim") || is(source, "snapshot.storage.k8s.io", "VolumeSnapshot")
    };
    if spec.get("dataSource").is_some_and(|source| !known(source)) {
        spec.remove("dataSource");
    }
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => {
            spec.insert("dataSourceRef".into(), source);
        }
        (None, Some(source)) if text(&source, "namespace").is_empty() => {
            spec.insert("dataSource".into(), source);
        }
        _ => {}
    }
}

/// A volume begins as pending, and says since when.
pub(super) fn new_volume(volume: &mut Object) {
    let now = Timestamp::now();
    let now = now.round(Unit::Second).unwrap_or(now).to_string();
    volume.insert("status".into(), json!({"phase": "Pending", "lastPhaseTransitionTime": now}));
}

/// A claim begins as pending.
pub(super) fn pending(object: &mut Object) {
    object.insert("status".into(), json!({"phase": "Pending"}));
}

fn new_namespace(namespace: &mut Object) {
    namespace.insert("status".into(), json!({"phase": "Active"}));
    if let Some(spec) = child_or_new(namespace, "spec") {
        let finalizers = spec.entry("finalizers").or_insert(Value::Null);
        if finalizers.is_null() {
            *finalizers = json!([]);
        }
        if let Value::Array(list) = finalizers
            && !list.iter().any(|f| f == "kubernetes")
        {
            list.push("kubernetes".into());
        }
    }
    // A generated name is known only now.
    if let Some(metadata) = child_or_new(namespace, "metadata")
        && let Some(name) = metadata.get("name").filter(|n| n.is_string()).cloned()
        && let Some(labels) = child_or_new(metadata, "labels")
    {
        labels.insert("kubernetes.io/metadata.name".into(), name);
    }
}

/// Only the `finalize` subresource changes `spec.finalizers`, and it does not change the status.
fn update_namespace(new: &mut Object, old: &Value, sub: Sub) {
    match sub {
        Sub::Main => {
            if let Some(spec) = child_or_new(new, "spec") {
                match &old["spec"]["finalizers"] {
                    Value::Null => drop(spec.remove("finalizers")),
                    finalizers => drop(spec.insert("finalizers".into(), finalizers.clone())),
                }
            }
        }
        Sub::Other => {
            new.insert("status".into(), old["status"].clone());
        }
        Sub::Status | Sub::Scale | Sub::Approval | Sub::Ephemeral | Sub::Resize => {}
    }
}

fn new_service(service: &mut Object) {
    service.insert("status".into(), json!({"loadBalancer": {}}));
    if let Some(spec) = child_or_new(service, "spec") {
        both_addresses(spec);
    }
}

/// `clusterIP` alone is the first of `clusterIPs`.
fn both_addresses(spec: &mut Object) {
    let first = spec.get("clusterIP").and_then(Value::as_str).filter(|ip| !ip.is_empty());
    if let Some(first) = first.map(str::to_owned)
        && defaults::is_empty(spec, "clusterIPs")
    {
        spec.insert("clusterIPs".into(), json!([first]));
    }
}

/// A changed type takes with it what the old type had and the author did not touch.
fn update_service(new: &mut Object, old: &Value, sub: Sub) {
    if sub != Sub::Main {
        return;
    }
    let kind_of = |spec: &Value| text(spec, "type").to_owned();
    let old_spec = &old["spec"];
    let Some(spec) = new.get("spec") else { return };
    let (new_kind, old_kind) = (kind_of(spec), kind_of(old_spec));
    let unchanged = |spec: &Object, key: &str| spec.get(key).unwrap_or(&Value::Null) == &old_spec[key];
    let node_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    let ports_of = |spec: &Value| {
        let mut ports: Vec<i64> =
            items(spec, "ports").iter().filter_map(|p| p["nodePort"].as_i64()).filter(|p| *p != 0).collect();
        ports.sort_unstable();
        ports
    };
    let same_node_ports = ports_of(spec) == ports_of(old_spec);
    let Some(spec) = child_or_new(new, "spec") else {
        return;
    };
    // A changed `clusterIP` beside the old list means the list's first.
    if !unchanged(spec, "clusterIP")
        && unchanged(spec, "clusterIPs")
        && let Some(ip) = spec.get("clusterIP").filter(|ip| ip.as_str().is_some_and(|ip| !ip.is_empty())).cloned()
        && let Some(first) = spec.get_mut("clusterIPs").and_then(|ips| ips.get_mut(0))
    {
        *first = ip;
    }
    both_addresses(spec);
    // An update that leaves the addresses out keeps them.
    if new_kind != "ExternalName" && old_kind != "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let unset = spec.get(key).is_none_or(|v| v.is_null() || v == "" || v.as_array().is_some_and(Vec::is_empty));
            if unset && !old_spec[key].is_null() {
                spec.insert(key.into(), old_spec[key].clone());
            }
        }
    }
    if old_kind != "ExternalName" && new_kind == "ExternalName" {
        let same_addresses = unchanged(spec, "clusterIP") && unchanged(spec, "clusterIPs");
        for (key, drop) in [
            ("clusterIP", same_addresses),
            ("clusterIPs", same_addresses),
            ("ipFamilies", unchanged(spec, "ipFamilies")),
            ("ipFamilyPolicy", unchanged(spec, "ipFamilyPolicy")),
        ] {
            if drop {
                spec.remove(key);
            }
        }
    }
    if node_ports(&old_kind) && !node_ports(&new_kind) && same_node_ports {
        defaults::each(spec, "ports", |port| {
            port.remove("nodePort");
        });
    }
    if node_ports(&old_kind) && node_ports(&new_kind) {
        keep_node_ports(spec, old_spec);
    }
    if old_kind == "LoadBalancer" && new_kind != "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"] {
            if unchanged(spec, key) {
                spec.remove(key);
            }
        }
        new.insert("status".into(), json!({"loadBalancer": {}}));
    }
    let Some(spec) = child_or_new(new, "spec") else {
        return;
    };
    if node_ports(&old_kind)
        && !node_ports(&new_kind)
        && spec.get("externalIPs").is_none()
        && unchanged(spec, "externalTrafficPolicy")
    {
        spec.remove("externalTrafficPolicy");
    }
}

/// Ports that name no node port keep the one they had, found by port and protocol.
fn keep_node_ports(spec: &mut Object, old_spec: &Value) {
    defaults::each(spec, "ports", |port| {
        if port.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0 {
            return;
        }
        let before = items(old_spec, "ports")
            .iter()
            .find(|p| Some(&p["port"]) == port.get("port") && Some(&p["protocol"]) == port.get("protocol"));
        if let Some(number) = before.and_then(|p| p["nodePort"].as_i64()).filter(|n| *n != 0) {
            port.insert("nodePort".into(), number.into());
        }
    });
}
