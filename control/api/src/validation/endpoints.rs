//! Endpoints (upstream: `ValidateEndpoints`).

use serde_json::Value;

use super::container::required_one_of;
use super::{At, Errors, addresses, is_set, items, names, text};

/// Endpoints.
pub(crate) fn endpoints(object: &Value, errors: &mut Errors) {
    let list_at = At::root("subsets");
    for (i, subset) in items(object, "subsets").iter().enumerate() {
        let at = list_at.index(i);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|list| items(subset, list).is_empty()) {
            errors.required(&at, "must specify `addresses` or `notReadyAddresses`");
        }
        for list in lists {
            for (j, address) in items(subset, list).iter().enumerate() {
                endpoint(address, &at.field(list).index(j), errors);
            }
        }
        let ports = items(subset, "ports");
        for (j, item) in ports.iter().enumerate() {
            port(item, ports.len() > 1, &at.field("ports").index(j), errors);
        }
    }
}

fn endpoint(endpoint: &Value, at: &At, errors: &mut Errors) {
    let (ip, ip_at) = (text(endpoint, "ip"), at.field("ip"));
    errors.rule(&ip_at, ip, names::ip);
    if !text(endpoint, "hostname").is_empty() {
        errors.rule(&at.field("hostname"), text(endpoint, "hostname"), names::label);
    }
    if is_set(endpoint, "nodeName") {
        errors.rule(&at.field("nodeName"), text(endpoint, "nodeName"), names::subdomain);
    }
    addresses::endpoint(ip, &ip_at, errors);
}

fn port(port: &Value, named: bool, at: &At, errors: &mut Errors) {
    match text(port, "name") {
        "" if named => errors.required(&at.field("name"), ""),
        "" => {}
        name => errors.rule(&at.field("name"), name, names::label),
    }
    let number = port["port"].as_i64().unwrap_or(0);
    if let Some(why) = names::port_number(number) {
        errors.invalid(&at.field("port"), number, why);
    }
    required_one_of(port, "protocol", &["SCTP", "TCP", "UDP"], at, errors);
    if is_set(port, "appProtocol") {
        errors.rule(&at.field("appProtocol"), text(port, "appProtocol"), names::qualified);
    }
}
