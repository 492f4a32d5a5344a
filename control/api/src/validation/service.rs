//! Services.

use serde_json::{Value, json};

use super::container::{port_or_name, required_name, required_one_of};
use super::{At, Errors, addresses, is_set, items, meta, names, text};
use crate::strategy::Sub;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const DAY: i64 = 86400;

fn is_headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None" || items(spec, "clusterIPs").first().is_some_and(|ip| ip == "None")
}

/// Reachable from outside of the cluster.
fn is_external(spec: &Value) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !items(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

/// A Service.
pub(crate) fn service(service: &Value, errors: &mut Errors) {
    let (spec, at) = (&service["spec"], At::root("spec"));
    let kind = text(spec, "type");
    let (headless, ports) = (is_headless(spec), items(spec, "ports"));
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.required(&at.field("ports"), "");
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        errors.invalid(
            &at.field("clusterIPs").index(0),
            "None",
            format!("may not be set to 'None' for {kind} services"),
        );
    }
    if kind == "ExternalName" {
        for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if is_set(spec, key) && spec[key].as_array().is_none_or(|list| !list.is_empty()) {
                errors.forbidden(&at.field(key), "may not be set for ExternalName services");
            }
        }
        let name = text(spec, "externalName");
        match name.strip_suffix('.').unwrap_or(name) {
            "" => errors.required(&at.field("externalName"), ""),
            name => errors.rule(&at.field("externalName"), name, names::subdomain),
        }
    }
    service_ports(spec, &at.field("ports"), errors);
    meta::labels(&spec["selector"], &at.field("selector"), errors);
    affinity(spec, &at, errors);
    if kind != "ExternalName" {
        cluster_ips(spec, &at, errors);
    }
    for (i, ip) in items(spec, "externalIPs").iter().filter_map(Value::as_str).enumerate() {
        let at = at.field("externalIPs");
        let messages = names::ip(ip);
        if messages.is_empty() {
            addresses::endpoint(ip, &at.index(i), errors);
        }
        for why in messages {
            errors.invalid(&at.index(i), ip, why);
        }
    }
    required_one_of(spec, "type", &TYPES, &at, errors);
    unique_ports(spec, &at.field("ports"), errors);
    source_ranges(service, errors);
    balancer(spec, &at, errors);
    traffic(spec, &at, errors);
}

fn service_ports(spec: &Value, at: &At, errors: &mut Errors) {
    let ports = items(spec, "ports");
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(port, "name");
        if ports.len() > 1 || !name.is_empty() {
            required_name(port, "name", names::label, &at, errors);
        }
        if !name.is_empty() && ports[..i].iter().any(|earlier| text(earlier, "name") == name) {
            errors.duplicate(&at.field("name"), name);
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if let Some(message) = names::port_number(number) {
            errors.invalid(&at.field("port"), number, message);
        }
        required_one_of(port, "protocol", &PROTOCOLS, &at, errors);
        port_or_name(&port["targetPort"], &at.field("targetPort"), errors);
        if is_set(port, "appProtocol") {
            errors.rule(&at.field("appProtocol"), text(port, "appProtocol"), names::qualified);
        }
    }
}

