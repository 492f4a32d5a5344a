//! Services, endpoints, ingress and policies.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, Column, NAME, age, labels, name, or_none, selector, shown, wide};
use crate::validation::{is_set, items, text};

pub(crate) const SERVICE: &[Column] = &[
    NAME,
    shown("Type", "How the service is exposed."),
    shown("Cluster-IP", "The service's address within the cluster."),
    shown("External-IP", "Addresses outside of the cluster."),
    shown("Port(s)", "The ports that are exposed."),
    AGE,
    wide("Selector", "Which pods traffic goes to."),
];
pub(crate) const ENDPOINTS: &[Column] = &[NAME, shown("Endpoints", "Addresses and ports."), AGE];
pub(crate) const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    shown("AddressType", "The kind of the addresses."),
    shown("Ports", "The ports of each endpoint."),
    shown("Endpoints", "The endpoints' addresses."),
    AGE,
];
pub(crate) const INGRESS: &[Column] = &[
    NAME,
    shown("Class", "The name of the IngressClass resource that should be used for additional configuration"),
    shown("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
    shown("Address", "Address is a list containing ingress points for the load-balancer"),
    shown("Ports", "Ports of TLS configurations that open"),
    AGE,
];
pub(crate) const INGRESS_CLASS: &[Column] = &[
    NAME,
    shown("Controller", "Controller that is responsible for handling this class"),
    shown("Parameters", "A reference to a resource with additional parameters"),
    AGE,
];
pub(crate) const NETWORK_POLICY: &[Column] = &[NAME, shown("Pod-Selector", "Which pods it is about."), AGE];
pub(crate) const SERVICE_CIDR: &[Column] = &[NAME, shown("CIDRs", "The ranges that addresses are taken from."), AGE];
pub(crate) const IP_ADDRESS: &[Column] = &[NAME, shown("ParentRef", "What the address belongs to.")];

/// At most so many of a list are shown.
const SHOWN: usize = 3;

/// The first of a list, and how many more there are.
fn some_of(list: &[String]) -> Value {
    if list.is_empty() {
        return "<unset>".into();
    }
    with_more(list, list.len())
}

fn with_more(list: &[String], total: usize) -> Value {
    let text = list[..list.len().min(SHOWN)].join(",");
    if list.len() > SHOWN { format!("{text} + {} more...", total - SHOWN).into() } else { text.into() }
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let own: Vec<&str> = items(spec, "externalIPs").iter().filter_map(Value::as_str).collect();
    match text(spec, "type") {
        "ClusterIP" | "NodePort" if own.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => own.join(","),
        "LoadBalancer" => {
            let mut all = balancer_addresses(service);
            all.extend(own);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => text(spec, "externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// Addresses, else host names, of a load balancer, sorted.
fn balancer_addresses(object: &Value) -> Vec<&str> {
    let address = |ingress| match text(ingress, "ip") {
        "" => text(ingress, "hostname"),
        ip => ip,
    };
    let mut all: Vec<&str> =
        items(&object["status"]["loadBalancer"], "ingress").iter().map(address).filter(|a| !a.is_empty()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

pub(crate) fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let ports: Vec<String> = items(spec, "ports")
        .iter()
        .map(|port| match port["nodePort"].as_i64().unwrap_or(0) {
            0 => format!("{}/{}", port["port"], text(port, "protocol")),
            node_port => format!("{}:{node_port}/{}", port["port"], text(port, "protocol")),
        })
        .collect();
    let ip = items(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or_else(|| text(spec, "clusterIP"));
    vec![
        name(object),
        text(spec, "type").into(),
        or_none(ip),
        external_ip(object).into(),
        or_none(&ports.join(",")),
        age(object, now),
        labels(&spec["selector"]),
    ]
}

fn host_port(ip: &str, port: &Value) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

pub(crate) fn endpoints(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut list = Vec::new();
    let subsets = items(object, "subsets");
    for subset in subsets {
        let addresses = || items(subset, "addresses").iter().map(|a| text(a, "ip"));
        let ports = items(subset, "ports");
        if ports.is_empty() {
            list.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            list.extend(addresses().map(|ip| host_port(ip, &port["port"])));
        }
    }
    let cell = if subsets.is_empty() { "<none>".into() } else { with_more(&list, list.len()) };
    vec![name(object), cell, age(object, now)]
}

pub(crate) fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = items(object, "ports")
        .iter()
        .map(|port| match (&port["port"], port["name"].as_str()) {
            (Value::Number(number), _) => number.to_string(),
            (_, Some(name)) => name.to_owned(),
            _ => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<String> = items(object, "endpoints")
        .iter()
        .flat_map(|endpoint| items(endpoint, "addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    vec![name(object), text(object, "addressType").into(), some_of(&ports), some_of(&addresses), age(object, now)]
}

pub(crate) fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let rules = items(spec, "rules");
    let hosts: Vec<String> =
        rules.iter().take(SHOWN + 1).map(|r| text(r, "host").to_owned()).filter(|h| !h.is_empty()).collect();
    let hosts = if hosts.is_empty() { "*".into() } else { with_more(&hosts, rules.len()) };
    vec![
        name(object),
        or_none(text(spec, "ingressClassName")),
        hosts,
        balancer_addresses(object).join(",").into(),
        if items(spec, "tls").is_empty() { "80" } else { "80, 443" }.into(),
        age(object, now),
    ]
}

pub(crate) fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = &object["spec"]["parameters"];
    let parameters_cell = if parameters.is_null() {
        "<none>".to_owned()
    } else {
        let dot = if is_set(parameters, "apiGroup") { "." } else { "" };
        format!("{}{dot}{}/{}", text(parameters, "kind"), text(parameters, "apiGroup"), text(parameters, "name"))
    };
    vec![
        super::name_or_default(object, "ingressclass.kubernetes.io/is-default-class"),
        text(&object["spec"], "controller").into(),
        parameters_cell.into(),
        age(object, now),
    ]
}

pub(crate) fn network_policy(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), selector(&object["spec"]["podSelector"]), age(object, now)]
}

pub(crate) fn service_cidr(object: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = items(&object["spec"], "cidrs").iter().filter_map(Value::as_str).collect();
    vec![name(object), cidrs.join(",").into(), age(object, now)]
}

pub(crate) fn ip_address(object: &Value, _: Timestamp) -> Vec<Value> {
    let parent = &object["spec"]["parentRef"];
    let parts = ["group", "resource", "namespace", "name"].map(|key| text(parent, key));
    let shown: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    vec![name(object), or_none(&shown.join("/"))]
}
