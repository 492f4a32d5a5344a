//! PersistentVolume and PersistentVolumeClaim.

use serde_json::{Value, json};

use super::{At, Errors, is_set, items, names, resources, scheduling, sources, text};
use crate::quantity::Quantity;
use crate::strategy::{Sub, same};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const MODES: [&str; 2] = ["Block", "Filesystem"];

/// PersistentVolumeClaim.
pub(crate) fn claim(object: &Value, errors: &mut Errors) {
    claim_spec(&object["spec"], &At::root("spec"), errors);
}

/// The spec of a claim, also of one that a template makes.
pub(crate) fn claim_spec(spec: &Value, at: &At, errors: &mut Errors) {
    access_modes(spec, "at least 1 access mode is required", at, errors);
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
    for class in ["storageClassName", "volumeAttributesClassName"] {
        if !text(spec, class).is_empty() {
            errors.rule(&at.field(class), text(spec, class), names::subdomain);
        }
    }
    if is_set(spec, "volumeMode") {
        errors.one_of(&at.field("volumeMode"), text(spec, "volumeMode"), &MODES);
    }
    for key in ["dataSource", "dataSourceRef"] {
        data_source(&spec[key], &at.field(key), errors);
    }
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if source.is_null() || reference.is_null() {
        return;
    }
    // Upstream prints its own path object, which has no public fields, as the value.
    let nothing = json!({});
    if !text(reference, "namespace").is_empty() {
        errors.invalid(at, nothing, "may not be specified when dataSourceRef.namespace is specified");
    } else if !["apiGroup", "kind", "name"].iter().all(|key| same(&source[*key], &reference[*key])) {
        errors.invalid(at, nothing, "must match dataSourceRef");
    }
}

