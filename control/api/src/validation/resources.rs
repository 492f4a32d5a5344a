//! Quantities: resource names, requests and limits.

use serde_json::Value;

use super::{At, Errors, NOT_NEGATIVE, entries, is_set, items, names, text};
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

/// Huge pages come as whole pages.
fn whole_pages(name: &str, value: &Value, at: &At, errors: &mut Errors) {
    let (Some(page), Some(quantity)) = (name.strip_prefix("hugepages-"), Quantity::from_value(value)) else { return };
    let size = Quantity::parse(page).ok().filter(Quantity::is_whole).map_or(0, |page| page.value());
    if size <= 0 || quantity.value() % size != 0 {
        errors.invalid(at, quantity.to_string(), format!("{quantity} is not positive integer multiple of {name}"));
    }
}

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// A resource of which more may be promised than there is.
pub(crate) fn overcommits(name: &str) -> bool {
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

/// A resource of Kubernetes' own, of whatever use.
fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage" | "storage")
        || is_huge(name)
        || COUNTED.contains(&name)
        || name.starts_with("requests.")
        || name.starts_with("limits.")
}

/// The name of what a quota can count; names with a domain are free.
pub(crate) fn quota_resource(name: &str, at: &At, errors: &mut Errors) {
    const AMOUNTS: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "storage"];
    if name.contains('/') {
        return;
    }
    if names::qualified(name).is_empty() && !is_standard(name) {
        errors.invalid(at, name, "must be a standard resource type or fully qualified");
    }
    let counted = match name.split_once('.') {
        Some(("requests", amount)) => AMOUNTS.contains(&amount) || is_huge(amount),
        Some(("limits", amount)) => AMOUNTS[..3].contains(&amount),
        _ => AMOUNTS[..3].contains(&name) || is_huge(name),
    };
    if !counted && !COUNTED.contains(&name) {
        errors.invalid(at, name, "must be a standard resource for quota");
    }
}

/// The name of what a container can ask for.
pub(crate) fn container_resource(name: &str, at: &At, errors: &mut Errors) {
    let mut messages = names::qualified(name);
    let well_formed = messages.is_empty();
    if !name.contains('/') || well_formed {
        if !name.contains('/') {
            if !(matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge(name)) {
                if well_formed && !is_standard(name) {
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
pub(crate) fn requirements(resources: &Value, spec: &Value, at: &At, errors: &mut Errors) {
    let known: Vec<&str> = items(spec, "resourceClaims").iter().map(|claim| text(claim, "name")).collect();
    claims(items(resources, "claims"), &known, &at.field("claims"), errors);
    amounts(resources, container_resource, at, errors);
}

/// The `resources` of a Pod as a whole.
pub(crate) fn pod_requirements(spec: &Value, at: &At, errors: &mut Errors) {
    let resources = &spec["resources"];
    if is_set(resources, "claims") {
        errors.forbidden(&at.field("claims"), "claims may not be set for Resources at pod-level");
        let known: Vec<&str> = items(spec, "resourceClaims").iter().map(|claim| text(claim, "name")).collect();
        claims(items(resources, "claims"), &known, &at.field("claims"), errors);
    }
    amounts(resources, pod_resource, at, errors);
    for (name, limit) in entries(&resources["limits"]) {
        let Some(limit) = Quantity::from_value(limit) else { continue };
        for (i, container) in items(spec, "containers").iter().enumerate() {
            let own = container["resources"]["limits"].get(name).and_then(Quantity::from_value);
            if let Some(own) = own.filter(|own| *own > limit) {
                let at = at.field("containers");
                let at = at.index(i);
                let why = format!("must be less than or equal to pod limits of {limit}");
                errors.invalid(&at.key(name).field("limits"), own.to_string(), why);
            }
        }
    }
    let Some(spec) = spec.as_object() else { return };
    for (name, request) in entries(&resources["requests"]) {
        let Some(request) = Quantity::from_value(request) else { continue };
        let together = crate::defaults::requested(spec, name);
        if request < together && !together.is_zero() {
            let why = format!("must be greater than or equal to aggregate container requests of {together}");
            errors.invalid(&at.field("requests").key(name), request.to_string(), why);
        }
    }
}

fn pod_resource(name: &str, at: &At, errors: &mut Errors) {
    let messages = names::qualified(name);
    if !messages.is_empty() {
        for why in messages {
            errors.invalid(at, name, why);
        }
    } else if !name.contains('/') && !is_standard(name) {
        errors.invalid(at, name, "must be a standard resource type or fully qualified");
    } else if !(matches!(name, "cpu" | "memory") || is_huge(name)) {
        errors.not_supported(at, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// A claim of a Pod, and those before it.
pub(crate) fn pod_claim(claim: &Value, before: &[Value], at: &At, errors: &mut Errors) {
    let name = text(claim, "name");
    if name.is_empty() {
        errors.required(&at.field("name"), "");
    } else if before.iter().any(|earlier| text(earlier, "name") == name) {
        errors.duplicate(&at.field("name"), name);
    } else {
        errors.rule(&at.field("name"), name, names::label);
    }
    let sources = ["resourceClaimName", "resourceClaimTemplateName"];
    match sources.iter().filter(|key| is_set(claim, key)).count() {
        0 => {
            let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
            errors.invalid(at, claim.clone(), why);
        }
        1 => {}
        _ => {
            let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
            errors.invalid(at, claim.clone(), why);
        }
    }
    for key in sources.into_iter().filter(|key| is_set(claim, key)) {
        errors.rule(&at.field(key), text(claim, key), names::subdomain);
    }
}

/// A container's use of its Pod's claims: each one once, as a whole or by its requests.
fn claims(list: &[Value], known: &[&str], at: &At, errors: &mut Errors) {
    for (i, claim) in list.iter().enumerate() {
        let (name, request, at) = (text(claim, "name"), text(claim, "request"), at.index(i));
        if name.is_empty() {
            errors.required(&at, "");
            continue;
        }
        if !request.is_empty() {
            errors.rule(&at.field("request"), request, names::label);
        }
        let twice = list[..i].iter().filter(|earlier| text(earlier, "name") == name).any(|earlier| {
            let earlier = text(earlier, "request");
            earlier.is_empty() || request.is_empty() || earlier == request
        });
        if twice {
            errors.duplicate(&at, name);
        }
        if !known.contains(&name) {
            let mut known = known.to_vec();
            known.sort_unstable();
            let which = if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            errors.not_found_because(&at, name, format!("must be one of the names in pod.spec.resourceClaims{which}"));
        }
    }
}

/// Requests and limits; `named` says which resources there are.
pub(crate) fn amounts(resources: &Value, named: fn(&str, &At, &mut Errors), at: &At, errors: &mut Errors) {
    let (limits, requests) = (&resources["limits"], &resources["requests"]);
    let (limits_at, requests_at) = (at.field("limits"), at.field("requests"));
    for (list, list_at) in [(limits, &limits_at), (requests, &requests_at)] {
        for (name, value) in entries(list) {
            named(name, &list_at.key(name), errors);
            amount(name, value, &list_at.key(name), errors);
            whole_pages(name, value, &list_at.key(name), errors);
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
