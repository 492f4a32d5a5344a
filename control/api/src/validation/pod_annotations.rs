//! The annotations of a Pod that mean something (upstream: `ValidatePodSpecificAnnotations` and the older profiles).

use serde_json::Value;

use super::container::descending_path;
use super::pod_security::each_container;
use super::{At, Errors, entries, items, text};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The annotations of a Pod.
pub(super) fn annotations(pod: &Value, errors: &mut Errors) {
    let at = At::root("metadata");
    let at = at.field("annotations");
    let spec = &pod["spec"];
    for (key, value) in entries(&pod["metadata"]["annotations"]) {
        let (key, value) = (key.as_str(), value.as_str().unwrap_or_default());
        if key == MIRROR && text(spec, "nodeName").is_empty() {
            errors.invalid(&at.key(key), value, "must set spec.nodeName if mirror pod annotation is set");
        } else if key == DELETION_COST && !is_cost(value) {
            errors.invalid(&at.key(key), value, "must be a 32bit integer");
        } else if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(value, &at.field(key), errors);
        } else if let Some(container) = key.strip_prefix(APP_ARMOR) {
            app_armor(spec, container, value, &at.key(key), errors);
        }
    }
}

/// A number as people write it: no sign but `-`, no zero before it.
fn is_cost(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let padded = digits.starts_with('0') && (digits.len() > 1 || text.len() > 1);
    !text.starts_with('+') && !padded && text.parse::<i32>().is_ok()
}

fn seccomp(profile: &str, at: &At, errors: &mut Errors) {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => {}
        _ => match profile.strip_prefix("localhost/") {
            Some(file) => descending_path(file, at, errors),
            None => errors.invalid(at, profile, "must be a valid seccomp profile"),
        },
    }
}

fn app_armor(spec: &Value, name: &str, profile: &str, at: &At, errors: &mut Errors) {
    let mut found = false;
    each_container(spec, &At::root("spec"), |container, _| found |= text(container, "name") == name);
    if !found {
        errors.invalid(at, name, "container not found");
    }
    let known = matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with("localhost/");
    if !known {
        errors.invalid(at, profile, format!("invalid AppArmor profile name: {profile:?}"));
    }
}

/// Profiles and the mark of a mirror Pod stay as they were made.
pub(super) fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let at = At::root("metadata");
    let at = at.field("annotations");
    let (new, old) = (&new["metadata"]["annotations"], &old["metadata"]["annotations"]);
    let what = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, before) in entries(old) {
        if let Some(what) = what(key).filter(|_| new[key.as_str()] != *before) {
            errors.forbidden(&at.key(key), format!("may not remove or update {what}"));
        }
    }
    for (key, _) in entries(new).filter(|(key, _)| old.get(key.as_str()).is_none()) {
        if let Some(what) = what(key) {
            errors.forbidden(&at.key(key), format!("may not add {what}"));
        }
    }
}

/// Profiles said twice, as annotation and as field, agree.
pub(super) fn profiles_agree(pod: &Value, errors: &mut Errors) {
    let spec = &pod["spec"];
    if spec["os"]["name"] == "windows" {
        return;
    }
    let annotations = &pod["metadata"]["annotations"];
    each_container(spec, &At::root("spec"), |container, at| {
        let profile = match &container["securityContext"]["appArmorProfile"] {
            Value::Null => &spec["securityContext"]["appArmorProfile"],
            own => own,
        };
        let Some(annotation) = annotations[format!("{APP_ARMOR}{}", text(container, "name"))].as_str() else { return };
        let at = at.field("securityContext");
        let at = at.field("appArmorProfile");
        let same_kind = match text(profile, "type") {
            "Unconfined" => annotation == "unconfined",
            "RuntimeDefault" => annotation == "runtime/default",
            "Localhost" => annotation.starts_with("localhost/"),
            _ => return,
        };
        if !same_kind {
            errors.forbidden(&at.field("type"), "apparmor type in annotation and field must match");
        } else if let Some(file) = annotation.strip_prefix("localhost/")
            && file != text(profile, "localhostProfile")
        {
            errors.forbidden(&at.field("localhostProfile"), "apparmor profile in annotation and field must match");
        }
    });
}

/// The Pod's claims of devices, which mirror Pods cannot have.
pub(super) fn resource_claims(pod: &Value, spec: &Value, at: &At, errors: &mut Errors) {
    let claims = items(spec, "resourceClaims");
    for (i, claim) in claims.iter().enumerate() {
        if entries(&pod["metadata"]["annotations"]).any(|(key, _)| key == MIRROR) {
            errors.forbidden(&At::root(""), "static pods do not support resource claims");
            continue;
        }
        super::resources::pod_claim(claim, &claims[..i], &at.index(i), errors);
    }
}
