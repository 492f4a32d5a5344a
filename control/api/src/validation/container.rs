//! Containers: ports, environment, mounts, probes, lifecycle.

use serde_json::Value;

use super::{At, Errors, entries, is_set, items, names, not_negative, resources, text};
use crate::quantity::Quantity;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
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
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// What the checks of a container need to know of its Pod.
pub(crate) struct PodFacts<'a> {
    /// Names of the volumes that are well-formed.
    pub(crate) volumes: Vec<&'a str>,
    pub(crate) grace: Option<i64>,
    pub(crate) restart_policy: &'a str,
    pub(crate) is_pod: bool,
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
    let mut seen: Vec<&'a str> = items(spec, "containers")
        .iter()
        .map(|c| text(c, "name"))
        .collect();
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
            for field in ["lifecycle"]
                .iter()
                .chain(&PROBES)
                .filter(|field| is_set(container, field))
            {
                errors.forbidden(
                    &at.field(field),
                    "may not be set for init containers without restartPolicy=Always",
                );
            }
        }
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
        errors.invalid(
            &at.field("image"),
            image,
            "must not have leading or trailing whitespace",
        );
    }
    required_one_of(
        container,
        "terminationMessagePolicy",
        &["File", "FallbackToLogsOnError"],
        at,
        errors,
    );
    ports(container, &at.field("ports"), errors);
    env(container, &at.field("env"), errors);
    env_from(container, &at.field("envFrom"), errors);
    mounts(container, facts, at, errors);
    devices(container, facts, &at.field("volumeDevices"), errors);
    required_one_of(
        container,
        "imagePullPolicy",
        &["Always", "IfNotPresent", "Never"],
        at,
        errors,
    );
    resources::requirements(&container["resources"], &at.field("resources"), errors);
    resize_policy(container, facts, &at.field("resizePolicy"), errors);
    security_context(
        &container["securityContext"],
        &at.field("securityContext"),
        errors,
    );
}

/// A name that must be there and follow a rule.
pub(crate) fn required_name(
    value: &Value,
    key: &str,
    rule: names::Rule,
    at: &At,
    errors: &mut Errors,
) {
    match text(value, key) {
        "" => errors.required(&at.field(key), ""),
        name => errors.rule(&at.field(key), name, rule),
    }
}

/// A choice that must be made.
pub(crate) fn required_one_of(
    value: &Value,
    key: &str,
    supported: &[&str],
    at: &At,
    errors: &mut Errors,
) {
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
            let key = format!(
                "{}/{}/{number}",
                text(port, "protocol"),
                text(port, "hostIP")
            );
            if seen.contains(&key) {
                errors.duplicate(&at.index(i).field("ports").index(j).field("hostPort"), key);
            } else {
                seen.push(key);
            }
        }
    }
}

