//! Ingress, IngressClass, NetworkPolicy (upstream: `pkg/apis/networking/validation`).

use serde_json::Value;

use super::rbac::required;
use super::{At, Errors, addresses, is_set, items, names, scheduling, text};
use crate::meta;
use crate::strategy::Sub;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// Ingress.
pub(crate) fn ingress(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    let rules = items(spec, "rules");
    if rules.is_empty() && !is_set(spec, "defaultBackend") {
        errors.invalid(&at, spec["rules"].clone(), "either `defaultBackend` or `rules` must be specified");
    }
    if is_set(spec, "defaultBackend") {
        backend(&spec["defaultBackend"], &at.field("defaultBackend"), errors);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.field("rules");
        let at = at.index(i);
        let found = text(rule, "host");
        if !found.is_empty() {
            if names::ip(found).is_empty() {
                errors.invalid(&at.field("host"), found, "must be a DNS name, not an IP address");
            }
            host(found, &at.field("host"), errors);
        }
        if is_set(rule, "http") {
            let at = at.field("http");
            let paths_at = at.field("paths");
            let paths = items(&rule["http"], "paths");
            if paths.is_empty() {
                errors.required(&paths_at, "");
            }
            for (i, found) in paths.iter().enumerate() {
                path(found, &paths_at.index(i), errors);
            }
        }
    }
    for (i, tls) in items(spec, "tls").iter().enumerate() {
        let at = at.field("tls");
        let at = at.index(i);
        for (i, found) in items(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
            host(found, &at.field("hosts").index(i), errors);
        }
        let secret = text(tls, "secretName");
        if !secret.is_empty() {
            errors.rule(&at.field("secretName"), secret, names::subdomain);
        }
    }
    if let Some(class) = spec["ingressClassName"].as_str() {
        errors.rule(&at.field("ingressClassName"), class, names::subdomain);
    }
}

/// A new Ingress names its class once.
pub(crate) fn new_ingress(object: &Value, errors: &mut Errors) {
    let Some(class) = object["spec"]["ingressClassName"].as_str() else { return };
    if let Some(annotation) = meta::annotation(object, CLASS_ANNOTATION).filter(|found| *found != class) {
        let at = At::root("annotations");
        let why = "must match `ingressClassName` when both are specified";
        errors.invalid(&at.field(CLASS_ANNOTATION), annotation, why);
    }
}

/// The old way to name a class.
pub(crate) fn ingress_warnings(object: &Value, warnings: &mut Vec<String>) {
    if meta::annotation(object, CLASS_ANNOTATION).is_some() && object["spec"]["ingressClassName"].is_null() {
        warnings
            .push(format!("annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead"));
    }
}

/// The addresses of an Ingress.
pub(crate) fn ingress_status(new: &Value, _: &Value, sub: Sub, errors: &mut Errors) {
    if sub != Sub::Status {
        return;
    }
    let at = At::root("status.loadBalancer.ingress");
    for (i, point) in items(&new["status"]["loadBalancer"], "ingress").iter().enumerate() {
        let at = at.index(i);
        let (address, host) = (text(point, "ip"), text(point, "hostname"));
        if !address.is_empty() {
            errors.rule(&at.field("ip"), address, names::ip);
        }
        if !host.is_empty() {
            errors.rule(&at.field("hostname"), host, names::subdomain);
            if names::ip(host).is_empty() {
                errors.invalid(&at.field("hostname"), host, "must be a DNS name, not an IP address");
            }
        }
    }
}

fn host(text: &str, at: &At, errors: &mut Errors) {
    errors.rule(at, text, if text.contains('*') { names::wildcard } else { names::subdomain });
}

