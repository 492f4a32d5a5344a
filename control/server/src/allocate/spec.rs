//! The fields of a Service that hold allocated numbers, as pure functions of its `spec`.

use std::net::Ipv4Addr;

use serde_json::Value;
use wherry_api::meta;

/// Numbers of one Service.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) ports: Vec<u16>,
}

pub(super) type Map = serde_json::Map<String, Value>;

pub(super) fn text<'a>(spec: &'a Map, key: &str) -> &'a str {
    spec.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn service_type(spec: &Map) -> &str {
    match text(spec, "type") {
        "" => "ClusterIP",
        other => other,
    }
}

pub(super) fn wants_ports(spec: &Map) -> bool {
    match service_type(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true),
        _ => false,
    }
}

pub(super) fn wants_health_port(spec: &Map) -> bool {
    service_type(spec) == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn can_have_ports(spec: &Map) -> bool {
    matches!(service_type(spec), "NodePort" | "LoadBalancer")
}

/// The numbers a Service holds.
pub(super) fn held(service: &Value) -> Held {
    let Some(spec) = service.get("spec").and_then(Value::as_object) else {
        return Held::default();
    };
    let mut held = Held::default();
    let addresses = spec.get("clusterIPs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for address in addresses.iter().chain(spec.get("clusterIP")) {
        if let Some(address) = address.as_str().and_then(|a| a.parse().ok())
            && !held.addresses.contains(&address)
        {
            held.addresses.push(address);
        }
    }
    let ports = spec.get("ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for port in ports.iter().filter_map(|p| p.get("nodePort")).chain(spec.get("healthCheckNodePort")) {
        if let Some(port) = port.as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0)
            && !held.ports.contains(&port)
        {
            held.ports.push(port);
        }
    }
    held
}

/// Clients that replace a Service need not repeat what was allocated to it.
pub(super) fn keep_allocated(new: &mut Value, old: &Value) {
    let Some(old) = old.get("spec").and_then(Value::as_object) else {
        return;
    };
    let new = meta::map_mut(new, "spec");
    if service_type(old) != "ExternalName" && service_type(new) != "ExternalName" {
        if text(new, "clusterIP").is_empty()
            && new.get("clusterIPs").is_none_or(|v| v.as_array().is_none_or(Vec::is_empty))
            && let Some(address) = old.get("clusterIP")
        {
            new.insert("clusterIP".to_owned(), address.clone());
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if let (None, Some(value)) = (new.get(field), old.get(field)) {
                new.insert(field.to_owned(), value.clone());
            }
        }
    }
    if !can_have_ports(old) {
        return;
    }
    if !can_have_ports(new) {
        // A Service that becomes internal gives its node ports back, unless it asks for others (which
        // validation refuses).
        let before = old.get("ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if let Some(ports) = new.get_mut("ports").and_then(Value::as_array_mut) {
            for port in ports.iter_mut().filter_map(Value::as_object_mut) {
                if port.get("nodePort").is_some_and(|n| before.iter().any(|b| b.get("nodePort") == Some(n))) {
                    port.remove("nodePort");
                }
            }
        }
        return;
    }
    let before = old.get("ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if let Some(ports) = new.get_mut("ports").and_then(Value::as_array_mut) {
        let explicit: Vec<Value> = ports.iter().filter_map(|p| p.get("nodePort").cloned()).collect();
        for port in ports {
            let unset = port.get("nodePort").is_none_or(|n| n.as_i64() == Some(0));
            let same = |b: &&Value| b.get("port") == port.get("port") && protocol(b) == protocol(port);
            let number = before.iter().find(same).and_then(|b| b.get("nodePort")).cloned();
            if let (true, Some(number), Some(port)) = (unset, number, port.as_object_mut())
                && !explicit.contains(&number)
            {
                port.insert("nodePort".to_owned(), number);
            }
        }
    }
    if wants_health_port(old)
        && wants_health_port(new)
        && new.get("healthCheckNodePort").is_none_or(|n| n.as_i64() == Some(0))
        && let Some(number) = old.get("healthCheckNodePort")
    {
        new.insert("healthCheckNodePort".to_owned(), number.clone());
    }
}

fn protocol(port: &Value) -> &str {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
}
