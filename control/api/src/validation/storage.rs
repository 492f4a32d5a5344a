//! The kinds of storage.k8s.io, and claims (upstream: `pkg/apis/storage/validation`, `pkg/apis/core/validation`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::rbac::required;
use super::{At, Errors, is_set, items, names, not_negative, resources, scheduling, text};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

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

/// PersistentVolumeClaim.
pub(crate) fn claim(object: &Value, errors: &mut Errors) {
    claim_spec(&object["spec"], &At::root("spec"), errors);
}

/// The spec of a claim, also of one that a template makes.
pub(crate) fn claim_spec(spec: &Value, at: &At, errors: &mut Errors) {
    access_modes(spec, at, errors);
    if is_set(spec, "selector") {
        scheduling::label_selector(&spec["selector"], &at.field("selector"), errors);
    }
    let size = &spec["resources"]["requests"]["storage"];
    let resources_at = at.field("resources");
    if size.is_null() {
        errors.required(&resources_at.key("storage"), "");
    } else {
        resources::positive(size, &resources_at.key("storage"), errors);
    }
    if let Some(class) = spec["storageClassName"].as_str().filter(|class| !class.is_empty()) {
        errors.rule(&at.field("storageClassName"), class, names::subdomain);
    }
    if let Some(mode) = spec["volumeMode"].as_str() {
        errors.one_of(&at.field("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    if is_set(spec, "dataSource") {
        let (source, at) = (&spec["dataSource"], at.field("dataSource"));
        for key in ["name", "kind"] {
            required(source, key, names::any, &at, errors);
        }
        if text(source, "apiGroup").is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
            errors.invalid(
                &at,
                text(source, "kind"),
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            );
        }
    }
}

fn access_modes(spec: &Value, at: &At, errors: &mut Errors) {
    let (modes, at) = (items(spec, "accessModes"), at.field("accessModes"));
    if modes.is_empty() {
        errors.required(&at, "at least 1 access mode is required");
    }
    for mode in modes.iter().filter_map(Value::as_str) {
        errors.one_of(&at, mode, &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

/// PersistentVolume: what all volumes share.
pub(crate) fn volume(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    access_modes_of_volume(spec, &at, errors);
    let capacity = super::entries(&spec["capacity"]).collect::<Vec<_>>();
    let capacity_at = at.field("capacity");
    if capacity.is_empty() {
        errors.required(&capacity_at, "");
    }
    if capacity.len() > 1 || spec["capacity"]["storage"].is_null() {
        errors.not_supported(&capacity_at, spec["capacity"].clone(), &["storage"]);
    }
    for (name, amount) in capacity {
        resources::positive(amount, &capacity_at.key(name), errors);
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        errors.one_of(&at.field("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        errors.rule(&at.field("storageClassName"), class, names::subdomain);
    }
    if let Some(mode) = spec["volumeMode"].as_str() {
        errors.one_of(&at.field("volumeMode"), mode, &["Block", "Filesystem"]);
    }
    const SHARED: [&str; 10] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
        "status",
    ];
    let sources: Vec<&String> = super::entries(spec)
        .filter(|(key, value)| !SHARED.contains(&key.as_str()) && !value.is_null())
        .map(|(key, _)| key)
        .collect();
    if sources.is_empty() {
        errors.required(&at, "must specify a volume type");
    }
    for key in sources.iter().skip(1) {
        errors.forbidden(&at.field(key), "may not specify more than 1 volume type");
    }
    if is_set(spec, "hostPath") {
        let path_at = at.field("hostPath");
        let path = text(&spec["hostPath"], "path");
        if path.is_empty() {
            errors.required(&path_at.field("path"), "");
        }
        if path.split('/').any(|part| part == "..") {
            errors.invalid(&path_at.field("path"), path, "must not contain '..'");
        }
    }
}

fn access_modes_of_volume(spec: &Value, at: &At, errors: &mut Errors) {
    let (modes, at) = (items(spec, "accessModes"), at.field("accessModes"));
    if modes.is_empty() {
        errors.required(&at, "");
    }
    for mode in modes.iter().filter_map(Value::as_str) {
        errors.one_of(&at, mode, &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        errors.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

/// A claim keeps its spec, but for its size, once it is there.
pub(crate) fn claim_update(new: &Value, old: &Value, sub: crate::strategy::Sub, errors: &mut Errors) {
    if sub != crate::strategy::Sub::Main {
        return;
    }
    // The volume's name is set once; sizes may change; so may the class of attributes.
    let rest = |claim: &Value| {
        let mut spec = claim["spec"].clone();
        if let Some(spec) = spec.as_object_mut() {
            for key in ["resources", "volumeAttributesClassName"] {
                spec.remove(key);
            }
            if text(&old["spec"], "volumeName").is_empty() {
                spec.remove("volumeName");
            }
        }
        spec
    };
    if !crate::strategy::same(&rest(new), &rest(old)) {
        errors.forbidden(
            &At::root("spec"),
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let size =
        |claim: &Value| crate::quantity::Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]);
    if let (Some(new), Some(old)) = (size(new), size(old))
        && new < old
    {
        errors.forbidden(&At::root("spec.resources.requests.storage"), "field can not be less than previous value");
    }
}