fn path(path: &Value, at: &At, errors: &mut Errors) {
    let (found, path_at) = (text(path, "path"), at.field("path"));
    let Some(kind) = path["pathType"].as_str() else {
        return errors.required(&at.field("pathType"), "pathType must be specified");
    };
    let absolute = found.starts_with('/');
    match kind {
        "Exact" | "Prefix" => {
            if !absolute {
                errors.invalid(&path_at, found, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| found.contains(part)) {
                errors.invalid(&path_at, found, format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].into_iter().filter(|end| found.ends_with(end)) {
                errors.invalid(&path_at, found, format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !found.is_empty() && !absolute {
                errors.invalid(&path_at, found, "must be an absolute path");
            }
        }
        _ => errors.not_supported(&at.field("pathType"), kind, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    backend(&path["backend"], &at.field("backend"), errors);
}

fn backend(backend: &Value, at: &At, errors: &mut Errors) {
    match (is_set(backend, "resource"), is_set(backend, "service")) {
        (true, true) => errors.invalid(at, "", "cannot set both resource and service backends"),
        (true, false) => reference(&backend["resource"], &at.field("resource"), errors),
        (false, true) => service(&backend["service"], at, errors),
        (false, false) => errors.invalid(at, "", "resource or service backend is required"),
    }
}

fn service(service: &Value, at: &At, errors: &mut Errors) {
    let service_at = at.field("service");
    required(service, "name", names::label, &service_at, errors);
    let (name, number) = (text(&service["port"], "name"), service["port"]["number"].as_i64().unwrap_or(0));
    let port_at = service_at.field("port");
    match (name, number) {
        ("", 0) => errors.required(at, "port name or number is required"),
        ("", number) => {
            if let Some(why) = names::port_number(number) {
                errors.invalid(&port_at.field("number"), number, why);
            }
        }
        (_, 0) => errors.rule(&port_at.field("name"), name, names::port_name),
        _ => errors.invalid(at, "", "cannot set both port name & port number"),
    }
}

fn reference(reference: &Value, at: &At, errors: &mut Errors) {
    if let Some(group) = reference["apiGroup"].as_str() {
        errors.rule(&at.field("apiGroup"), group, names::subdomain);
    }
    for key in ["kind", "name"] {
        required(reference, key, names::path_segment, at, errors);
    }
}

/// IngressClass.
pub(crate) fn ingress_class(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    let controller = text(spec, "controller");
    if controller.len() > 250 {
        errors.too_long(&at.field("controller"), 250);
    }
    required(spec, "controller", names::domain_prefixed, &at, errors);
    if !is_set(spec, "parameters") {
        return;
    }
    let (parameters, at) = (&spec["parameters"], at.field("parameters"));
    reference(parameters, &at, errors);
    let namespace = parameters["namespace"].as_str();
    match text(parameters, "scope") {
        "Namespace" => match namespace {
            None => errors.required(&at.field("namespace"), "`parameters.scope` is set to 'Namespace'"),
            Some(found) => errors.rule(&at.field("namespace"), found, names::label),
        },
        "Cluster" if namespace.is_some() => {
            errors.forbidden(&at.field("namespace"), "`parameters.scope` is set to 'Cluster'");
        }
        "Cluster" => {}
        other => errors.not_supported(&at.field("scope"), other, &["Cluster", "Namespace"]),
    }
}

/// NetworkPolicy.
pub(crate) fn network_policy(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    scheduling::label_selector(&spec["podSelector"], &at.field("podSelector"), errors);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in items(spec, direction).iter().enumerate() {
            let at = at.field(direction);
            let at = at.index(i);
            for (i, found) in items(rule, "ports").iter().enumerate() {
                port(found, &at.field("ports").index(i), errors);
            }
            for (i, found) in items(rule, peers).iter().enumerate() {
                peer(found, &at.field(peers).index(i), errors);
            }
        }
    }
    let (types, types_at) = (items(spec, "policyTypes"), at.field("policyTypes"));
    if types.len() > 2 {
        return errors.invalid(&types_at, types.to_vec(), "may not specify more than two policyTypes");
    }
    for (i, found) in types.iter().filter_map(Value::as_str).enumerate() {
        errors.one_of(&types_at.index(i), found, &["Ingress", "Egress"]);
    }
}

fn port(port: &Value, at: &At, errors: &mut Errors) {
    if let Some(protocol) = port["protocol"].as_str() {
        errors.one_of(&at.field("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let (end, end_at) = (port["endPort"].as_i64(), at.field("endPort"));
    match &port["port"] {
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or(0);
            if let Some(why) = names::port_number(number) {
                errors.invalid(&at.field("port"), number, why);
            }
            if let Some(end) = end {
                if end < number {
                    errors.invalid(&end_at, number, "must be greater than or equal to `port`");
                }
                if let Some(why) = names::port_number(end) {
                    errors.invalid(&end_at, end, why);
                }
            }
        }
        Value::String(name) => {
            if let Some(end) = end {
                errors.invalid(&end_at, end, "may not be specified when `port` is non-numeric");
            }
            errors.rule(&at.field("port"), name, names::port_name);
        }
        _ => {
            if let Some(end) = end {
                errors.invalid(&end_at, end, "may not be specified when `port` is not specified");
            }
        }
    }
}

fn peer(peer: &Value, at: &At, errors: &mut Errors) {
    let set = |key: &&str| is_set(peer, key);
    for key in ["podSelector", "namespaceSelector"].iter().filter(|key| set(key)) {
        scheduling::label_selector(&peer[*key], &at.field(key), errors);
    }
    if is_set(peer, "ipBlock") {
        block(&peer["ipBlock"], &at.field("ipBlock"), errors);
    }
    match ["podSelector", "namespaceSelector", "ipBlock"].iter().filter(|key| set(key)).count() {
        0 => errors.required(at, "must specify a peer"),
        2.. if is_set(peer, "ipBlock") => errors.forbidden(at, "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

fn block(block: &Value, at: &At, errors: &mut Errors) {
    required(block, "cidr", addresses::cidr, at, errors);
    let Some(whole) = names::network(text(block, "cidr")) else {
        return;
    };
    for (i, found) in items(block, "except").iter().filter_map(Value::as_str).enumerate() {
        let at = at.field("except");
        let at = at.index(i);
        match names::network(found) {
            None => errors.rule(&at, found, addresses::cidr),
            Some(part) if !contains(whole, part) => {
                errors.invalid(&at, found, "must be a strict subset of `cidr`");
            }
            Some(_) => {}
        }
    }
}

/// Whether a network is part of another, and smaller.
fn contains(whole: (std::net::IpAddr, u32), part: (std::net::IpAddr, u32)) -> bool {
    use std::net::IpAddr::{V4, V6};
    let same = |a: u128, b: u128, bits: u32| whole.1 == 0 || (a ^ b) >> (bits - whole.1) == 0;
    let inside = match (whole.0, part.0) {
        (V4(a), V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (V6(a), V6(b)) => same(a.into(), b.into(), 128),
        _ => false,
    };
    inside && whole.1 < part.1
}

/// IPAddress: its name is the address, and it belongs to something.
pub(crate) fn ip_address(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    let (parent, at) = (&spec["parentRef"], at.field("parentRef"));
    if parent.is_null() {
        return errors.required(&at, "");
    }
    // The core group's name is empty.
    for (key, rule) in [("group", names::subdomain as names::Rule), ("namespace", names::path_segment)] {
        if !text(parent, key).is_empty() {
            errors.rule(&at.field(key), text(parent, key), rule);
        }
    }
    for key in ["resource", "name"] {
        required(parent, key, names::path_segment, &at, errors);
    }
}

/// ServiceCIDR: one network, or one of each family.
pub(crate) fn service_cidr(object: &Value, errors: &mut Errors) {
    let at = At::root("spec.cidrs");
    let cidrs: Vec<&str> = items(&object["spec"], "cidrs").iter().filter_map(Value::as_str).collect();
    match cidrs.len() {
        0 => return errors.required(&at, "at least one CIDR required"),
        3.. => return errors.invalid(&at, object["spec"].clone(), "may only hold up to 2 values"),
        _ => {}
    }
    for (i, cidr) in cidrs.iter().enumerate() {
        errors.rule(&at.index(i), cidr, addresses::cidr);
    }
    let families: Vec<bool> =
        cidrs.iter().filter_map(|cidr| names::network(cidr)).map(|(address, _)| address.is_ipv4()).collect();
    if let [a, b] = families.as_slice()
        && a == b
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&at, object["spec"]["cidrs"].clone(), why);
    }
}

/// The networks of a ServiceCIDR stay; one may get a second of the other family.
pub(crate) fn service_cidr_update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    if sub != Sub::Main {
        return;
    }
    let at = At::root("spec.cidrs");
    let (cidrs, before) = (items(&new["spec"], "cidrs"), items(&old["spec"], "cidrs"));
    match (before.len(), cidrs.len()) {
        (a, b) if a == b || (a, b) == (1, 2) => {
            for (i, (cidr, before)) in cidrs.iter().zip(before).enumerate() {
                errors.immutable(&at.index(i), cidr, before);
            }
            if a != b {
                service_cidr(new, errors);
            }
        }
        _ => errors.invalid(&at, cidrs.to_vec(), "field is immutable"),
    }
}
