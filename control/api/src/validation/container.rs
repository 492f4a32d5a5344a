//! Containers: names, ports, mounts, restarts, security.

use serde_json::Value;

use super::env::{env, env_from};
use super::probe::{PROBES, lifecycle, probes};
use super::{At, Errors, is_set, items, names, pod_security, resources, text};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// What the checks of a container need to know of its Pod.
pub(crate) struct PodFacts<'a> {
    /// Names of the volumes that are well-formed.
    pub(crate) volumes: Vec<&'a str>,
    pub(crate) grace: Option<i64>,
    pub(crate) restart_policy: &'a str,
    pub(crate) is_pod: bool,
    /// The Pod's users are the host's.
    pub(crate) host_users: bool,
    /// The Pod as it is written.
    pub(crate) spec: &'a Value,
}

impl<'a> PodFacts<'a> {
    fn volume(&self, name: &str) -> Option<&'a Value> {
        items(self.spec, "volumes").iter().find(|volume| text(volume, "name") == name)
    }
}

/// The app containers.
pub(crate) fn containers<'a>(spec: &'a Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    let list = items(spec, "containers");
    if list.is_empty() {
        errors.required(at, "");
        return;
    }
    let mut seen: Vec<&'a str> = Vec::new();
    for (i, container) in list.iter().enumerate() {
        let at = at.index(i);
        common(container, facts, &at, errors);
        unique_name(container, &mut seen, &at, errors);
        lifecycle(container, facts, &at, errors);
        probes(container, facts, &at, errors);
        restart_rules(container, &at, errors);
    }
    host_ports(list, at, errors);
}

/// The init containers; one that restarts always is a sidecar.
pub(crate) fn init_containers<'a>(spec: &'a Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    let mut seen: Vec<&'a str> = items(spec, "containers").iter().map(|c| text(c, "name")).collect();
    for (i, container) in items(spec, "initContainers").iter().enumerate() {
        let at = at.index(i);
        common(container, facts, &at, errors);
        unique_name(container, &mut seen, &at, errors);
        restart_rules(container, &at, errors);
        host_ports(std::slice::from_ref(container), &at, errors);
        if container["restartPolicy"] == "Always" {
            lifecycle(container, facts, &at, errors);
            probes(container, facts, &at, errors);
        } else {
            for field in ["lifecycle"].iter().chain(&PROBES).filter(|field| is_set(container, field)) {
                errors.forbidden(&at.field(field), "may not be set for init containers without restartPolicy=Always");
            }
        }
    }
}

/// What an ephemeral container has not: nobody should rely on one.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// The ephemeral containers.
pub(crate) fn ephemeral_containers<'a>(spec: &'a Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    const NOT: &str = "cannot be set for an Ephemeral Container";
    let others = items(spec, "containers").iter().chain(items(spec, "initContainers"));
    let others: Vec<&'a str> = others.map(|container| text(container, "name")).collect();
    let mut seen = others.clone();
    for (i, container) in items(spec, "ephemeralContainers").iter().enumerate() {
        let at = at.index(i);
        common(container, facts, &at, errors);
        unique_name(container, &mut seen, &at, errors);
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others.contains(&target) {
            errors.not_found(&at.field("targetContainerName"), target);
        }
        for field in NOT_EPHEMERAL.iter().filter(|field| is_said(&container[**field])) {
            errors.forbidden(&at.field(field), NOT);
        }
        for (j, mount) in items(container, "volumeMounts").iter().enumerate() {
            let at = at.field("volumeMounts");
            let at = at.index(j);
            for key in ["subPath", "subPathExpr"].iter().filter(|key| !text(mount, key).is_empty()) {
                errors.forbidden(&at.field(key), NOT);
            }
        }
    }
}

/// Neither missing nor empty.
fn is_said(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

fn unique_name<'a>(container: &'a Value, seen: &mut Vec<&'a str>, at: &At, errors: &mut Errors) {
    let name = text(container, "name");
    if name.is_empty() {
        return;
    }
    if seen.contains(&name) {
        errors.duplicate(&at.field("name"), name);
    }
    seen.push(name);
}

fn common(container: &Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    required_name(container, "name", names::label, at, errors);
    let image = text(container, "image");
    if image.is_empty() {
        errors.required(&at.field("image"), "");
    } else if facts.is_pod && image.trim() != image {
        errors.invalid(&at.field("image"), image, "must not have leading or trailing whitespace");
    }
    required_one_of(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"], at, errors);
    ports(container, &at.field("ports"), errors);
    env(container, &at.field("env"), errors);
    env_from(container, &at.field("envFrom"), errors);
    mounts(container, facts, at, errors);
    devices(container, facts, &at.field("volumeDevices"), errors);
    file_keys(container, facts, &at.field("env"), errors);
    required_one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], at, errors);
    resources::requirements(&container["resources"], facts.spec, &at.field("resources"), errors);
    resize_policy(container, facts, &at.field("resizePolicy"), errors);
    pod_security::container(&container["securityContext"], facts.host_users, &at.field("securityContext"), errors);
}

