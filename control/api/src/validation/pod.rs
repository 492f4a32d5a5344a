//! Pods and Pod templates, new and changed.

use serde_json::Value;

use super::container::{self, PodFacts};
use super::{
    At, Errors, is_set, items, meta, names, pod_annotations, pod_gated, pod_parts, pod_security, resources, scheduling,
    text, volume,
};

use crate::strategy::{Sub, same};

/// The most characters of all search paths together.
const MAX_SEARCH_LIST: usize = 2048;

/// A Pod.
pub(crate) fn pod(pod: &Value, errors: &mut Errors) {
    let at = At::root("spec");
    let spec = &pod["spec"];
    pod_annotations::annotations(pod, errors);
    pod_spec(spec, true, &at, errors);
    pod_annotations::resource_claims(pod, spec, &at.field("resourceClaims"), errors);
    volume::tokens_without_account(spec, &at.field("volumes"), errors);
    // An object without a version is new.
    if text(&pod["metadata"], "resourceVersion").is_empty() {
        if !items(spec, "ephemeralContainers").is_empty() {
            errors.forbidden(&at.field("ephemeralContainers"), "cannot be set on create");
        }
        if !text(spec, "nodeName").is_empty() && !items(spec, "schedulingGates").is_empty() {
            errors.forbidden(&at.field("nodeName"), "cannot be set until all schedulingGates have been cleared");
        }
        pod_annotations::profiles_agree(pod, errors);
    }
}

