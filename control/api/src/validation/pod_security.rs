//! Who a Pod and its containers run as, and what the system they run on lets them do.

use serde_json::Value;

use super::container::descending_path;
use super::{At, CONTAINER_LISTS, Errors, entries, is_set, items, names, text};

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const ID: &str = "must be between 0 and 2147483647, inclusive";
/// What a Pod for Windows cannot say of itself.
const NOT_ON_WINDOWS: &[&str] = &[
    "appArmorProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsGroup",
    "runAsUser",
    "seLinuxChangePolicy",
    "seLinuxOptions",
    "seccompProfile",
    "supplementalGroups",
    "supplementalGroupsPolicy",
];
/// What its containers cannot.
const NOT_IN_WINDOWS_CONTAINERS: &[&str] = &[
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsUser",
    "seLinuxOptions",
    "seccompProfile",
];

/// The parameters of a kernel's namespace for communication, and those that begin with `kernel.msg` and `fs.mqueue.`.
const IPC_SYSCTLS: [&str; 5] =
    ["kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"];

fn is_id(id: i64) -> bool {
    (0..=i64::from(i32::MAX)).contains(&id)
}

/// The security context of a Pod, and what of the host it shares.
pub(super) fn pod(spec: &Value, spec_at: &At, errors: &mut Errors) {
    let (context, at) = (&spec["securityContext"], spec_at.field("securityContext"));
    shared(context, &at, errors);
    for (i, id) in items(context, "supplementalGroups").iter().filter_map(Value::as_i64).enumerate() {
        if !is_id(id) {
            errors.invalid(&at.field("supplementalGroups").index(i), id, ID);
        }
    }
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&at.field("shareProcessNamespace"), true, why);
    }
    for (key, supported) in [
        ("fsGroupChangePolicy", &["Always", "OnRootMismatch"][..]),
        ("supplementalGroupsPolicy", &["Merge", "Strict"]),
        ("seLinuxChangePolicy", &["Recursive"]),
    ] {
        if is_set(context, key) {
            errors.one_of(&at.field(key), text(context, key), supported);
        }
    }
    sysctls(spec, &at.field("sysctls"), errors);
    host_users(spec, spec_at, errors);
    host_processes(spec, spec_at, errors);
    match text(&spec["os"], "name") {
        "windows" => windows_pod(spec, spec_at, errors),
        "linux" => linux_pod(spec, spec_at, errors),
        _ => {}
    }
}

/// The security context of a container.
pub(super) fn container(context: &Value, host_users: bool, at: &At, errors: &mut Errors) {
    shared(context, at, errors);
    if is_set(context, "procMount") {
        let mount = text(context, "procMount");
        errors.one_of(&at.field("procMount"), mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            errors.invalid(&at.field("procMount"), mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(at, context.clone(), why);
        }
        if items(&context["capabilities"], "add").iter().any(|c| c == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(at, context.clone(), why);
        }
    }
}

/// What Pods and containers have in common.
fn shared(context: &Value, at: &At, errors: &mut Errors) {
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        if let Some(id) = context[key].as_i64().filter(|id| !is_id(*id)) {
            errors.invalid(&at.field(key), id, ID);
        }
    }
    seccomp(&context["seccompProfile"], &at.field("seccompProfile"), errors);
    windows_options(&context["windowsOptions"], &at.field("windowsOptions"), errors);
    app_armor(&context["appArmorProfile"], &at.field("appArmorProfile"), errors);
}

fn seccomp(profile: &Value, at: &At, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    match text(profile, "type") {
        "" => errors.required(&at.field("type"), "type is required when seccompProfile is set"),
        kind => errors.one_of(&at.field("type"), kind, &PROFILES),
    }
    let file_at = at.field("localhostProfile");
    match (text(profile, "type") == "Localhost", profile["localhostProfile"].as_str()) {
        (true, None) => errors.required(&file_at, "must be set when seccomp type is Localhost"),
        (true, Some(file)) => descending_path(file, &file_at, errors),
        (false, Some(_)) => {
            errors.invalid(&file_at, profile.clone(), "can only be set when seccomp type is Localhost");
        }
        (false, None) => {}
    }
}

