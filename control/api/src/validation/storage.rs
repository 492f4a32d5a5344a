//! The kinds of storage.k8s.io (upstream: `pkg/apis/storage/validation`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::{At, Errors, is_set, items, names, not_negative, text};

/// StorageClass.
pub(crate) fn storage_class(object: &Value, errors: &mut Errors) {
    match text(object, "provisioner") {
        "" => errors.required(&At::root("provisioner"), ""),
        name => {
            for why in names::qualified(&name.to_lowercase()) {
                errors.invalid(&At::root("provisioner"), name.to_lowercase(), why);
            }
        }
    }
    errors.one_of(&At::root("reclaimPolicy"), text(object, "reclaimPolicy"), &["Delete", "Retain"]);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    errors.one_of(&At::root("volumeBindingMode"), text(object, "volumeBindingMode"), &modes);
    for (i, term) in items(object, "allowedTopologies").iter().enumerate() {
        let at = At::root("allowedTopologies");
        let at = at.index(i);
        let at = at.field("matchLabelExpressions");
        let mut keys = BTreeSet::new();
        for (i, expression) in items(term, "matchLabelExpressions").iter().enumerate() {
            let at = at.index(i);
            let key = text(expression, "key");
            errors.rule(&at.field("key"), key, names::qualified);
            if items(expression, "values").is_empty() {
                errors.required(&at.field("values"), "");
            }
            if !keys.insert(key) {
                errors.duplicate(&at.field("key"), key);
            }
        }
    }
}

/// CSIDriver.
pub(crate) fn csi_driver(object: &Value, errors: &mut Errors) {
    let name = text(&object["metadata"], "name");
    if name.len() > 63 {
        errors.too_long(&At::root("metadata.name"), 63);
    }
    let (spec, at) = (&object["spec"], At::root("spec"));
    if let Some(policy) = spec["fsGroupPolicy"].as_str() {
        errors.one_of(&at.field("fsGroupPolicy"), policy, &["File", "None", "ReadWriteOnceWithFSType"]);
    }
    for mode in items(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
        errors.one_of(&at.field("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
    }
    let mut audiences = BTreeSet::new();
    for (i, request) in items(spec, "tokenRequests").iter().enumerate() {
        let at = at.field("tokenRequests");
        let at = at.index(i);
        if !audiences.insert(text(request, "audience")) {
            errors.duplicate(&at.field("audience"), text(request, "audience"));
        }
        let seconds_at = at.field("expirationSeconds");
        match request["expirationSeconds"].as_i64() {
            Some(n) if n < 600 => errors.invalid(&seconds_at, n, "may not specify a duration less than 10 minutes"),
            Some(n) if n > 1 << 32 => {
                errors.invalid(&seconds_at, n, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
}

/// CSINode.
pub(crate) fn csi_node(object: &Value, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (i, driver) in items(&object["spec"], "drivers").iter().enumerate() {
        let at = At::root("spec.drivers");
        let at = at.index(i);
        driver_name(driver, "name", &at, errors);
        let node = text(driver, "nodeID");
        match node.len() {
            0 => errors.required(&at.field("nodeID"), ""),
            257.. => errors.invalid(&at.field("nodeID"), node, "must be 256 characters or less"),
            _ => {}
        }
        not_negative(&driver["allocatable"]["count"], &at.field("allocatable").field("count"), errors);
        let mut keys = BTreeSet::new();
        for key in items(driver, "topologyKeys").iter().filter_map(Value::as_str) {
            if !keys.insert(key) {
                errors.duplicate(&at, key);
            }
            errors.rule(&at, key, names::qualified);
        }
        if !seen.insert(text(driver, "name")) {
            errors.duplicate(&at.field("name"), text(driver, "name"));
        }
    }
}

fn driver_name(value: &Value, key: &str, at: &At, errors: &mut Errors) {
    let name = text(value, key);
    if name.is_empty() {
        return errors.required(&at.field(key), "");
    }
    if name.len() > 63 {
        errors.too_long(&at.field(key), 63);
    }
    for why in names::subdomain(&name.to_lowercase()) {
        errors.invalid(&at.field(key), name, why);
    }
}

/// VolumeAttachment.
pub(crate) fn volume_attachment(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    driver_name(spec, "attacher", &at, errors);
    errors.rule(&at.field("nodeName"), text(spec, "nodeName"), names::subdomain);
    let (source, source_at) = (&spec["source"], at.field("source"));
    let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (is_set(source, "inlineVolumeSpec"), source["persistentVolumeName"].as_str()) {
        (false, None) => errors.required(&source_at, why),
        (true, Some(_)) => errors.forbidden(&source_at, why),
        (false, Some(name)) => errors.rule(&source_at.field("persistentVolumeName"), name, names::subdomain),
        (true, None) => {}
    }
}
