//! Endpoints (upstream: `ValidateEndpoints`), and the addresses that traffic can be sent to.

use serde_json::Value;

use super::container::required_one_of;
use super::{At, Errors, is_set, items, names, text};

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
    address(ip, &ip_at, errors);
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

/// An address that traffic can be sent to: none that has a meaning of its own (upstream: `ValidateEndpointIP`).
pub(super) fn address(ip: &str, at: &At, errors: &mut Errors) {
    let Ok(address) = ip.parse::<std::net::IpAddr>() else {
        return errors.invalid(at, ip, "must be a valid IP address");
    };
    let (link_local, link_local_multicast) = match address {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        std::net::IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        errors.invalid(at, ip, format!("may not be unspecified ({ip})"));
    }
    if address.is_loopback() {
        errors.invalid(at, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if link_local {
        errors.invalid(at, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        errors.invalid(at, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}
