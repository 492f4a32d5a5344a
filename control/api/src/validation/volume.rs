//! Volumes of a Pod.

use serde_json::Value;

use super::container::{descending_path, no_backsteps, required_name};
use super::env::{field_ref, resource_field_ref};
use super::{At, Errors, is_set, items, names, text};
use crate::quantity::Quantity;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that the sources of other systems must have.
const REQUIRED: &[(&str, &[&str])] = &[
    ("persistentVolumeClaim", &["claimName"]),
    ("nfs", &["server", "path"]),
    ("csi", &["driver"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("cephfs", &["monitors"]),
    ("rbd", &["monitors", "image"]),
    ("flexVolume", &["driver"]),
    ("cinder", &["volumeID"]),
    ("azureFile", &["secretName", "shareName"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("vsphereVolume", &["volumePath"]),
    ("portworxVolume", &["volumeID"]),
    ("gitRepo", &["repository"]),
];

/// All volumes; gives the names of those that are well-formed.
pub(crate) fn volumes<'a>(spec: &'a Value, at: &At, errors: &mut Errors) -> Vec<&'a str> {
    let mut names_seen: Vec<&'a str> = Vec::new();
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        let at = at.index(i);
        let before = errors.len();
        source(volume, &at, errors);
        required_name(volume, "name", names::label, &at, errors);
        let name = text(volume, "name");
        if names_seen.contains(&name) {
            errors.duplicate(&at.field("name"), name);
        }
        if errors.len() == before {
            names_seen.push(name);
        }
    }
    names_seen
}

fn source(volume: &Value, at: &At, errors: &mut Errors) {
    let mut kinds =
        super::entries(volume).filter(|(key, source)| *key != "name" && !source.is_null()).map(|(key, _)| key.as_str());
    let Some(kind) = kinds.next() else {
        return errors.required(at, "must specify a volume type");
    };
    for more in kinds {
        errors.forbidden(&at.field(more), "may not specify more than 1 volume type");
    }
    let (source, at) = (&volume[kind], at.field(kind));
    match kind {
        "emptyDir" => {
            if Quantity::from_value(&source["sizeLimit"]).is_some_and(|limit| limit.is_negative()) {
                errors.forbidden(&at.field("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => {
            match text(source, "path") {
                "" => errors.required(&at.field("path"), ""),
                path => no_backsteps(path, &at.field("path"), errors),
            }
            errors.one_of(&at.field("type"), text(source, "type"), &HOST_PATH_TYPES);
        }
        "configMap" | "secret" => {
            let name = if kind == "secret" { "secretName" } else { "name" };
            if text(source, name).is_empty() {
                errors.required(&at.field(name), "");
            }
            mode(source, "defaultMode", &at, errors);
            keys(source, &at, errors);
        }
        "downwardAPI" => {
            mode(source, "defaultMode", &at, errors);
            downward(source, &at, errors);
        }
        "projected" => projected(source, &at, errors),
        "image" => {
            if text(source, "reference").is_empty() {
                errors.required(&at.field("reference"), "");
            }
        }
        "ephemeral" => {
            if !is_set(source, "volumeClaimTemplate") {
                errors.required(&at.field("volumeClaimTemplate"), "");
            }
        }
        _ => {
            for field in REQUIRED.iter().find(|(name, _)| *name == kind).map_or(&[][..], |(_, fields)| fields) {
                if text(source, field).is_empty() && items(source, field).is_empty() {
                    errors.required(&at.field(field), "");
                }
            }
        }
    }
}

fn mode(source: &Value, key: &str, at: &At, errors: &mut Errors) {
    if let Some(bits) = source[key].as_i64().filter(|bits| !(0..=0o777).contains(bits)) {
        errors.invalid(&at.field(key), bits, MODE);
    }
}

/// Keys and the files they become.
fn keys(source: &Value, at: &At, errors: &mut Errors) {
    for (i, item) in items(source, "items").iter().enumerate() {
        let at = at.field("items");
        let at = at.index(i);
        if text(item, "key").is_empty() {
            errors.required(&at.field("key"), "");
        }
        let path = text(item, "path");
        if path.is_empty() {
            errors.required(&at.field("path"), "");
        }
        file(path, &at.field("path"), errors);
        mode(item, "mode", &at, errors);
    }
}

/// A relative path whose name is not reserved for the atomic writer.
fn file(path: &str, at: &At, errors: &mut Errors) {
    descending_path(path, at, errors);
    if path.starts_with("..") && !path.starts_with("../") {
        errors.invalid(at, path, "must not start with '..'");
    }
}

fn downward(source: &Value, at: &At, errors: &mut Errors) {
    for (i, item) in items(source, "items").iter().enumerate() {
        let at = at.field("items");
        let at = at.index(i);
        let path = text(item, "path");
        if path.is_empty() {
            errors.required(&at.field("path"), "");
        }
        file(path, &at.field("path"), errors);
        match (is_set(item, "fieldRef"), is_set(item, "resourceFieldRef")) {
            (true, true) => {
                errors.invalid(&at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
            }
            (true, false) => field_ref(&item["fieldRef"], &FIELDS, &at.field("fieldRef"), errors),
            (false, true) => resource_field_ref(&item["resourceFieldRef"], true, &at.field("resourceFieldRef"), errors),
            (false, false) => errors.required(&at, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(item, "mode", &at, errors);
    }
}

fn projected(source: &Value, at: &At, errors: &mut Errors) {
    mode(source, "defaultMode", at, errors);
    let mut paths: Vec<&str> = Vec::new();
    for (i, part) in items(source, "sources").iter().enumerate() {
        let at = at.field("sources");
        let at = at.index(i);
        let mut kinds = super::entries(part).filter(|(_, v)| !v.is_null()).map(|(key, _)| key.as_str());
        let Some(kind) = kinds.next() else { continue };
        for more in kinds {
            errors.forbidden(&at.field(more), "may not specify more than 1 volume type per source");
        }
        let (part, at) = (&part[kind], at.field(kind));
        match kind {
            "secret" | "configMap" => {
                if text(part, "name").is_empty() {
                    errors.required(&at.field("name"), "");
                }
                keys(part, &at, errors);
            }
            "downwardAPI" => downward(part, &at, errors),
            "serviceAccountToken" => {
                let seconds = part["expirationSeconds"].as_i64().unwrap_or(0);
                if seconds < 600 {
                    errors.invalid(
                        &at.field("expirationSeconds"),
                        seconds,
                        "may not specify a duration less than 10 minutes",
                    );
                } else if seconds > 1 << 32 {
                    errors.invalid(
                        &at.field("expirationSeconds"),
                        seconds,
                        "may not specify a duration larger than 2^32 seconds",
                    );
                }
                if text(part, "path").is_empty() {
                    errors.required(&at.field("path"), "");
                }
                file(text(part, "path"), &at.field("path"), errors);
            }
            _ => {}
        }
        let own = [text(part, "path")].into_iter().filter(|p| !p.is_empty());
        for path in own.chain(items(part, "items").iter().map(|item| text(item, "path"))) {
            if paths.contains(&path) {
                errors.invalid(&at, text(part, "name"), format!("conflicting duplicate paths: {path}"));
            }
            paths.push(path);
        }
    }
}
