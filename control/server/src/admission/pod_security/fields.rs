//! The checks themselves: each looks at one group of fields of a Pod. Words and order are upstream's.

use std::collections::BTreeSet;

use serde_json::Value;

use super::checks::{Found, Subject};

fn found(reason: impl Into<String>, detail: String) -> Option<Found> {
    Some(Found { reason: reason.into(), detail })
}

fn number<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", number("container", "containers", names.len()), quoted(names))
}

/// The names of the containers that `bad` says are bad.
fn bad_containers<'a>(subject: Subject<'a>, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
    subject.containers().filter(|(_, container)| bad(container)).map(|(name, _)| name).collect()
}

/// Who sets something in its security context that `bad` says is bad: `pod`, `container "a"`, or both.
fn setters<'a>(subject: Subject<'a>, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<String> {
    let mut setters = Vec::new();
    if bad(&subject.spec["securityContext"]) {
        setters.push("pod".to_owned());
    }
    let names = bad_containers(subject, |container| bad(&container["securityContext"]));
    if !names.is_empty() {
        setters.push(containers(&names));
    }
    setters
}

fn is_windows(subject: Subject<'_>) -> bool {
    subject.spec["os"]["name"] == "windows"
}

/// Whether the Pod's users are not the node's.
fn has_user_namespace(subject: Subject<'_>) -> bool {
    subject.spec["hostUsers"] == false
}

pub(super) fn escalation(subject: Subject<'_>) -> Option<Found> {
    let bad = bad_containers(subject, |c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    found("allowPrivilegeEscalation != false", detail)
}

pub(super) fn escalation_unless_windows(subject: Subject<'_>) -> Option<Found> {
    if is_windows(subject) { None } else { escalation(subject) }
}

pub(super) fn app_armor(subject: Subject<'_>) -> Option<Found> {
    let mut types = BTreeSet::new();
    let mut setters = setters(subject, |context| {
        let profile = &context["appArmorProfile"];
        let kind = profile["type"].as_str().unwrap_or_default();
        let bad = profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            types.insert(kind.to_owned());
        }
        bad
    });
    let mut annotations: Vec<String> = subject
        .annotations
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .map(|(key, value)| (key, value.as_str().unwrap_or_default()))
        .filter(|(_, value)| !(matches!(*value, "" | "runtime/default") || value.starts_with("localhost/")))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        setters.push(number("annotation", "annotations", annotations.len()).to_owned());
    }
    if setters.is_empty() {
        return None;
    }
    let values: Vec<String> = types.into_iter().chain(annotations).collect();
    let reason = number("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    found(reason, format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values)))
}

/// The capabilities that containers have by themselves.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The containers that add capabilities which are not `allowed`, and those capabilities.
fn added<'a>(subject: Subject<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut capabilities = BTreeSet::new();
    let names = bad_containers(subject, |container| {
        let more: Vec<&str> =
            texts(&container["securityContext"]["capabilities"]["add"]).filter(|c| !allowed.contains(c)).collect();
        capabilities.extend(more.iter().copied());
        !more.is_empty()
    });
    (names, capabilities)
}

fn must_not_add(names: &[&str], capabilities: &BTreeSet<&str>) -> String {
    format!("{} must not include {} in securityContext.capabilities.add", containers(names), quoted(capabilities))
}

pub(super) fn capabilities_baseline(subject: Subject<'_>) -> Option<Found> {
    let (names, capabilities) = added(subject, &DEFAULT_CAPABILITIES);
    if names.is_empty() {
        return None;
    }
    found("non-default capabilities", must_not_add(&names, &capabilities))
}