fn data_source(source: &Value, at: &At, errors: &mut Errors) {
    if source.is_null() {
        return;
    }
    for key in ["name", "kind"].into_iter().filter(|key| text(source, key).is_empty()) {
        errors.required(&at.field(key), "");
    }
    let (group, kind) = (text(source, "apiGroup"), text(source, "kind"));
    if !group.is_empty() {
        errors.rule(&at.field("apiGroup"), group, names::subdomain);
    } else if kind != "PersistentVolumeClaim" {
        errors.invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    if !text(source, "namespace").is_empty() {
        errors.rule(&at.field("namespace"), text(source, "namespace"), names::label);
    }
}

fn access_modes(spec: &Value, none: &str, at: &At, errors: &mut Errors) {
    let (modes, at) = (items(spec, "accessModes"), at.field("accessModes"));
    if modes.is_empty() {
        errors.required(&at, none);
    }
    for mode in modes.iter().filter_map(Value::as_str) {
        errors.one_of(&at, mode, &ACCESS_MODES);
    }
    let alone = |mode: &Value| mode == "ReadWriteOncePod";
    let known = |mode: &Value| mode.as_str().is_some_and(|mode| ACCESS_MODES.contains(&mode));
    if modes.iter().any(alone) && modes.iter().any(|mode| known(mode) && !alone(mode)) {
        errors.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
}

/// PersistentVolume.
pub(crate) fn volume(object: &Value, errors: &mut Errors) {
    let (spec, at) = (&object["spec"], At::root("spec"));
    access_modes(spec, "", &at, errors);
    let capacity_at = at.field("capacity");
    let count = super::entries(&spec["capacity"]).count();
    if count == 0 {
        errors.required(&capacity_at, "");
    }
    if count > 1 || spec["capacity"]["storage"].is_null() {
        errors.not_supported(&capacity_at, spec["capacity"].clone(), &["storage"]);
    }
    for (name, amount) in super::entries(&spec["capacity"]) {
        resources::positive(amount, &capacity_at.key(name), errors);
    }
    let policy = text(spec, "persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        errors.one_of(&at.field("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
    }
    let bound_to_nodes = node_affinity(spec, &at.field("nodeAffinity"), errors);
    sources::one_of(spec, sources::PERSISTENT, &at, errors);
    if is_set(spec, "local") && !bound_to_nodes {
        errors.required(&at.field("nodeAffinity"), "Local volume requires node affinity");
    }
    let path = text(&spec["hostPath"], "path");
    if policy == "Recycle" && path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | ".")) {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(&at.field("persistentVolumeReclaimPolicy"), why);
    }
    let class = text(spec, "storageClassName");
    if !class.is_empty() {
        errors.rule(&at.field("storageClassName"), class, names::subdomain);
    }
    if is_set(spec, "volumeMode") {
        errors.one_of(&at.field("volumeMode"), text(spec, "volumeMode"), &MODES);
    }
    if is_set(spec, "volumeAttributesClassName") {
        let class_at = at.field("volumeAttributesClassName");
        match text(spec, "volumeAttributesClassName") {
            "" => errors.required(&class_at, "an empty string is disallowed"),
            class => errors.rule(&class_at, class, names::subdomain),
        }
        if !is_set(spec, "csi") {
            errors.required(&at.field("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

/// The nodes from which a volume can be reached; gives whether it says so.
fn node_affinity(spec: &Value, at: &At, errors: &mut Errors) -> bool {
    let affinity = &spec["nodeAffinity"];
    if affinity.is_null() {
        return false;
    }
    let at = at.field("required");
    if affinity["required"].is_null() {
        errors.required(&at, "must specify required node constraints");
        return false;
    }
    scheduling::node_selector(&affinity["required"], &at, errors);
    true
}

/// A volume keeps its source.
pub(crate) fn volume_update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    if sub != Sub::Main {
        return;
    }
    let (new, old, at) = (&new["spec"], &old["spec"], At::root("spec"));
    // The Secret for growing a volume can be named later.
    let secret_later = old["csi"]["controllerExpandSecretRef"].is_null();
    let changed = |key: &str| {
        let mut source = new[key].clone();
        if key == "csi" && secret_later {
            source.as_object_mut().map(|source| source.remove("controllerExpandSecretRef"));
        }
        !same(&source, &old[key])
    };
    if let Some((key, ..)) = sources::PERSISTENT.iter().find(|(key, ..)| changed(key)) {
        errors.forbidden(
            &at.field("persistentvolumesource"),
            format!("spec.persistentvolumesource is immutable after creation\n`spec.{key}` differs"),
        );
    }
    errors.immutable(&At::root("volumeMode"), &new["volumeMode"], &old["volumeMode"]);
    if is_set(old, "volumeAttributesClassName") && !is_set(new, "volumeAttributesClassName") {
        errors.forbidden(&at.field("volumeAttributesClassName"), "update from non-nil value to nil is forbidden");
    }
}

/// A claim keeps its spec; once it is bound, it can ask for more, and for other attributes.
pub(crate) fn claim_update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    if sub != Sub::Main {
        return;
    }
    let bound = text(&new["status"], "phase") == "Bound";
    // The classless claim gets a class, named by the administrator later.
    let named_later = !is_set(&old["spec"], "storageClassName") && is_set(&new["spec"], "storageClassName");
    let changed = |key: &str| {
        let (new, old) = (&new["spec"][key], &old["spec"][key]);
        let but_size = |resources: &Value| {
            let mut resources = resources.clone();
            if let Some(requests) = resources["requests"].as_object_mut() {
                requests.remove("storage");
            }
            resources
        };
        match key {
            "volumeName" if old.as_str().unwrap_or_default().is_empty() => false,
            "storageClassName" if named_later => false,
            "volumeAttributesClassName" if bound => false,
            "resources" if bound => !same(&but_size(new), &but_size(old)),
            _ => !same(new, old),
        }
    };
    let keys = super::entries(&new["spec"]).chain(super::entries(&old["spec"])).map(|(key, _)| key.as_str());
    if let Some(key) = keys.into_iter().find(|key| changed(key)) {
        errors.forbidden(
            &At::root("spec"),
            format!("spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n`spec.{key}` differs"),
        );
    }
    let asked = |claim: &Value| Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]);
    let given = Quantity::from_value(&old["status"]["capacity"]["storage"]).unwrap_or_default();
    if let (Some(new), Some(old)) = (asked(new), asked(old))
        && new < old
        && new <= given
    {
        errors.forbidden(&At::root("spec.resources.requests.storage"), "field can not be less than status.capacity");
    }
    errors.immutable(&At::root("volumeMode"), &new["spec"]["volumeMode"], &old["spec"]["volumeMode"]);
    attributes_class(new, old, errors);
}

/// A class of attributes that is in force is not taken away.
fn attributes_class(new: &Value, old: &Value, errors: &mut Errors) {
    let class = &new["spec"]["volumeAttributesClassName"];
    if !is_set(&old["status"], "currentVolumeAttributesClassName")
        || same(class, &old["spec"]["volumeAttributesClassName"])
    {
        return;
    }
    let what = match class.as_str() {
        None => "nil",
        Some("") => "empty string",
        Some(_) => return,
    };
    let why = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
    errors.forbidden(&At::root("spec.volumeAttributesClassName"), why);
}
