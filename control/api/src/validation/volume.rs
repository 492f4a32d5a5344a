//! Volumes of a Pod.

use serde_json::Value;

use super::container::{descending_path, required_name, required_one_of};
use super::env::{field_ref, resource_field_ref};
use super::sources::Check::{Need, Other};
use super::sources::{self, Row};
use super::{At, Errors, is_set, items, meta, names, persistent, text};
use crate::quantity::Quantity;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// The sources that only Pods have.
const OWN: &[Row] = &[
    ("emptyDir", "emptyDir", &[Other(empty_dir)]),
    ("secret", "secret", &[Need("secretName"), Other(files)]),
    ("downwardAPI", "downwardAPI", &[Other(downward_source)]),
    ("configMap", "configMap", &[Need("name"), Other(files)]),
    ("projected", "projected", &[Other(projected)]),
    ("ephemeral", "ephemeral", &[Other(ephemeral)]),
    ("image", "image", &[Other(image)]),
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
    let mut given = sources::IN_POD.iter().chain(OWN).filter(|(key, ..)| is_set(volume, key));
    let first = given.clone().find(|(key, ..)| *key == "emptyDir").or_else(|| given.next());
    let Some((kind, shown, checks)) = first else {
        return errors.required(at, "must specify a volume type");
    };
    for (more, ..) in sources::IN_POD.iter().chain(OWN).filter(|(key, ..)| key != kind && is_set(volume, key)) {
        errors.forbidden(&at.field(more), "may not specify more than 1 volume type");
    }
    sources::source(&volume[*kind], checks, &at.field(shown), errors);
}

fn empty_dir(source: &Value, at: &At, errors: &mut Errors) {
    if Quantity::from_value(&source["sizeLimit"]).is_some_and(|limit| limit.is_negative()) {
        errors.forbidden(&at.field("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn files(source: &Value, at: &At, errors: &mut Errors) {
    mode(source, "defaultMode", at, errors);
    keys(source, at, errors);
}

fn image(source: &Value, at: &At, errors: &mut Errors) {
    if text(source, "reference").is_empty() {
        errors.required(&at.field("reference"), "");
    }
    required_one_of(source, "pullPolicy", &["Always", "IfNotPresent", "Never"], at, errors);
}

fn ephemeral(source: &Value, at: &At, errors: &mut Errors) {
    let (template, at) = (&source["volumeClaimTemplate"], at.field("volumeClaimTemplate"));
    if template.is_null() {
        return errors.required(&at, "");
    }
    let metadata_at = at.field("metadata");
    meta::template(&template["metadata"], &metadata_at, errors);
    let named = super::entries(&template["metadata"])
        .filter(|(key, value)| !matches!(key.as_str(), "labels" | "annotations") && !value.is_null() && *value != "");
    for (key, _) in named {
        errors.forbidden(&metadata_at.field(key), "cannot be set");
    }
    persistent::claim_spec(&template["spec"], &at.field("spec"), errors);
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

fn downward_source(source: &Value, at: &At, errors: &mut Errors) {
    mode(source, "defaultMode", at, errors);
    downward(source, at, errors);
}

/// Files made of fields; upstream's paths do not say which file.
fn downward(source: &Value, at: &At, errors: &mut Errors) {
    for item in items(source, "items") {
        let path = text(item, "path");
        if path.is_empty() {
            errors.required(&at.field("path"), "");
        }
        file(path, &at.field("path"), errors);
        match (is_set(item, "fieldRef"), is_set(item, "resourceFieldRef")) {
            (true, true) => {
                errors.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
            (true, false) => field_ref(&item["fieldRef"], &FIELDS, &at.field("fieldRef"), errors),
            (false, true) => resource_field_ref(&item["resourceFieldRef"], true, &at.field("resourceFieldRef"), errors),
            (false, false) => errors.required(at, "one of fieldRef and resourceFieldRef is required"),
        }
        mode(item, "mode", at, errors);
    }
}

fn projected(source: &Value, projected_at: &At, errors: &mut Errors) {
    const KINDS: [&str; 4] = ["secret", "configMap", "downwardAPI", "serviceAccountToken"];
    mode(source, "defaultMode", projected_at, errors);
    let mut paths: Vec<&str> = Vec::new();
    for (i, part) in items(source, "sources").iter().enumerate() {
        let list_at = projected_at.field("sources");
        let part_at = list_at.index(i);
        let given: Vec<&str> = KINDS.into_iter().filter(|kind| is_set(part, kind)).collect();
        for kind in &given {
            let (part, at) = (&part[*kind], part_at.field(kind));
            match *kind {
                "downwardAPI" => downward(part, &at, errors),
                "serviceAccountToken" => token(part, projected_at, &at, errors),
                _ => {
                    if text(part, "name").is_empty() {
                        errors.required(&at.field("name"), "");
                    }
                    keys(part, &at, errors);
                }
            }
            for path in items(part, "items").iter().map(|item| text(item, "path")).filter(|path| !path.is_empty()) {
                if paths.contains(&path) {
                    let value = if *kind == "downwardAPI" { path } else { text(part, "name") };
                    errors.invalid(projected_at, value, "conflicting duplicate paths");
                }
                paths.push(path);
            }
        }
        if given.len() > 1 {
            errors.forbidden(&part_at, "may not specify more than 1 volume type per source");
        }
    }
}

/// A token of the Pod's service account; upstream names its path as the volume's.
fn token(part: &Value, projected_at: &At, at: &At, errors: &mut Errors) {
    let seconds = part["expirationSeconds"].as_i64().unwrap_or(0);
    let seconds_at = at.field("expirationSeconds");
    if seconds < 600 {
        errors.invalid(&seconds_at, seconds, "may not specify a duration less than 10 minutes");
    } else if seconds > 1 << 32 {
        errors.invalid(&seconds_at, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    let (path, path_at) = (text(part, "path"), projected_at.field("path"));
    if path.is_empty() {
        errors.required(&path_at, "");
    }
    file(path, &path_at, errors);
}

/// A token in a volume needs an account.
pub(crate) fn tokens_without_account(spec: &Value, at: &At, errors: &mut Errors) {
    if !text(spec, "serviceAccountName").is_empty() {
        return;
    }
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        let at = at.index(i);
        let at = at.field("projected");
        let at = at.field("sources");
        let parts = items(&volume["projected"], "sources").iter().enumerate();
        for (j, _) in parts.filter(|(_, part)| is_set(part, "serviceAccountToken")) {
            let why = "must not be specified when serviceAccountName is not set";
            errors.forbidden(&at.index(j).field("serviceAccountToken"), why);
        }
    }
}