/// A PodTemplateSpec at `at`.
pub(crate) fn template(template: &Value, at: &At, errors: &mut Errors) {
    meta::template(&template["metadata"], at, errors);
    let spec = &template["spec"];
    pod_spec(spec, false, &at.field("spec"), errors);
    let claims_at = at.field("spec");
    pod_annotations::resource_claims(template, spec, &claims_at.field("resourceClaims"), errors);
    if !items(spec, "ephemeralContainers").is_empty() {
        errors.forbidden(
            &at.field("spec").field("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

fn pod_spec(spec: &Value, is_pod: bool, at: &At, errors: &mut Errors) {
    let grace = spec["terminationGracePeriodSeconds"].as_i64();
    if grace.is_none() {
        errors.required(&at.field("terminationGracePeriodSeconds"), "");
    }
    let volumes = volume::volumes(spec, &at.field("volumes"), errors);
    let host_users = spec["hostUsers"] != false;
    let facts = PodFacts { volumes, grace, restart_policy: text(spec, "restartPolicy"), is_pod, host_users, spec };
    container::containers(spec, &facts, &at.field("containers"), errors);
    container::init_containers(spec, &facts, &at.field("initContainers"), errors);
    container::ephemeral_containers(spec, &facts, &at.field("ephemeralContainers"), errors);
    if is_set(spec, "resources") {
        resources::pod_requirements(spec, &at.field("resources"), errors);
    }
    host_network(spec, is_pod, &at.field("containers"), errors);
    container::required_one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], at, errors);
    container::required_one_of(
        spec,
        "dnsPolicy",
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
        at,
        errors,
    );
    dns(spec, &at.field("dnsConfig"), errors);
    meta::labels(&spec["nodeSelector"], &at.field("nodeSelector"), errors);
    pod_security::pod(spec, at, errors);
    hostname_override(spec, &at.field("hostnameOverride"), errors);
    if is_set(spec, "overhead") {
        let overhead = serde_json::json!({"limits": spec["overhead"]});
        resources::amounts(&overhead, resources::container_resource, &at.field("overhead"), errors);
    }
    scheduling::affinity(spec, &at.field("affinity"), errors);
    scheduling::topology_spread(spec, &at.field("topologySpreadConstraints"), errors);
    scheduling::tolerations(spec, &at.field("tolerations"), errors);
    for (key, rule) in [
        ("serviceAccountName", names::subdomain as names::Rule),
        ("nodeName", names::subdomain),
        ("hostname", names::label),
        ("subdomain", names::label),
        ("priorityClassName", names::subdomain),
        ("runtimeClassName", names::subdomain),
    ] {
        let value = text(spec, key);
        if !value.is_empty() || (key == "runtimeClassName" && is_set(spec, key)) {
            errors.rule(&at.field(key), value, rule);
        }
    }
    for (i, gate) in items(spec, "readinessGates").iter().enumerate() {
        let at = at.field("readinessGates");
        errors.rule(&at.index(i).field("conditionType"), text(gate, "conditionType"), names::qualified);
    }
    let gates = items(spec, "schedulingGates");
    for (i, gate) in gates.iter().enumerate() {
        let (name, at) = (text(gate, "name"), at.field("schedulingGates"));
        errors.rule(&at.index(i), name, names::qualified);
        if gates[..i].iter().any(|earlier| text(earlier, "name") == name) {
            errors.duplicate(&at.index(i), name);
        }
    }
    if let Some(deadline) = spec["activeDeadlineSeconds"].as_i64().filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        errors.invalid(&at.field("activeDeadlineSeconds"), deadline, "must be between 1 and 2147483647, inclusive");
    }
    for (i, alias) in items(spec, "hostAliases").iter().enumerate() {
        let at = at.field("hostAliases");
        let at = at.index(i);
        errors.rule(&at.field("ip"), text(alias, "ip"), names::ip);
        for (j, host) in items(alias, "hostnames").iter().filter_map(Value::as_str).enumerate() {
            errors.rule(&at.field("hostnames").index(j), host, names::subdomain);
        }
    }
    if is_set(spec, "preemptionPolicy") {
        errors.one_of(
            &at.field("preemptionPolicy"),
            text(spec, "preemptionPolicy"),
            &["PreemptLowerPriority", "Never"],
        );
    }
    if is_set(spec, "os") {
        match text(&spec["os"], "name") {
            "" => errors.required(&at.field("os").field("name"), ""),
            name => errors.one_of(&at.field("os"), name, &["linux", "windows"]),
        }
    }
}

fn hostname_override(spec: &Value, at: &At, errors: &mut Errors) {
    let Some(name) = spec["hostnameOverride"].as_str() else { return };
    if spec["setHostnameAsFQDN"] == true {
        errors.forbidden(at, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec["hostNetwork"] == true {
        errors.forbidden(at, "may not be specified when hostNetwork is true");
    }
    if name.len() > 64 {
        errors.too_long(at, 64);
    }
    errors.rule(at, name, names::subdomain);
}

fn host_network(spec: &Value, is_pod: bool, at: &At, errors: &mut Errors) {
    if spec["hostNetwork"] != true {
        return;
    }
    for (i, container) in items(spec, "containers").iter().enumerate() {
        for (j, port) in items(container, "ports").iter().enumerate() {
            let host = port["hostPort"].as_i64().unwrap_or(0);
            if (is_pod || host != 0) && Some(host) != port["containerPort"].as_i64() {
                let at = at.index(i);
                let at = at.field("ports");
                errors.invalid(
                    &at.index(j).field("hostPort"),
                    host,
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

fn dns(spec: &Value, at: &At, errors: &mut Errors) {
    let config = &spec["dnsConfig"];
    let servers = items(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            return errors.required(at, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            return errors.required(
                &at.field("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
        }
    }
    if servers.len() > 3 {
        errors.invalid(
            &at.field("nameservers"),
            config["nameservers"].clone(),
            "must not have more than 3 nameservers",
        );
    }
    for (i, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        errors.rule(&at.field("nameservers").index(i), server, names::ip);
    }
    let searches = items(config, "searches");
    if searches.len() > 32 {
        errors.invalid(&at.field("searches"), config["searches"].clone(), "must not have more than 32 search paths");
    }
    let long: usize = searches.iter().filter_map(Value::as_str).map(|search| search.len() + 1).sum();
    if long > MAX_SEARCH_LIST + 1 {
        let why = format!("must not have more than {MAX_SEARCH_LIST} characters (including spaces) in the search list");
        errors.invalid(&at.field("searches"), config["searches"].clone(), why);
    }
    for (i, search) in searches.iter().filter_map(Value::as_str).enumerate().filter(|(_, search)| *search != ".") {
        errors.rule(&at.field("searches").index(i), search.strip_suffix('.').unwrap_or(search), names::search);
    }
    for (i, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&at.field("options").index(i), "must not be empty");
        }
    }
}

/// What may change in a Pod.
pub(crate) fn update(new: &Value, old: &Value, sub: Sub, errors: &mut Errors) {
    if sub == Sub::Status {
        let at = At::root("status");
        errors.immutable(&at.field("qosClass"), &new["status"]["qosClass"], &old["status"]["qosClass"]);
        status(new, old, &at, errors);
        return;
    }
    match sub {
        Sub::Main => {}
        Sub::Ephemeral => return pod_parts::ephemeral(new, old, errors),
        Sub::Resize => return pod_parts::resize(new, old, errors),
        _ => return,
    }
    pod_annotations::update(new, old, errors);
    let (new, old, at) = (&new["spec"], &old["spec"], At::root("spec"));
    for list in ["containers", "initContainers"] {
        if items(new, list).len() != items(old, list).len() {
            return errors.forbidden(&at.field(list), "pod updates may not add or remove containers");
        }
    }
    if !deadline(new, old, &at.field("activeDeadlineSeconds"), errors) {
        return;
    }
    added_tolerations(new, old, &at.field("tolerations"), errors);
    gates(new, old, &at.field("schedulingGates"), errors);
    if !items(old, "schedulingGates").is_empty() {
        pod_gated::narrowed(new, old, &at, errors);
    }
    if let Some(field) = changed(new, old) {
        errors.forbidden(
            &at,
            format!(
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                 `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                 `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n`spec.{field}` differs"
            ),
        );
    }
}

/// The words of a changed status.
fn status(new: &Value, old: &Value, at: &At, errors: &mut Errors) {
    for (i, condition) in items(&new["status"], "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            errors.rule(&at.field("conditions").index(i).field("Type"), kind, names::qualified);
        }
    }
    let (node, node_at) = (text(&new["status"], "nominatedNodeName"), at.field("nominatedNodeName"));
    if !node.is_empty() && node != text(&old["status"], "nominatedNodeName") {
        errors.rule(&node_at, node, names::subdomain);
        if !text(&old["spec"], "nodeName").is_empty() {
            errors.forbidden(&node_at, "may not be set on pods that are already bound to a node");
        }
    }
}

/// A deadline can only come nearer; gives whether the rest is worth a look.
fn deadline(new: &Value, old: &Value, at: &At, errors: &mut Errors) -> bool {
    let key = "activeDeadlineSeconds";
    match (new[key].as_i64(), old[key].as_i64()) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(at, new, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => errors.invalid(at, Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
    true
}

fn added_tolerations(new: &Value, old: &Value, at: &At, errors: &mut Errors) {
    let equal =
        |a: &Value, b: &Value| ["key", "operator", "value", "effect"].iter().all(|key| text(a, key) == text(b, key));
    let kept = |old: &Value| items(new, "tolerations").iter().any(|new| equal(new, old));
    if !items(old, "tolerations").iter().all(kept) {
        errors.forbidden(at, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn gates(new: &Value, old: &Value, at: &At, errors: &mut Errors) {
    for (i, gate) in items(new, "schedulingGates").iter().enumerate() {
        if !items(old, "schedulingGates").iter().any(|old| old["name"] == gate["name"]) {
            let name = text(gate, "name");
            errors.forbidden(
                &at.index(i).field("name"),
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            );
        }
    }
}

/// The first field that differs and may not.
fn changed(new: &Value, old: &Value) -> Option<String> {
    let gated = !items(old, "schedulingGates").is_empty();
    let gone = |key: &&str| new.get(*key).is_none();
    let keys = super::entries(new).map(|(key, _)| key.as_str());
    for key in keys.chain(super::entries(old).map(|(key, _)| key.as_str()).filter(gone)) {
        let (new, old) = (&new[key], &old[key]);
        let allowed = match key {
            "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => true,
            // A gated Pod has not been scheduled: where it may run can still be narrowed.
            "nodeSelector" => gated || same(new, old),
            "affinity" => same(new, old) || (gated && pod_gated::same_but_nodes(new, old)),
            "terminationGracePeriodSeconds" => same(new, old) || (old.as_i64().is_some_and(|g| g < 0) && *new == 1),
            "containers" | "initContainers" => {
                let (new, old) = (new.as_array().map(Vec::as_slice), old.as_array().map(Vec::as_slice));
                new.unwrap_or_default().iter().zip(old.unwrap_or_default()).all(|(new, old)| same_but_image(new, old))
            }
            _ => same(new, old),
        };
        if !allowed {
            return Some(key.to_owned());
        }
    }
    None
}

fn same_but_image(new: &Value, old: &Value) -> bool {
    let keys = super::entries(new).chain(super::entries(old)).map(|(key, _)| key.as_str());
    keys.filter(|key| *key != "image").all(|key| same(&new[key], &old[key]))
}
