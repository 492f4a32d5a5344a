//! EndpointSlice (upstream: `pkg/apis/discovery/validation`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{At, Errors, addresses, items, names, text};

const MOST_ENDPOINTS: usize = 1000;
const MOST_ADDRESSES: usize = 100;
const MOST_PORTS: usize = 20_000;
const MOST_HINTS: usize = 8;

/// EndpointSlice: its addresses and ports.
pub(crate) fn endpoint_slice(object: &Value, errors: &mut Errors) {
    let family = text(object, "addressType");
    match family {
        "" => errors.required(&At::root("addressType"), ""),
        _ => errors.one_of(&At::root("addressType"), family, &["FQDN", "IPv4", "IPv6"]),
    }
    let (endpoints, at) = (items(object, "endpoints"), At::root("endpoints"));
    if endpoints.len() > MOST_ENDPOINTS {
        errors.too_many(&at, endpoints.len(), MOST_ENDPOINTS);
    } else {
        for (i, found) in endpoints.iter().enumerate() {
            endpoint(found, family, &at.index(i), errors);
        }
    }
    ports(object, errors);
}

fn endpoint(endpoint: &Value, family: &str, at: &At, errors: &mut Errors) {
    let (addresses, addresses_at) = (items(endpoint, "addresses"), at.field("addresses"));
    if addresses.is_empty() {
        errors.required(&addresses_at, "must contain at least 1 address");
    } else if addresses.len() > MOST_ADDRESSES {
        errors.too_many(&addresses_at, addresses.len(), MOST_ADDRESSES);
    }
    for (i, found) in addresses.iter().filter_map(Value::as_str).enumerate() {
        address(found, family, &addresses_at, &addresses_at.index(i), errors);
    }
    for (key, rule) in [("nodeName", names::subdomain as names::Rule), ("hostname", names::label)] {
        if let Some(name) = endpoint[key].as_str() {
            errors.rule(&at.field(key), name, rule);
        }
    }
    for (key, rule) in [("forZones", names::label_value as names::Rule), ("forNodes", names::subdomain)] {
        let (hints, hints_at) = (items(&endpoint["hints"], key), at.field("hints"));
        let hints_at = hints_at.field(key);
        if hints.len() > MOST_HINTS {
            return errors.too_many(&hints_at, hints.len(), MOST_HINTS);
        }
        let mut seen = BTreeSet::new();
        for (i, name) in hints.iter().map(|hint| text(hint, "name")).enumerate() {
            let at = hints_at.index(i);
            if !seen.insert(name) {
                errors.duplicate(&at.field("name"), name);
            }
            errors.rule(&at.field("name"), name, rule);
        }
    }
}

fn address(address: &str, family: &str, list: &At, at: &At, errors: &mut Errors) {
    let before = errors.len();
    match family {
        // What was valid before the canonical form was asked for is valid still.
        "IPv4" if names::ip(address).is_empty() => {}
        "IPv4" | "IPv6" => errors.rule(at, address, addresses::ip),
        "FQDN" => return errors.rule(at, address, names::subdomain),
        _ => return,
    }
    if errors.len() > before {
        return;
    }
    match (family, address.contains(':')) {
        ("IPv4", true) => errors.invalid(list, address, "must be an IPv4 address"),
        ("IPv6", false) => errors.invalid(list, address, "must be an IPv6 address"),
        _ => {}
    }
    addresses::endpoint(address, at, errors);
}

fn ports(object: &Value, errors: &mut Errors) {
    let (ports, at) = (items(object, "ports"), At::root("ports"));
    if ports.len() > MOST_PORTS {
        return errors.too_many(&at, ports.len(), MOST_PORTS);
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.rule(&at.field("name"), name, names::label);
        }
        if !seen.insert(name) {
            errors.duplicate(&at.field("name"), name);
        }
        match text(port, "protocol") {
            "" => errors.required(&at.field("protocol"), ""),
            protocol => errors.one_of(&at.field("protocol"), protocol, &["SCTP", "TCP", "UDP"]),
        }
        if let Some(protocol) = port["appProtocol"].as_str() {
            errors.rule(&at.field("appProtocol"), protocol, names::qualified);
        }
    }
}

/// Names where addresses should be.
pub(crate) fn warnings(object: &Value, warnings: &mut Vec<String>) {
    if text(object, "addressType") == "FQDN" {
        warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
    }
}