/// A name that must be there and follow a rule.
pub(crate) fn required_name(value: &Value, key: &str, rule: names::Rule, at: &At, errors: &mut Errors) {
    match text(value, key) {
        "" => errors.required(&at.field(key), ""),
        name => errors.rule(&at.field(key), name, rule),
    }
}

/// A choice that must be made.
pub(crate) fn required_one_of(value: &Value, key: &str, supported: &[&str], at: &At, errors: &mut Errors) {
    match text(value, key) {
        "" => errors.required(&at.field(key), ""),
        choice => errors.one_of(&at.field(key), choice, supported),
    }
}

fn ports(container: &Value, at: &At, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in items(container, "ports").iter().enumerate() {
        let at = at.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            let messages = names::port_name(name);
            if messages.is_empty() && seen.contains(&name) {
                errors.duplicate(&at.field("name"), name);
            }
            for message in messages {
                errors.invalid(&at.field("name"), name, message);
            }
            seen.push(name);
        }
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => errors.required(&at.field("containerPort"), ""),
            number => port_number(number, &at.field("containerPort"), errors),
        }
        match port["hostPort"].as_i64().unwrap_or(0) {
            0 => {}
            number => port_number(number, &at.field("hostPort"), errors),
        }
        required_one_of(port, "protocol", &PROTOCOLS, &at, errors);
    }
}

fn port_number(number: i64, at: &At, errors: &mut Errors) {
    if let Some(message) = names::port_number(number) {
        errors.invalid(at, number, message);
    }
}

/// A port by number or by name.
pub(crate) fn port_or_name(port: &Value, at: &At, errors: &mut Errors) {
    match port {
        Value::String(name) => errors.rule(at, name, names::port_name),
        port => port_number(port.as_i64().unwrap_or(0), at, errors),
    }
}

fn host_ports(containers: &[Value], at: &At, errors: &mut Errors) {
    let mut seen: Vec<String> = Vec::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in items(container, "ports").iter().enumerate() {
            let Some(number) = port["hostPort"].as_i64().filter(|n| *n != 0) else {
                continue;
            };
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if seen.contains(&key) {
                errors.duplicate(&at.index(i).field("ports").index(j).field("hostPort"), key);
            } else {
                seen.push(key);
            }
        }
    }
}

