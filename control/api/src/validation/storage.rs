//! The kinds of storage.k8s.io (upstream: `pkg/apis/storage/validation`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{At, Errors, entries, is_set, items, names, not_negative, scheduling, text};
use crate::quantity::Quantity;
use crate::strategy::Sub;

/// The most parameters of a class; the most bytes of them, and of what is said of an attachment.
const MOST_PARAMETERS: usize = 512;
const MOST_DATA: usize = 256 * 1024;
const MOST_MESSAGE: usize = 1024;

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
    parameters(&object["parameters"], errors);
    errors.one_of(&At::root("reclaimPolicy"), text(object, "reclaimPolicy"), &["Delete", "Retain"]);
    let modes = ["Immediate", "WaitForFirstConsumer"];
    errors.one_of(&At::root("volumeBindingMode"), text(object, "volumeBindingMode"), &modes);
    let mut terms: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for (i, term) in items(object, "allowedTopologies").iter().enumerate() {
        let at = At::root("allowedTopologies");
        let at = at.index(i);
        let at = at.field("matchLabelExpressions");
        let mut found = BTreeMap::new();
        for (i, expression) in items(term, "matchLabelExpressions").iter().enumerate() {
            let at = at.index(i);
            let key = text(expression, "key");
            errors.rule(&at.field("key"), key, names::qualified);
            let values_at = at.field("values");
            if items(expression, "values").is_empty() {
                errors.required(&values_at, "");
            }
            let mut values = BTreeSet::new();
            for (i, value) in items(expression, "values").iter().filter_map(Value::as_str).enumerate() {
                if !values.insert(value) {
                    errors.duplicate(&values_at.index(i), value);
                }
            }
            if found.insert(key, values).is_some() {
                errors.duplicate(&at.field("key"), key);
            }
        }
        if found.is_empty() || terms.contains(&found) {
            errors.duplicate(&at, "");
        }
        terms.push(found);
    }
}

/// The parameters of a class: not too many, not too long.
fn parameters(parameters: &Value, errors: &mut Errors) {
    let (count, at) = (entries(parameters).count(), At::root("parameters"));
    if count > MOST_PARAMETERS {
        return errors.too_long(&at, MOST_PARAMETERS);
    }
    let mut size = 0;
    for (key, value) in entries(parameters) {
        if key.is_empty() {
            errors.invalid(&at, "", "field can not be empty.");
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MOST_DATA {
        errors.too_long(&at, MOST_DATA);
    }
}

/// VolumeAttributesClass.
pub(crate) fn attributes_class(object: &Value, errors: &mut Errors) {
    match text(object, "driverName").to_lowercase() {
        name if name.is_empty() => errors.required(&At::root("driverName"), ""),
        name => errors.rule(&At::root("driverName"), &name, names::qualified),
    }
    parameters(&object["parameters"], errors);
    if entries(&object["parameters"]).next().is_none() {
        errors.required(&At::root("parameters"), "must contain at least one key/value pair");
    }
}

/// CSIStorageCapacity.
pub(crate) fn capacity(object: &Value, errors: &mut Errors) {
    scheduling::label_selector(&object["nodeTopology"], &At::root("nodeTopology"), errors);
    errors.rule(&At::root("storageClassName"), text(object, "storageClassName"), names::subdomain);
    if let Some(capacity) = Quantity::from_value(&object["capacity"]).filter(Quantity::is_negative) {
        errors.invalid(&At::root("capacity"), capacity.to_string(), super::NOT_NEGATIVE);
    }
}

/// CSIDriver.
pub(crate) fn csi_driver(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    if let Some(seconds) = spec["nodeAllocatableUpdatePeriodSeconds"].as_i64().filter(|seconds| *seconds < 10) {
        let why = "must be greater than or equal to 10 seconds";
        errors.invalid(&at.field("nodeAllocatableUpdatePeriodSeconds"), seconds, why);
    }
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

/// A CSIDriver is attached or not for ever.
pub(crate) fn csi_driver_update(new: &Value, old: &Value, _: Sub, errors: &mut Errors) {
    let (new, old, at) = (&new["spec"], &old["spec"], At::root("spec"));
    errors.immutable(&at.field("attachedRequired"), &new["attachRequired"], &old["attachRequired"]);
    let key = "volumeLifecycleModes";
    errors.immutable(&at.field(key), &new[key], &old[key]);
}

/// Tokens that may be logged.
pub(crate) fn csi_driver_warnings(object: &Value, warnings: &mut Vec<String>) {
    let spec = &object["spec"];
    if !items(spec, "tokenRequests").is_empty() && !is_set(spec, "serviceAccountTokenInSecrets") {
        warnings.push(
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
             possible logging of tokens in volume attributes"
                .to_owned(),
        );
    }
}

/// What is known of a driver on a node stays, but for how many volumes it can have.
pub(crate) fn csi_node_update(new: &Value, old: &Value, _: Sub, errors: &mut Errors) {
    let fixed = |driver: &Value| {
        let mut driver = driver.clone();
        if let Some(driver) = driver.as_object_mut() {
            driver.remove("allocatable");
        }
        driver
    };
    for before in items(&old["spec"], "drivers") {
        for driver in items(&new["spec"], "drivers").iter().filter(|driver| driver["name"] == before["name"]) {
            errors.immutable(&At::root("spec.drivers"), &fixed(driver), &fixed(before));
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
            if key.is_empty() {
                errors.required(&at, "");
            }
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
        (false, Some("")) => {
            let at = source_at.field("persistentVolumeName");
            errors.required(&at, "must specify non empty persistentVolumeName");
            errors.rule(&at, "", names::subdomain);
        }
        (false, Some(name)) => errors.rule(&source_at.field("persistentVolumeName"), name, names::subdomain),
        (true, None) => {}
    }
}

/// What became of an attachment.
pub(crate) fn volume_attachment_update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    errors.immutable(&At::root("spec"), &new["spec"], &old["spec"]);
    if sub != Sub::Status {
        return;
    }
    let (status, at) = (&new["status"], At::root("status"));
    let metadata = entries(&status["attachmentMetadata"]);
    if metadata.map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum::<usize>() > MOST_DATA {
        errors.too_long(&at.field("attachmentMetadata"), MOST_DATA);
    }
    for key in ["attachError", "detachError"] {
        let at = at.field(key);
        if text(&status[key], "message").len() > MOST_MESSAGE {
            // The limit that upstream names is another.
            errors.too_long(&at.field("message"), MOST_DATA);
        }
        if let Some(code) = status[key]["errorCode"].as_i64().filter(|code| *code < 0) {
            errors.invalid(&at.field("errorCode"), code, "must be between 0 and 2147483647, inclusive");
        }
    }
}