fn env(container: &Value, at: &At, errors: &mut Errors) {
    for (i, variable) in items(container, "env").iter().enumerate() {
        let at = at.index(i);
        required_name(variable, "name", names::env_name, &at, errors);
        let from = &variable["valueFrom"];
        if from.is_null() {
            continue;
        }
        let at = at.field("valueFrom");
        let sources = [
            "fieldRef",
            "resourceFieldRef",
            "configMapKeyRef",
            "secretKeyRef",
            "fileKeyRef",
        ];
        let given = sources.iter().filter(|source| is_set(from, source)).count();
        if is_set(from, "fieldRef") {
            field_ref(
                &from["fieldRef"],
                &ENV_FIELDS,
                &at.field("fieldRef"),
                errors,
            );
        }
        if is_set(from, "resourceFieldRef") {
            resource_field_ref(
                &from["resourceFieldRef"],
                false,
                &at.field("resourceFieldRef"),
                errors,
            );
        }
        for source in ["configMapKeyRef", "secretKeyRef"]
            .into_iter()
            .filter(|source| is_set(from, source))
        {
            let at = at.field(source);
            errors.rule(
                &at.field("name"),
                text(&from[source], "name"),
                names::subdomain,
            );
            required_name(&from[source], "key", names::config_key, &at, errors);
        }
        if given == 0 {
            errors.invalid(&at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
        } else if !text(variable, "value").is_empty() {
            errors.invalid(&at, "", "may not be specified when `value` is not empty");
        } else if given > 1 {
            errors.invalid(
                &at,
                "",
                "may not have more than one field specified at a time",
            );
        }
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
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        match map {
            "metadata.annotations" => errors.rule(at, key, names::annotation_key),
            "metadata.labels" => errors.rule(at, key, names::qualified),
            _ => errors.invalid(at, map, "does not support subscript"),
        }
    } else if !supported.contains(&path) {
        let known = matches!(path, "metadata.labels" | "metadata.annotations")
            || ENV_FIELDS.contains(&path);
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
    let huge =
        resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
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
        "1" | "1k"
            | "1M"
            | "1G"
            | "1T"
            | "1P"
            | "1E"
            | "1Ki"
            | "1Mi"
            | "1Gi"
            | "1Ti"
            | "1Pi"
            | "1Ei"
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

fn env_from(container: &Value, list_at: &At, errors: &mut Errors) {
    for (i, source) in items(container, "envFrom").iter().enumerate() {
        let at = list_at.index(i);
        if !text(source, "prefix").is_empty() {
            errors.rule(&at.field("prefix"), text(source, "prefix"), names::env_name);
        }
        let mut given = 0;
        for key in ["configMapRef", "secretRef"]
            .into_iter()
            .filter(|key| is_set(source, key))
        {
            given += 1;
            required_name(
                &source[key],
                "name",
                names::subdomain,
                &at.field(key),
                errors,
            );
        }
        if given == 0 {
            errors.invalid(
                list_at,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            );
        } else if given > 1 {
            errors.invalid(
                list_at,
                "",
                "may not have more than one field specified at a time",
            );
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
            errors.one_of(
                &at,
                propagation,
                &["Bidirectional", "HostToContainer", "None"],
            );
            if propagation == "Bidirectional" && container["securityContext"]["privileged"] != true
            {
                errors.forbidden(
                    &at,
                    "Bidirectional mount propagation is available only to privileged containers",
                );
            }
        }
    }
}

fn devices(container: &Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    for (i, device) in items(container, "volumeDevices").iter().enumerate() {
        let at = at.index(i);
        if text(device, "name").is_empty() {
            errors.required(&at.field("name"), "");
        } else if !facts.volumes.contains(&text(device, "name")) {
            errors.not_found(&at.field("name"), text(device, "name"));
        }
        if text(device, "devicePath").is_empty() {
            errors.required(&at.field("devicePath"), "");
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

fn probes(container: &Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    for key in PROBES {
        let probe = &container[key];
        if probe.is_null() {
            continue;
        }
        let at = at.field(key);
        handler(probe, facts.grace, &at, errors);
        for count in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            not_negative(&probe[count], &at.field(count), errors);
        }
        let grace = &probe["terminationGracePeriodSeconds"];
        if grace.as_i64().is_some_and(|g| g <= 0) {
            errors.invalid(
                &at.field("terminationGracePeriodSeconds"),
                grace.clone(),
                "must be greater than 0",
            );
        }
        if key == "readinessProbe" {
            if is_set(probe, "terminationGracePeriodSeconds") {
                errors.invalid(
                    &at.field("terminationGracePeriodSeconds"),
                    grace.clone(),
                    "must not be set for readinessProbes",
                );
            }
        } else if probe["successThreshold"].as_i64().is_some_and(|n| n != 1) {
            errors.invalid(
                &at.field("successThreshold"),
                probe["successThreshold"].clone(),
                "must be 1",
            );
        }
    }
}

fn lifecycle(container: &Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    let (lifecycle, at) = (&container["lifecycle"], at.field("lifecycle"));
    for hook in ["postStart", "preStop"]
        .into_iter()
        .filter(|hook| is_set(lifecycle, hook))
    {
        handler(&lifecycle[hook], facts.grace, &at.field(hook), errors);
    }
}

fn handler(holder: &Value, grace: Option<i64>, at: &At, errors: &mut Errors) {
    let mut given = HANDLERS.into_iter().filter(|kind| is_set(holder, kind));
    let Some(kind) = given.next() else {
        return errors.required(at, "must specify a handler type");
    };
    for more in given {
        errors.forbidden(&at.field(more), "may not specify more than 1 handler type");
    }
    let (action, at) = (&holder[kind], at.field(kind));
    match kind {
        "exec" => {
            if items(action, "command").is_empty() {
                errors.required(&at.field("command"), "");
            }
        }
        "httpGet" => {
            if text(action, "path").is_empty() {
                errors.required(&at.field("path"), "");
            }
            port_or_name(&action["port"], &at.field("port"), errors);
            errors.one_of(
                &at.field("scheme"),
                text(action, "scheme"),
                &["HTTP", "HTTPS"],
            );
            for header in items(action, "httpHeaders") {
                errors.rule(
                    &at.field("httpHeaders"),
                    text(header, "name"),
                    names::http_header,
                );
            }
        }
        "tcpSocket" | "grpc" => port_or_name(&action["port"], &at.field("port"), errors),
        _ => {
            let seconds = action["seconds"].as_i64().unwrap_or(0);
            if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                errors.invalid(
                    &at,
                    seconds,
                    format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                    ),
                );
            }
        }
    }
}

fn restart_rules(container: &Value, at: &At, errors: &mut Errors) {
    let policy = text(container, "restartPolicy");
    let rules = items(container, "restartPolicyRules");
    if policy.is_empty() {
        if !rules.is_empty() {
            errors.required(
                &at.field("restartPolicy"),
                "must specify restartPolicy when restart rules are used",
            );
        }
        return;
    }
    errors.one_of(
        &at.field("restartPolicy"),
        policy,
        &["Always", "Never", "OnFailure"],
    );
    for (i, rule) in rules.iter().enumerate() {
        let at = at.field("restartPolicyRules");
        let at = at.index(i);
        errors.one_of(
            &at.field("action"),
            text(rule, "action"),
            &["Restart", "RestartAllContainers"],
        );
        if is_set(rule, "exitCodes") {
            errors.one_of(
                &at.field("exitCodes").field("operator"),
                text(&rule["exitCodes"], "operator"),
                &["In", "NotIn"],
            );
        } else {
            errors.required(&at.field("exitCodes"), "must be specified");
        }
    }
}

fn resize_policy(container: &Value, facts: &PodFacts, at: &At, errors: &mut Errors) {
    for policy in items(container, "resizePolicy") {
        errors.one_of(at, text(policy, "resourceName"), &["cpu", "memory"]);
        let restart = text(policy, "restartPolicy");
        errors.one_of(at, restart, &["NotRequired", "RestartContainer"]);
        if facts.restart_policy == "Never" && restart != "NotRequired" {
            errors.invalid(
                at,
                restart,
                "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            );
        }
    }
}

fn security_context(context: &Value, at: &At, errors: &mut Errors) {
    ids(context, at, errors);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            errors.invalid(
                at,
                context.clone(),
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        if items(&context["capabilities"], "add")
            .iter()
            .any(|c| c == "CAP_SYS_ADMIN")
        {
            errors.invalid(at, context.clone(), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
}

/// `runAsUser`, `runAsGroup` and the seccomp profile, of a container or a Pod.
pub(crate) fn ids(context: &Value, at: &At, errors: &mut Errors) {
    for (key, value) in entries(context)
        .filter(|(key, _)| matches!(key.as_str(), "runAsUser" | "runAsGroup" | "fsGroup"))
    {
        if let Some(id) = value
            .as_i64()
            .filter(|id| !(0..=i64::from(i32::MAX)).contains(id))
        {
            errors.invalid(
                &at.field(key),
                id,
                "must be between 0 and 2147483647, inclusive",
            );
        }
    }
    let seccomp = &context["seccompProfile"];
    if !seccomp.is_null() {
        let at = at.field("seccompProfile");
        errors.one_of(
            &at.field("type"),
            text(seccomp, "type"),
            &["Localhost", "RuntimeDefault", "Unconfined"],
        );
    }
}
