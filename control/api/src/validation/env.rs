//! A container's environment, and the fields of a Pod or container that it and volumes can name.

use serde_json::Value;

use super::container::{no_backsteps, required_name};
use super::{At, Errors, is_set, items, names, text};
use crate::quantity::Quantity;

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn env(container: &Value, at: &At, errors: &mut Errors) {
    for (i, variable) in items(container, "env").iter().enumerate() {
        let at = at.index(i);
        required_name(variable, "name", names::env_name, &at, errors);
        let from = &variable["valueFrom"];
        if from.is_null() {
            continue;
        }
        let at = at.field("valueFrom");
        let sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
        let given = sources.iter().filter(|source| is_set(from, source)).count();
        if is_set(from, "fieldRef") {
            field_ref(&from["fieldRef"], &ENV_FIELDS, &at.field("fieldRef"), errors);
        }
        if is_set(from, "resourceFieldRef") {
            resource_field_ref(&from["resourceFieldRef"], false, &at.field("resourceFieldRef"), errors);
        }
        for source in ["configMapKeyRef", "secretKeyRef"].into_iter().filter(|source| is_set(from, source)) {
            let at = at.field(source);
            errors.rule(&at.field("name"), text(&from[source], "name"), names::subdomain);
            required_name(&from[source], "key", names::config_key, &at, errors);
        }
        if is_set(from, "fileKeyRef") {
            file_key(&from["fileKeyRef"], &at.field("fileKeyRef"), errors);
        }
        if given == 0 {
            errors.invalid(&at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
        } else if !text(variable, "value").is_empty() {
            errors.invalid(&at, "", "may not be specified when `value` is not empty");
        } else if given > 1 {
            errors.invalid(&at, "", "may not have more than one field specified at a time");
        }
    }
}

/// A variable in a file.
fn file_key(from: &Value, at: &At, errors: &mut Errors) {
    required_name(from, "key", names::env_name, at, errors);
    required_name(from, "volumeName", names::label, at, errors);
    match text(from, "path") {
        "" => errors.required(&at.field("path"), ""),
        path => no_backsteps(path, &at.field("path"), errors),
    }
}

/// A field of the Pod, or a label or annotation of it by key.
pub(crate) fn field_ref(reference: &Value, supported: &[&str], at: &At, errors: &mut Errors) {
    if text(reference, "apiVersion").is_empty() {
        return errors.required(&at.field("apiVersion"), "");
    }
    let path = text(reference, "fieldPath");
    if path.is_empty() {
        return errors.required(&at.field("fieldPath"), "");
    }
    let version = text(reference, "apiVersion");
    if version != "v1" {
        let why = format!("error converting fieldPath: unsupported pod version: {version}");
        return errors.invalid(&at.field("fieldPath"), path, why);
    }
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        match map {
            "metadata.annotations" => errors.rule(at, &key.to_lowercase(), names::qualified),
            "metadata.labels" => errors.rule(at, key, names::qualified),
            _ => {
                let why = format!("error converting fieldPath: field label does not support subscript: {path}");
                errors.invalid(&at.field("fieldPath"), path, why);
            }
        }
    } else if !supported.contains(&path) {
        let known = matches!(path, "metadata.labels" | "metadata.annotations") || ENV_FIELDS.contains(&path);
        if known {
            errors.not_supported(&at.field("fieldPath"), path, supported);
        } else {
            errors.invalid(
                &at.field("fieldPath"),
                path,
                format!("error converting fieldPath: field label not supported: {path}"),
            );
        }
    }
}

/// An amount of a resource of a container.
pub(crate) fn resource_field_ref(reference: &Value, in_volume: bool, at: &At, errors: &mut Errors) {
    let resource = text(reference, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && text(reference, "containerName").is_empty() {
        errors.required(&at.field("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&at.field("resource"), "");
    } else if !huge {
        errors.one_of(&at.field("resource"), resource, &RESOURCE_FIELDS);
    }
    let Some(divisor) = Quantity::from_value(&reference["divisor"]).filter(|d| !d.is_zero()) else {
        return;
    };
    let divisor = divisor.to_string();
    if resource.ends_with(".cpu") {
        if !matches!(divisor.as_str(), "1m" | "1") {
            errors.invalid(
                &at.field("divisor"),
                resource,
                "only divisor's values 1m and 1 are supported with the cpu resource",
            );
        }
    } else if !matches!(
        divisor.as_str(),
        "1" | "1k" | "1M" | "1G" | "1T" | "1P" | "1E" | "1Ki" | "1Mi" | "1Gi" | "1Ti" | "1Pi" | "1Ei"
    ) {
        let kind = match resource.rsplit('.').next().unwrap_or_default() {
            "memory" => "memory",
            "ephemeral-storage" => "local ephemeral storage",
            _ => "hugepages",
        };
        let values = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
        errors.invalid(
            &at.field("divisor"),
            resource,
            format!("only divisor's values {values} are supported with the {kind} resource"),
        );
    }
}

pub(super) fn env_from(container: &Value, list_at: &At, errors: &mut Errors) {
    for (i, source) in items(container, "envFrom").iter().enumerate() {
        let at = list_at.index(i);
        if !text(source, "prefix").is_empty() {
            errors.rule(&at.field("prefix"), text(source, "prefix"), names::env_name);
        }
        let mut given = 0;
        for key in ["configMapRef", "secretRef"].into_iter().filter(|key| is_set(source, key)) {
            given += 1;
            required_name(&source[key], "name", names::subdomain, &at.field(key), errors);
        }
        if given == 0 {
            errors.invalid(list_at, "", "must specify one of: `configMapRef` or `secretRef`");
        } else if given > 1 {
            errors.invalid(list_at, "", "may not have more than one field specified at a time");
        }
    }
}
