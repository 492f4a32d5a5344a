//! Quantities: resource names, requests and limits.

use serde_json::Value;

use super::{At, Errors, NOT_NEGATIVE, entries, names};
use crate::quantity::Quantity;

/// Resources that are counted, not measured.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// A resource of which more may be promised than there is.
fn overcommits(name: &str) -> bool {
    is_native(name) && !is_huge(name)
}

/// `example.com/gpu`: fully qualified and not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified(&format!("requests.{name}")).is_empty()
}

/// One amount of a resource.
pub(crate) fn amount(name: &str, value: &Value, at: &At, errors: &mut Errors) {
    let Some(quantity) = Quantity::from_value(value) else {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        errors.invalid(at, text.clone(), Quantity::parse(&text).err().map_or_else(String::new, |e| e.to_string()));
        return;
    };
    if quantity.is_negative() {
        errors.invalid(at, quantity.to_string(), NOT_NEGATIVE);
    }
    let counted = COUNTED.contains(&name) || is_extended(name);
    if counted && !quantity.is_whole() {
        errors.invalid(at, quantity.to_string(), "must be an integer");
    }
}

/// An amount of more than nothing.
pub(crate) fn positive(value: &Value, at: &At, errors: &mut Errors) {
    if let Some(quantity) = Quantity::from_value(value).filter(|q| q.is_negative() || q.milli_value() == 0) {
        errors.invalid(at, quantity.to_string(), "must be greater than zero");
    }
}

fn container_resource(name: &str, at: &At, errors: &mut Errors) {
    let mut messages = names::qualified(name);
    if messages.is_empty() {
        if !name.contains('/') {
            if !(matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge(name)) {
                let standard = COUNTED.contains(&name)
                    || matches!(name, "storage" | "requests.storage")
                    || name.starts_with("requests.")
                    || name.starts_with("limits.");
                if !standard {
                    messages.push("must be a standard resource type or fully qualified".to_owned());
                }
                messages.push("must be a standard resource for containers".to_owned());
            }
        } else if !is_native(name) && !is_extended(name) {
            messages.push("doesn't follow extended resource name standard".to_owned());
        }
    }
    for message in messages {
        errors.invalid(at, name, message);
    }
}

/// The `resources` of a container.
pub(crate) fn requirements(resources: &Value, at: &At, errors: &mut Errors) {
    let (limits, requests) = (&resources["limits"], &resources["requests"]);
    let (limits_at, requests_at) = (at.field("limits"), at.field("requests"));
    for (list, list_at) in [(limits, &limits_at), (requests, &requests_at)] {
        for (name, value) in entries(list) {
            container_resource(name, &list_at.key(name), errors);
            amount(name, value, &list_at.key(name), errors);
        }
    }
    for (name, value) in entries(requests) {
        let Some(request) = Quantity::from_value(value) else {
            continue;
        };
        match limits.get(name).and_then(Quantity::from_value) {
            Some(limit) if request != limit && !overcommits(name) => {
                errors.invalid(&requests_at, request.to_string(), format!("must be equal to {name} limit of {limit}"));
            }
            Some(limit) if request > limit => {
                errors.invalid(
                    &requests_at,
                    request.to_string(),
                    format!("must be less than or equal to {name} limit of {limit}"),
                );
            }
            None if !overcommits(name) => {
                errors.required(&limits_at, "Limit must be set for non overcommitable resources")
            }
            _ => {}
        }
    }
    let any = |test: fn(&str) -> bool| entries(limits).chain(entries(requests)).any(|(name, _)| test(name));
    if any(is_huge) && !any(|name| matches!(name, "cpu" | "memory")) {
        errors.forbidden(at, "HugePages require cpu or memory");
    }
}
