//! Namespace, Node, ConfigMap, Secret.

use base64::Engine;
use serde_json::Value;

use super::{At, Errors, entries, is_set, items, names, resources, scheduling, text};
use crate::strategy::{Sub, same};

/// The most bytes that a ConfigMap or Secret holds.
const MAX_DATA: usize = 1 << 20;

/// Bytes that a base64 text stands for, without decoding it.
fn decoded_len(text: &str) -> usize {
    let text = text.trim_end_matches('=');
    text.len() * 3 / 4
}

fn keys(map: &Value, at: &At, errors: &mut Errors) {
    for (key, _) in entries(map) {
        errors.rule(&at.key(key), key, names::config_key);
    }
}

/// ConfigMap.
pub(crate) fn config_map(object: &Value, errors: &mut Errors) {
    let (data, binary) = (&object["data"], &object["binaryData"]);
    let at = At::root("data");
    keys(data, &at, errors);
    keys(binary, &At::root("binaryData"), errors);
    for (key, _) in entries(data).filter(|(key, _)| binary.get(key.as_str()).is_some()) {
        errors.invalid(&at.key(key), key.as_str(), "duplicate of key present in binaryData");
    }
    let plain: usize = entries(data).map(|(_, v)| v.as_str().map_or(0, str::len)).sum();
    let encoded: usize = entries(binary).map(|(_, v)| v.as_str().map_or(0, decoded_len)).sum();
    if plain + encoded > MAX_DATA {
        errors.too_long(&At::root(""), MAX_DATA);
    }
}

/// An immutable ConfigMap or Secret stays as it is.
pub(crate) fn immutable_data(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    const WHY: &str = "field is immutable when `immutable` is set";
    if sub != Sub::Main || old["immutable"] != true {
        return;
    }
    if new["immutable"] != true {
        errors.forbidden(&At::root("immutable"), WHY);
    }
    for key in ["data", "binaryData"].into_iter().filter(|key| !same(&new[*key], &old[*key])) {
        errors.forbidden(&At::root(key), WHY);
    }
}

/// Secret.
pub(crate) fn secret(object: &Value, errors: &mut Errors) {
    let (data, at) = (&object["data"], At::root("data"));
    keys(data, &at, errors);
    let size: usize = entries(data).map(|(_, v)| v.as_str().map_or(0, decoded_len)).sum();
    if size > MAX_DATA {
        errors.too_long(&at, MAX_DATA);
    }
    let require = |key: &str, errors: &mut Errors| {
        if !is_set(data, key) {
            errors.required(&at.key(key), "");
        }
    };
    match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            if text(&object["metadata"]["annotations"], key).is_empty() {
                errors.required(&At::root("metadata.annotations").key(key), "");
            }
        }
        "kubernetes.io/dockercfg" => registry_config(data, ".dockercfg", &at, errors),
        "kubernetes.io/dockerconfigjson" => registry_config(data, ".dockerconfigjson", &at, errors),
        "kubernetes.io/basic-auth" if !is_set(data, "username") && !is_set(data, "password") => {
            require("username", errors);
            require("password", errors);
        }
        "kubernetes.io/ssh-auth" if text(data, "ssh-privatekey").is_empty() => {
            errors.required(&at.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            require("tls.crt", errors);
            require("tls.key", errors);
        }
        _ => {}
    }
}

/// Credentials of registries: a JSON object.
fn registry_config(data: &Value, key: &str, at: &At, errors: &mut Errors) {
    if !is_set(data, key) {
        return errors.required(&at.key(key), "");
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(text(data, key)).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&decoded) {
        errors.invalid(&at.key(key), "<secret contents redacted>", error.to_string());
    }
}

/// Namespace.
pub(crate) fn namespace(object: &Value, errors: &mut Errors) {
    let at = At::root("spec");
    let at = at.field("finalizers");
    for finalizer in items(&object["spec"], "finalizers").iter().filter_map(Value::as_str) {
        errors.rule(&at, finalizer, names::qualified);
        if !finalizer.contains('/') && finalizer != "kubernetes" && finalizer != "orphan" {
            errors.invalid(&at, finalizer, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
}

/// Node.
pub(crate) fn node(object: &Value, errors: &mut Errors) {
    let at = At::root("metadata");
    scheduling::taints(&object["spec"], &at.field("taints"), errors);
    node_resources(object, errors);
    let spec = At::root("spec");
    let cidrs = items(&object["spec"], "podCIDRs");
    let family = |six: bool| cidrs.iter().filter_map(Value::as_str).filter(|cidr| cidr.contains(':') == six).count();
    if cidrs.len() > 1 && (family(true) != 1 || family(false) != 1) {
        let why = "may specify no more than one CIDR for each IP family";
        errors.invalid(&spec.field("podCIDRs"), object["spec"]["podCIDRs"].clone(), why);
    }
    for (i, cidr) in items(&object["spec"], "podCIDRs").iter().filter_map(Value::as_str).enumerate() {
        if !is_cidr(cidr) {
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.invalid(&spec.field("podCIDRs").index(i), cidr, why);
        }
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((ip, bits)) = text.split_once('/') else {
        return false;
    };
    let (Ok(ip), Ok(bits)) = (ip.parse::<std::net::IpAddr>(), bits.parse::<u8>()) else {
        return false;
    };
    bits <= if ip.is_ipv4() { 32 } else { 128 }
}

fn node_resources(object: &Value, errors: &mut Errors) {
    let at = At::root("status");
    for list in ["capacity", "allocatable"] {
        let at = at.field(list);
        for (name, amount) in entries(&object["status"][list]) {
            resources::amount(name, amount, &at.field(name), errors);
        }
    }
}

/// Node: what has been assigned stays.
pub(crate) fn node_update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    if sub == Sub::Status {
        node_resources(new, errors);
    }
    let at = At::root("status");
    let addresses = items(&new["status"], "addresses");
    for (i, address) in addresses.iter().enumerate().filter(|(i, address)| addresses[..*i].contains(address)) {
        errors.duplicate(&at.field("addresses").index(i), address.clone());
    }
    let (new, old, at) = (&new["spec"], &old["spec"], At::root("spec"));
    if !items(old, "podCIDRs").is_empty() && new["podCIDRs"] != old["podCIDRs"] {
        errors.forbidden(&at.field("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    }
    if !text(old, "providerID").is_empty() && new["providerID"] != old["providerID"] {
        errors.forbidden(&at.field("providerID"), "node updates may not change providerID except from \"\" to valid");
    }
}