pub(super) fn capabilities_restricted(subject: Subject<'_>) -> Option<Found> {
    let keeping =
        bad_containers(subject, |c| !texts(&c["securityContext"]["capabilities"]["drop"]).any(|cap| cap == "ALL"));
    let (adding, capabilities) = added(subject, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        details.push(must_not_add(&adding, &capabilities));
    }
    if details.is_empty() { None } else { found("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn capabilities_restricted_unless_windows(subject: Subject<'_>) -> Option<Found> {
    if is_windows(subject) { None } else { capabilities_restricted(subject) }
}

pub(super) fn host_namespaces(subject: Subject<'_>) -> Option<Found> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|key| subject.spec[*key] == true)
        .map(|key| format!("{key}=true"))
        .collect();
    if shared.is_empty() { None } else { found("host namespaces", shared.join(", ")) }
}

fn volumes_of(subject: Subject<'_>) -> impl Iterator<Item = (&str, &Value)> {
    let volumes = subject.spec["volumes"].as_array().into_iter().flatten();
    volumes.map(|volume| (volume["name"].as_str().unwrap_or_default(), volume))
}

pub(super) fn host_path(subject: Subject<'_>) -> Option<Found> {
    let names: Vec<&str> = volumes_of(subject).filter(|(_, v)| v["hostPath"].is_object()).map(|(n, _)| n).collect();
    if names.is_empty() {
        return None;
    }
    found("hostPath volumes", format!("{} {}", number("volume", "volumes", names.len()), quoted(&names)))
}

pub(super) fn host_ports(subject: Subject<'_>) -> Option<Found> {
    let mut ports = BTreeSet::new();
    let names = bad_containers(subject, |container| {
        let list = container["ports"].as_array().into_iter().flatten();
        let taken: Vec<i64> = list.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).collect();
        ports.extend(taken.iter().map(i64::to_string));
        !taken.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let (uses, word) = (number("uses", "use", names.len()), number("hostPort", "hostPorts", ports.len()));
    let ports = ports.into_iter().collect::<Vec<_>>().join(", ");
    found("hostPort", format!("{} {uses} {word} {ports}", containers(&names)))
}

pub(super) fn host_probes(subject: Subject<'_>) -> Option<Found> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let mut hosts = BTreeSet::new();
    let names = bad_containers(subject, |container| {
        let handlers = HANDLERS.iter().filter_map(|pointer| container.pointer(pointer));
        let named: Vec<&str> = handlers
            .flat_map(|handler| [&handler["httpGet"]["host"], &handler["tcpSocket"]["host"]])
            .filter_map(Value::as_str)
            .filter(|host| !host.is_empty())
            .collect();
        hosts.extend(named.iter().copied());
        !named.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let names: Vec<&str> = names.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    let uses = number("uses", "use", names.len());
    let word = number("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    found("probe or lifecycle host", format!("{} {uses} {word} {}", containers(&names), quoted(&hosts)))
}

pub(super) fn privileged(subject: Subject<'_>) -> Option<Found> {
    let bad = bad_containers(subject, |container| container["securityContext"]["privileged"] == true);
    if bad.is_empty() {
        return None;
    }
    found("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
}

pub(super) fn proc_mount(subject: Subject<'_>) -> Option<Found> {
    let mut types = BTreeSet::new();
    let bad = bad_containers(subject, |container| {
        let kind = container["securityContext"]["procMount"].as_str().filter(|kind| *kind != "Default");
        types.extend(kind);
        kind.is_some()
    });
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(&types));
    found("procMount", detail)
}

pub(super) fn proc_mount_outside_user_namespace(subject: Subject<'_>) -> Option<Found> {
    if has_user_namespace(subject) { None } else { proc_mount(subject) }
}

fn se_linux(subject: Subject<'_>, allowed: &[&str]) -> Option<Found> {
    let (mut types, mut user, mut role) = (BTreeSet::new(), false, false);
    let setters = setters(subject, |context| {
        let options = &context["seLinuxOptions"];
        let text = |key: &str| options[key].as_str().unwrap_or_default();
        let bad_type = !allowed.contains(&text("type"));
        if bad_type {
            types.insert(text("type").to_owned());
        }
        user |= !text("user").is_empty();
        role |= !text("role").is_empty();
        bad_type || !text("user").is_empty() || !text("role").is_empty()
    });
    if setters.is_empty() {
        return None;
    }
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", number("type", "types", types.len()), quoted(&types)));
    }
    if user {
        data.push("user may not be set".to_owned());
    }
    if role {
        data.push("role may not be set".to_owned());
    }
    let who = setters.join(" and ");
    found("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

pub(super) fn se_linux_0(subject: Subject<'_>) -> Option<Found> {
    se_linux(subject, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub(super) fn se_linux_31(subject: Subject<'_>) -> Option<Found> {
    se_linux(subject, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

pub(super) fn seccomp_annotations(subject: Subject<'_>) -> Option<Found> {
    let of_containers =
        subject.containers().map(|(name, _)| format!("container.seccomp.security.alpha.kubernetes.io/{name}"));
    let forbidden: BTreeSet<String> = std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_owned())
        .chain(of_containers)
        .filter_map(|key| {
            let value = subject.annotations[&key].as_str()?;
            let good = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (!good).then(|| format!("{key}={value:?}"))
        })
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let word = number("annotation", "annotations", forbidden.len());
    found("seccompProfile", format!("forbidden {word} {}", forbidden.into_iter().collect::<Vec<_>>().join(", ")))
}

fn is_confined(profile: &Value) -> bool {
    matches!(profile["type"].as_str(), Some("RuntimeDefault" | "Localhost"))
}

pub(super) fn seccomp_baseline(subject: Subject<'_>) -> Option<Found> {
    let mut types = BTreeSet::new();
    let setters = setters(subject, |context| {
        let profile = &context["seccompProfile"];
        let bad = profile.is_object() && !is_confined(profile);
        if bad {
            types.insert(profile["type"].as_str().unwrap_or_default());
        }
        bad
    });
    if setters.is_empty() {
        return None;
    }
    let who = setters.join(" and ");
    let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&types));
    found("seccompProfile", detail)
}

pub(super) fn seccomp_restricted(subject: Subject<'_>) -> Option<Found> {
    if let Some(explicit) = seccomp_baseline(subject) {
        return Some(explicit);
    }
    if is_confined(&subject.spec["securityContext"]["seccompProfile"]) {
        return None;
    }
    let bad = bad_containers(subject, |container| !container["securityContext"]["seccompProfile"].is_object());
    if bad.is_empty() {
        return None;
    }
    let who = containers(&bad);
    let detail =
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"");
    found("seccompProfile", detail)
}

pub(super) fn seccomp_restricted_unless_windows(subject: Subject<'_>) -> Option<Found> {
    if is_windows(subject) { None } else { seccomp_restricted(subject) }
}

/// Sysctls that concern the Pod alone, and since which minor version of the standards they may be set.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls(subject: Subject<'_>, version: u32) -> Option<Found> {
    let set = subject.spec["securityContext"]["sysctls"].as_array().into_iter().flatten();
    let forbidden: Vec<&str> = set
        .map(|sysctl| sysctl["name"].as_str().unwrap_or_default())
        .filter(|name| !SYSCTLS.iter().any(|(known, since)| known == name && *since <= version))
        .collect();
    if forbidden.is_empty() { None } else { found("forbidden sysctls", forbidden.join(", ")) }
}

pub(super) fn sysctls_0(subject: Subject<'_>) -> Option<Found> {
    sysctls(subject, 0)
}

pub(super) fn sysctls_27(subject: Subject<'_>) -> Option<Found> {
    sysctls(subject, 27)
}

pub(super) fn sysctls_29(subject: Subject<'_>) -> Option<Found> {
    sysctls(subject, 29)
}

pub(super) fn sysctls_32(subject: Subject<'_>) -> Option<Found> {
    sysctls(subject, 32)
}

pub(super) fn windows_host_process(subject: Subject<'_>) -> Option<Found> {
    let setters = setters(subject, |context| context["windowsOptions"]["hostProcess"] == true);
    if setters.is_empty() {
        return None;
    }
    let who = setters.join(" and ");
    found("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

/// Volumes that hold nothing of the node.
const GOOD_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// The others that are known.
const BAD_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub(super) fn volumes(subject: Subject<'_>) -> Option<Found> {
    let is = |volume: &Value, key: &&str| volume[*key].is_object();
    let bad: Vec<(&str, &Value)> =
        volumes_of(subject).filter(|(_, volume)| !GOOD_VOLUMES.iter().any(|key| is(volume, key))).collect();
    if bad.is_empty() {
        return None;
    }
    let kind = |volume: &Value| BAD_VOLUMES.iter().find(|key| is(volume, key)).copied().unwrap_or("unknown");
    let kinds: BTreeSet<&str> = bad.iter().map(|(_, volume)| kind(volume)).collect();
    let detail = format!(
        "{} {} {} {} {}",
        number("volume", "volumes", bad.len()),
        quoted(bad.iter().map(|(name, _)| name)),
        number("uses", "use", bad.len()),
        number("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    found("restricted volume types", detail)
}

pub(super) fn non_root(subject: Subject<'_>) -> Option<Found> {
    const REASON: &str = "runAsNonRoot != true";
    let setters = setters(subject, |context| context["runAsNonRoot"] == false);
    if !setters.is_empty() {
        return found(REASON, format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and ")));
    }
    if subject.spec["securityContext"]["runAsNonRoot"] == true {
        return None;
    }
    let bad = bad_containers(subject, |container| !container["securityContext"]["runAsNonRoot"].is_boolean());
    if bad.is_empty() {
        return None;
    }
    found(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&bad)))
}

pub(super) fn non_root_outside_user_namespace(subject: Subject<'_>) -> Option<Found> {
    if has_user_namespace(subject) { None } else { non_root(subject) }
}

pub(super) fn user(subject: Subject<'_>) -> Option<Found> {
    let setters = setters(subject, |context| context["runAsUser"] == 0);
    if setters.is_empty() {
        return None;
    }
    found("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and ")))
}

pub(super) fn user_outside_user_namespace(subject: Subject<'_>) -> Option<Found> {
    if has_user_namespace(subject) { None } else { user(subject) }
}
