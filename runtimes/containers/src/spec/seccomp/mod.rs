//! Which system calls a container may make.
//!
//! `RuntimeDefault` is the profile that images are used to from containerd and Docker ([`calls`]); what a capability is needed
//! for is allowed to who has it. `Localhost` is a file on the node, of the OCI form.

mod calls;

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use wherry_runtime::{RuntimeError, Seccomp, Security};

/// A profile is a few hundred names.
const MAX_PROFILE: u64 = 1 << 20;
/// The flags of `clone(2)` that make namespaces: all but that of time.
const NEW_NAMESPACES: u64 = 0x7E02_0000;
const AF_VSOCK: u64 = 40;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The filter of a container with these capabilities; none where nothing is filtered. A privileged one has none, whatever it
/// asks for.
pub(super) fn build(security: &Security, capabilities: &[String]) -> Result<Option<Value>, RuntimeError> {
    match &security.seccomp {
        _ if security.privileged => Ok(None),
        Seccomp::Unconfined => Ok(None),
        Seccomp::RuntimeDefault => Ok(Some(default(capabilities))),
        Seccomp::Localhost(path) => load(path).map(Some).map_err(|problem| {
            // Whoever looks after the node may put it there, or right.
            RuntimeError::Failed(format!("cannot load seccomp profile {:?}: {problem}", path.display()))
        }),
    }
}

fn default(capabilities: &[String]) -> Value {
    let has = |name: &str| capabilities.iter().any(|capability| capability == name);
    let mut names: BTreeSet<&str> = calls::ALWAYS.iter().flat_map(|list| list.split_whitespace()).collect();
    names.extend(calls::BY_CAPABILITY.iter().filter(|(cap, _)| has(cap)).flat_map(|(_, list)| list.split_whitespace()));
    names.extend(
        calls::BY_ARCHITECTURE.iter().filter(|(arch, _)| *arch == ARCH).flat_map(|(_, l)| l.split_whitespace()),
    );
    let allow = |names: Value, args: Value| json!({"names": names, "action": "SCMP_ACT_ALLOW", "args": args});
    let mut rules = vec![
        allow(json!(names), json!([])),
        // Sockets to the machine below a virtual one are no business of a container.
        allow(json!(["socket"]), json!([{"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"}])),
    ];
    rules.extend(calls::PERSONALITIES.iter().map(|personality| {
        allow(json!(["personality"]), json!([{"index": 0, "value": personality, "op": "SCMP_CMP_EQ"}]))
    }));
    if !has("CAP_SYS_ADMIN") {
        // Threads and processes, but no namespaces.
        let flags = if ARCH == "s390x" { 1 } else { 0 };
        rules.push(allow(
            json!(["clone"]),
            json!([{"index": flags, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]),
        ));
        // Its flags lie in memory, which no filter reads: C libraries fall back to `clone`.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    let mut filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "syscalls": rules});
    if let Some((_, architectures)) = calls::ARCHITECTURES.iter().find(|(arch, _)| *arch == ARCH) {
        filter["architectures"] = json!(architectures);
    }
    filter
}

/// A profile of the OCI form. A part that it does not have (Docker's own form has conditions) is refused: left out, the
/// profile would allow more than its author meant.
fn load(path: &Path) -> Result<Value, String> {
    const KNOWN: [&str; 7] =
        ["defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls"];
    const KNOWN_OF_CALLS: [&str; 4] = ["names", "action", "errnoRet", "args"];
    let file = File::open(path).map_err(|error| format!("open {}: {error}", path.display()))?;
    let mut text = String::new();
    file.take(MAX_PROFILE + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_PROFILE {
        return Err(format!("it is larger than {MAX_PROFILE} bytes"));
    }
    let mut profile: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    keep(&mut profile, "", &KNOWN)?;
    if !profile["defaultAction"].is_string() {
        return Err("it has no defaultAction".to_owned());
    }
    if let Some(rules) = profile.get_mut("syscalls").and_then(Value::as_array_mut) {
        for (n, rule) in rules.iter_mut().enumerate() {
            keep(rule, &format!("syscalls[{n}]."), &KNOWN_OF_CALLS)?;
        }
    }
    Ok(profile)
}

/// Refuses what is not known of an object, apart from comments, which are dropped.
fn keep(value: &mut Value, at: &str, known: &[&str]) -> Result<(), String> {
    let object = value.as_object_mut().ok_or_else(|| format!("{} is not an object", at.trim_end_matches('.')))?;
    object.retain(|name, _| name != "comment");
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("unknown field {at}{name}")),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn allowed(filter: &Value, name: &str) -> bool {
        let rules = filter["syscalls"].as_array().unwrap();
        rules.iter().any(|rule| {
            rule["action"] == "SCMP_ACT_ALLOW"
                && rule["args"] == json!([])
                && rule["names"].as_array().unwrap().iter().any(|known| known == name)
        })
    }

    #[test]
    fn what_needs_a_capability_is_allowed_with_it() {
        let plain = default(&[]);
        for name in ["read", "execve", "futex", "ptrace", "arch_prctl"] {
            assert!(allowed(&plain, name), "{name}");
        }
        for name in ["mount", "unshare", "clone", "chroot", "reboot", "bpf", "keyctl", "io_uring_setup", "init_module"]
        {
            assert!(!allowed(&plain, name), "{name}");
        }
        assert!(plain.to_string().contains("SCMP_CMP_MASKED_EQ"));
        let admin = default(&["CAP_SYS_ADMIN".to_owned(), "CAP_SYS_CHROOT".to_owned()]);
        for name in ["mount", "unshare", "clone", "clone3", "chroot"] {
            assert!(allowed(&admin, name), "{name}");
        }
        assert!(!allowed(&admin, "reboot") && !admin.to_string().contains("SCMP_CMP_MASKED_EQ"));
    }

    #[test]
    fn no_name_is_written_twice_or_wrongly() {
        let names: Vec<&str> = calls::ALWAYS.iter().flat_map(|list| list.split_whitespace()).collect();
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
        let plain = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        assert!(names.iter().all(plain) && names.len() > 300);
    }

    #[test]
    fn a_profile_of_the_node_is_taken_whole_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let path = dir.path().join("profile.json");
            std::fs::write(&path, text).unwrap();
            build(&Security { seccomp: Seccomp::Localhost(path), ..Security::default() }, &[])
        };
        let log = of(r#"{"comment": "all", "defaultAction": "SCMP_ACT_LOG"}"#).unwrap().unwrap();
        assert_eq!(log, json!({"defaultAction": "SCMP_ACT_LOG"}));
        for (text, why) in [
            ("", "EOF"),
            ("{}", "no defaultAction"),
            (r#"{"defaultAction": "SCMP_ACT_LOG", "archMap": []}"#, "unknown field archMap"),
            (
                r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {}}]}"#,
                "unknown field syscalls[0].includes",
            ),
        ] {
            let told = of(text).unwrap_err().to_string();
            assert!(told.starts_with("cannot load seccomp profile") && told.contains(why), "{told}");
        }
        let none = Security { seccomp: Seccomp::Localhost(dir.path().join("none.json")), ..Security::default() };
        assert!(build(&none, &[]).unwrap_err().to_string().contains("No such file"));
        assert_eq!(build(&Security { privileged: true, ..none }, &[]).unwrap(), None);
    }
}