fn unique_ports(spec: &Value, at: &At, errors: &mut Errors) {
    let ports = items(spec, "ports");
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let node_port = port["nodePort"].as_i64().unwrap_or(0);
        let same = |key: &str| ports[..i].iter().any(|p| p["protocol"] == port["protocol"] && p[key] == port[key]);
        if node_port != 0 {
            if text(spec, "type") == "ClusterIP" {
                errors.forbidden(&at.field("nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
            if same("nodePort") {
                errors.duplicate(&at.field("nodePort"), node_port);
            }
        }
        if same("port") {
            errors.duplicate(&at, json!({"protocol": port["protocol"], "port": port["port"], "targetPort": 0}));
        }
    }
}

fn affinity(spec: &Value, at: &At, errors: &mut Errors) {
    required_one_of(spec, "sessionAffinity", &["ClientIP", "None"], at, errors);
    let (config, at) = (&spec["sessionAffinityConfig"], at.field("sessionAffinityConfig"));
    match text(spec, "sessionAffinity") {
        "ClientIP" => {
            let seconds = &config["clientIP"]["timeoutSeconds"];
            let missing = "when session affinity type is ClientIP";
            if config.is_null() {
                errors.required(&at, missing);
            } else if config["clientIP"].is_null() {
                errors.required(&at.field("clientIP"), missing);
            } else if seconds.as_i64().is_none_or(|s| s <= 0 || s > DAY) {
                let why = format!("must be greater than 0 and less than {DAY}");
                errors.invalid(&at.field("clientIP").field("timeoutSeconds"), seconds.clone(), why);
            }
        }
        "None" if !config.is_null() => errors.forbidden(&at, "must not be set when session affinity is None"),
        _ => {}
    }
}

fn cluster_ips(spec: &Value, at: &At, errors: &mut Errors) {
    let (first, all) = (text(spec, "clusterIP"), items(spec, "clusterIPs"));
    let ips_at = at.field("clusterIPs");
    match (first, all.first().and_then(Value::as_str)) {
        ("", Some(_)) => {
            errors.invalid(&ips_at, spec["clusterIPs"].clone(), "must be empty when `clusterIP` is not specified")
        }
        ("", None) => {}
        (_, None) => errors.required(&ips_at, ""),
        (first, Some(other)) if first != other => {
            errors.invalid(&ips_at, spec["clusterIPs"].clone(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    if all.len() > 2 {
        errors.invalid(&ips_at, spec["clusterIPs"].clone(), "may only hold up to 2 values");
    }
    for (i, ip) in all.iter().filter_map(Value::as_str).enumerate() {
        if i == 0 && ip == "None" {
            if all.len() > 1 {
                errors.invalid(&ips_at, spec["clusterIPs"].clone(), "'None' must be the first and only value");
            }
        } else {
            errors.rule(&ips_at.index(i), ip, names::ip);
        }
    }
    let families = items(spec, "ipFamilies");
    for (i, family) in families.iter().enumerate() {
        let at = at.field("ipFamilies");
        errors.one_of(&at.index(i), family.as_str().unwrap_or_default(), &["IPv4", "IPv6"]);
        if families[..i].contains(family) {
            errors.duplicate(&at.index(i), family.clone());
        }
    }
    if is_set(spec, "ipFamilyPolicy") {
        let supported = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        errors.one_of(&at.field("ipFamilyPolicy"), text(spec, "ipFamilyPolicy"), &supported);
    }
}

/// From where a load balancer can be reached, said in the spec or, as of old, in an annotation.
fn source_ranges(service: &Value, errors: &mut Errors) {
    const ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let spec = At::root("spec");
    let ranges = items(&service["spec"], "loadBalancerSourceRanges");
    if !ranges.is_empty() {
        for (i, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
            errors.rule(&spec.field("LoadBalancerSourceRanges").index(i), range.trim(), names::cidr);
        }
        return;
    }
    let Some(value) = service["metadata"]["annotations"][ANNOTATION].as_str() else { return };
    let at = At::root("metadata.annotations");
    let at = at.key(ANNOTATION);
    if text(&service["spec"], "type") != "LoadBalancer" {
        errors.forbidden(&at, "may only be used when `type` is 'LoadBalancer'");
    }
    for range in value.trim().split(',').filter(|_| !value.trim().is_empty()) {
        errors.rule(&at, range.trim(), names::cidr);
    }
}

fn balancer(spec: &Value, at: &At, errors: &mut Errors) {
    if text(spec, "type") == "LoadBalancer" {
        if is_set(spec, "loadBalancerClass") {
            errors.rule(&at.field("loadBalancerClass"), text(spec, "loadBalancerClass"), names::qualified);
        }
        return;
    }
    for (key, name) in [
        ("loadBalancerSourceRanges", "LoadBalancerSourceRanges"),
        ("allocateLoadBalancerNodePorts", "allocateLoadBalancerNodePorts"),
    ] {
        if is_set(spec, key) && spec[key].as_array().is_none_or(|list| !list.is_empty()) {
            errors.forbidden(&at.field(name), "may only be used when `type` is 'LoadBalancer'");
        }
    }
    if is_set(spec, "loadBalancerClass") {
        errors.forbidden(&at.field("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'");
    }
}

fn traffic(spec: &Value, at: &At, errors: &mut Errors) {
    let policies = ["Cluster", "Local"];
    let external = text(spec, "externalTrafficPolicy");
    if is_external(spec) {
        required_one_of(spec, "externalTrafficPolicy", &policies, at, errors);
    } else if !external.is_empty() {
        errors.invalid(
            &at.field("externalTrafficPolicy"),
            external,
            "may only be set for externally-accessible services",
        );
    }
    let checked = text(spec, "type") == "LoadBalancer" && external == "Local";
    let health_port = spec["healthCheckNodePort"].as_i64().unwrap_or(0);
    if !checked && health_port != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&at.field("healthCheckNodePort"), health_port, why);
    } else if checked
        && health_port != 0
        && let Some(why) = names::port_number(health_port)
    {
        errors.invalid(&at.field("healthCheckNodePort"), health_port, why);
    }
    if is_set(spec, "internalTrafficPolicy") {
        errors.one_of(&at.field("internalTrafficPolicy"), text(spec, "internalTrafficPolicy"), &policies);
    } else if matches!(text(spec, "type"), "ClusterIP" | "NodePort" | "LoadBalancer") {
        errors.required(&at.field("internalTrafficPolicy"), "");
    }
    if is_set(spec, "trafficDistribution") {
        let supported = ["PreferClose", "PreferSameZone", "PreferSameNode"];
        errors.one_of(&at.field("trafficDistribution"), text(spec, "trafficDistribution"), &supported);
    }
}

/// Addresses and families stay as they were given.
pub(crate) fn update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    let (new, old, at) = (&new["spec"], &old["spec"], At::root("spec"));
    if sub != Sub::Main || text(new, "type") == "ExternalName" || text(old, "type") == "ExternalName" {
        return;
    }
    let (headless, was_headless) = (is_headless(new), is_headless(old));
    if !(headless && was_headless) {
        fixed(new, old, "clusterIPs", "primary clusterIP can not be unset", &at, errors);
    }
    if !headless && !was_headless {
        fixed(new, old, "ipFamilies", "primary ipFamily can not be unset", &at, errors);
    }
}

fn fixed(new: &Value, old: &Value, key: &str, unset: &str, at: &At, errors: &mut Errors) {
    let (now, before) = (items(new, key), items(old, key));
    let at = at.field(key);
    if now.is_empty() && !before.is_empty() {
        return errors.invalid(&at.index(0), new[key].clone(), unset);
    }
    for (i, _) in now.iter().zip(before).enumerate().filter(|(_, (now, before))| now != before) {
        errors.invalid(&at.index(i), new[key].clone(), "may not change once set");
    }
}