fn app_armor(profile: &Value, at: &At, errors: &mut Errors) {
    const MAX: usize = 4095;
    if profile.is_null() {
        return;
    }
    let (file, file_at) = (profile["localhostProfile"].as_str(), at.field("localhostProfile"));
    match (text(profile, "type"), file) {
        ("Localhost", None | Some("")) => errors.required(&file_at, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(file)) => {
            if file.trim() != file {
                errors.invalid(&file_at, file, "must not be padded with whitespace");
            }
            if file.len() > MAX {
                errors.too_long(&file_at, MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(file)) => {
            errors.invalid(&file_at, file, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required(&at.field("type"), "type is required when appArmorProfile is set"),
        (kind, _) => errors.one_of(&at.field("type"), kind, &PROFILES),
    }
}

fn windows_options(options: &Value, at: &At, errors: &mut Errors) {
    if let Some(name) = options["gmsaCredentialSpecName"].as_str() {
        errors.rule(&at.field("gmsaCredentialSpecName"), name, names::subdomain);
    }
    if let Some(spec) = options["gmsaCredentialSpec"].as_str() {
        if spec.is_empty() {
            errors.invalid(&at.field("gmsaCredentialSpec"), spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 << 10 {
            errors.invalid(&at.field("gmsaCredentialSpec"), spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = options["runAsUserName"].as_str() {
        for why in windows_user(name) {
            errors.invalid(&at.field("runAsUserName"), name, format!("runAsUserName{why}"));
        }
    }
}

/// What is wrong with `DOMAIN\user` or `user`, told of the field before it.
fn windows_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec![" cannot be an empty string"];
    }
    if name.bytes().any(|b| b.is_ascii_control()) {
        return vec![" cannot contain control characters"];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![" cannot contain more than one backslash"],
    };
    let mut wrong = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= 256 {
            wrong.push("'s Domain length must be under 256 characters");
        }
        let net_bios = (1..=15).contains(&domain.chars().count())
            && !domain.starts_with('.')
            && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        let lower = domain.to_ascii_lowercase();
        let dns = lower.split('.').all(|label| names::label(label).is_empty());
        if !net_bios && !dns {
            wrong.push("'s Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        wrong.push("'s User cannot be empty");
    } else if user.len() > 104 {
        wrong.push("'s User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.bytes().all(|b| matches!(b, b'.' | b' ')) {
        wrong.push("'s User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrong.push(r#"'s User cannot contain the following characters: "/\:;|=,+*?<>@[]"#);
    }
    wrong
}

fn sysctls(spec: &Value, at: &At, errors: &mut Errors) {
    const FORM: &str = r"must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let list = items(&spec["securityContext"], "sysctls");
    for (i, sysctl) in list.iter().enumerate() {
        let (name, at) = (text(sysctl, "name"), at.index(i));
        let at = at.field("name");
        if name.is_empty() {
            errors.required(&at, "");
        } else if !is_sysctl(name) {
            errors.invalid(&at, name, FORM);
        } else if list[..i].iter().any(|earlier| earlier["name"] == sysctl["name"]) {
            errors.duplicate(&at, name);
        }
        let dotted = name.replace('/', ".");
        let ipc = IPC_SYSCTLS.contains(&dotted.as_str())
            || dotted.starts_with("kernel.msg")
            || dotted.starts_with("fs.mqueue.");
        if spec["hostNetwork"] == true && dotted.starts_with("net.") {
            errors.invalid(&at, name, "may not be specified when 'hostNetwork' is true");
        } else if spec["hostIPC"] == true && ipc {
            errors.invalid(&at, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let alphanumeric = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            alphanumeric(bytes.first())
                && alphanumeric(bytes.last())
                && bytes.iter().all(|b| alphanumeric(Some(b)) || matches!(b, b'-' | b'_'))
        })
}

/// Users of its own do not go with the host's namespaces.
fn host_users(spec: &Value, at: &At, errors: &mut Errors) {
    const WHY: &str = "when `hostUsers` is false";
    if spec["hostUsers"] != false {
        return;
    }
    for (key, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec[key] == true {
            errors.forbidden(&at.field(shown), WHY);
        }
    }
    each_container(spec, at, |container, at| {
        if !items(container, "volumeDevices").is_empty() {
            errors.forbidden(&at.field("volumeDevices"), WHY);
        }
    });
}

/// Containers of Windows that are processes of the host: all of them or none.
fn host_processes(spec: &Value, at: &At, errors: &mut Errors) {
    let of_pod = spec["securityContext"]["windowsOptions"]["hostProcess"].as_bool();
    let (mut count, mut hosted) = (0, 0);
    each_container(spec, at, |container, at| {
        let own = container["securityContext"]["windowsOptions"]["hostProcess"].as_bool();
        count += 1;
        hosted += usize::from(own.or(of_pod) == Some(true));
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let at = at.field("securityContext");
            let at = at.field("windowsOptions");
            let why = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errors.invalid(&at.field("hostProcess"), own, why);
        }
    });
    if hosted > 0 && hosted != count {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(at, "", why);
    }
    if hosted > 0 && spec["hostNetwork"] != true {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&at.field("hostNetwork"), false, why);
    }
}

fn windows_pod(spec: &Value, at: &At, errors: &mut Errors) {
    const WHY: &str = "cannot be set for a windows pod";
    let (context, context_at) = (&spec["securityContext"], at.field("securityContext"));
    for key in NOT_ON_WINDOWS.iter().filter(|key| is_set(context, key)) {
        errors.forbidden(&context_at.field(key), WHY);
    }
    if !items(context, "sysctls").is_empty() {
        errors.forbidden(&context_at.field("sysctls"), WHY);
    }
    for key in ["hostUsers", "shareProcessNamespace"].into_iter().filter(|key| is_set(spec, key)) {
        errors.forbidden(&at.field(key), WHY);
    }
    for key in ["hostPID", "hostIPC"].into_iter().filter(|key| spec[*key] == true) {
        errors.forbidden(&at.field(key), WHY);
    }
    each_container(spec, at, |container, at| {
        for (key, _) in entries(&container["securityContext"]).filter(|(_, value)| !value.is_null()) {
            if NOT_IN_WINDOWS_CONTAINERS.contains(&key.as_str()) {
                errors.forbidden(&at.field("securityContext").field(key), WHY);
            }
        }
    });
}

fn linux_pod(spec: &Value, at: &At, errors: &mut Errors) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if is_set(&spec["securityContext"], "windowsOptions") {
        errors.forbidden(&at.field("securityContext").field("windowsOptions"), WHY);
    }
    each_container(spec, at, |container, at| {
        if is_set(&container["securityContext"], "windowsOptions") {
            errors.forbidden(&at.field("securityContext").field("windowsOptions"), WHY);
        }
    });
}

/// Visits the containers of all three lists.
pub(super) fn each_container<'a>(spec: &'a Value, at: &At, mut visit: impl FnMut(&'a Value, &At)) {
    for list in CONTAINER_LISTS {
        for (i, container) in items(spec, list).iter().enumerate() {
            visit(container, &at.field(list).index(i));
        }
    }
}