fn mounts(container: &Value, facts: &PodFacts, container_at: &At, errors: &mut Errors) {
    let list_at = &container_at.field("volumeMounts");
    let mut seen: Vec<&str> = Vec::new();
    for (i, mount) in items(container, "volumeMounts").iter().enumerate() {
        let at = list_at.index(i);
        let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(&at.field("name"), "");
        }
        if !facts.volumes.contains(&name) {
            errors.not_found(&at.field("name"), name);
        }
        if path.is_empty() {
            errors.required(&at.field("mountPath"), "");
        }
        if seen.contains(&path) {
            errors.invalid(&at.field("mountPath"), path, "must be unique");
        }
        seen.push(path);
        let devices = items(container, "volumeDevices");
        if devices.iter().any(|device| text(device, "name") == name) {
            errors.invalid(&at.field("name"), name, "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| text(device, "devicePath") == path) {
            errors.invalid(&at.field("mountPath"), path, "must not already exist as a path in volumeDevices");
        }
        for key in ["subPath", "subPathExpr"] {
            descending_path(text(mount, key), &list_at.field(key), errors);
        }
        if !text(mount, "subPath").is_empty() && !text(mount, "subPathExpr").is_empty() {
            errors.invalid(
                &at.field("subPathExpr"),
                text(mount, "subPathExpr"),
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        let propagation = text(mount, "mountPropagation");
        if !propagation.is_empty() {
            let at = list_at.field("mountPropagation");
            errors.one_of(&at, propagation, &["Bidirectional", "HostToContainer", "None"]);
            if propagation == "Bidirectional" && container["securityContext"]["privileged"] != true {
                errors.forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
            }
        }
        read_only(mount, &list_at.field("recursiveReadOnly"), errors);
    }
}

fn read_only(mount: &Value, at: &At, errors: &mut Errors) {
    match text(mount, "recursiveReadOnly") {
        "" if !is_set(mount, "recursiveReadOnly") => {}
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if mount["readOnly"] != true {
                errors.forbidden(at, "may only be specified when readOnly is true");
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                errors.forbidden(at, "may only be specified when mountPropagation is None or not specified");
            }
        }
        other => errors.not_supported(at, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(container: &Value, facts: &PodFacts, list_at: &At, errors: &mut Errors) {
    let (list, mounts) = (items(container, "volumeDevices"), items(container, "volumeMounts"));
    for (i, device) in list.iter().enumerate() {
        let at = list_at.index(i);
        let (name, path) = (text(device, "name"), text(device, "devicePath"));
        let (name_at, path_at) = (at.field("name"), at.field("devicePath"));
        if name.is_empty() {
            errors.required(&name_at, "");
        } else if list[..i].iter().any(|earlier| text(earlier, "name") == name) {
            errors.invalid(&name_at, name, "must be unique");
        }
        if !facts.volumes.contains(&name) {
            errors.not_found(&name_at, name);
        } else if !facts.volume(name).is_some_and(|v| is_set(v, "persistentVolumeClaim") || is_set(v, "ephemeral")) {
            let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
            errors.invalid(&name_at, name, why);
        }
        if path.is_empty() {
            errors.required(&path_at, "");
        }
        if list[..i].iter().any(|earlier| text(earlier, "devicePath") == path) {
            errors.invalid(&path_at, path, "must be unique");
        }
        if path.split('/').any(|part| part == "..") {
            errors.invalid(&path_at, path, "can not contain backsteps ('..')");
        }
        if mounts.iter().any(|mount| text(mount, "name") == name) {
            errors.invalid(&name_at, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| text(mount, "mountPath") == path) {
            errors.invalid(&path_at, path, "must not already exist as a path in volumeMounts");
        }
    }
}

/// Variables that are read from files: the volume is one that containers share.
fn file_keys(container: &Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    for (i, variable) in items(container, "env").iter().enumerate() {
        let from = &variable["valueFrom"]["fileKeyRef"];
        if from.is_null() {
            continue;
        }
        let at = at.index(i);
        let at = at.field("valueFrom");
        let at = at.field("fileKeyRef");
        let (name, at) = (text(from, "volumeName"), at.field("volumeName"));
        match facts.volume(name) {
            None => errors.not_found(&at, name),
            Some(volume) if !is_set(volume, "emptyDir") => {
                errors.invalid(&at, name, "referenced volume must be of type emptyDir");
            }
            Some(_) => {}
        }
    }
}

/// A path that stays below where it begins.
pub(crate) fn descending_path(path: &str, at: &At, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.invalid(at, path, "must be a relative path");
    }
    no_backsteps(path, at, errors);
}

/// A path without `..`.
pub(crate) fn no_backsteps(path: &str, at: &At, errors: &mut Errors) {
    if path.split('/').any(|part| part == "..") {
        errors.invalid(at, path, "must not contain '..'");
    }
}

fn restart_rules(container: &Value, at: &At, errors: &mut Errors) {
    let rules = items(container, "restartPolicyRules");
    if is_set(container, "restartPolicy") {
        let policy = text(container, "restartPolicy");
        errors.one_of(&at.field("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
    } else if !rules.is_empty() {
        errors.required(&at.field("restartPolicy"), "must specify restartPolicy when restart rules are used");
    }
    if rules.len() > 20 {
        errors.too_many(&at.field("restartPolicyRules"), rules.len(), 20);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = at.field("restartPolicyRules");
        let at = at.index(i);
        errors.one_of(&at.field("action"), text(rule, "action"), &["Restart", "RestartAllContainers"]);
        if is_set(rule, "exitCodes") {
            errors.one_of(
                &at.field("exitCodes").field("operator"),
                text(&rule["exitCodes"], "operator"),
                &["In", "NotIn"],
            );
            let codes = items(&rule["exitCodes"], "values").len();
            if codes > 255 {
                errors.too_many(&at.field("exitCodes").field("values"), codes, 255);
            }
        } else {
            errors.required(&at.field("exitCodes"), "must be specified");
        }
    }
}

fn resize_policy(container: &Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    let list = items(container, "resizePolicy");
    for (i, policy) in list.iter().enumerate() {
        if list[..i].iter().any(|earlier| earlier["resourceName"] == policy["resourceName"]) {
            errors.duplicate(&at.index(i), policy["resourceName"].clone());
        }
        errors.one_of(at, text(policy, "resourceName"), &["cpu", "memory"]);
        let restart = text(policy, "restartPolicy");
        errors.one_of(at, restart, &["NotRequired", "RestartContainer"]);
        if facts.restart_policy == "Never" && restart != "NotRequired" {
            errors.invalid(at, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'");
        }
    }
}
