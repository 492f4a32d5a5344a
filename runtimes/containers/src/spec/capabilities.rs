//! Linux capabilities: containerd's default set, changed as the securityContext says, never more than we have.

use wherry_runtime::{RuntimeError, Security};

/// By number, as the kernel counts them.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The capabilities by their full names.
pub(crate) fn build(security: &Security) -> Result<Vec<String>, RuntimeError> {
    let ours = bounding(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    select(security, ours)
}

fn select(security: &Security, ours: u64) -> Result<Vec<String>, RuntimeError> {
    let number = |name: &str| NAMES.iter().position(|known| *known == name);
    let have = |name: &str| number(name).is_some_and(|n| ours >> n & 1 == 1);
    let bare = |name: &String| {
        let upper = name.to_ascii_uppercase();
        upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
    };
    let (add, drop): (Vec<String>, Vec<String>) =
        (security.add_capabilities.iter().map(bare).collect(), security.drop_capabilities.iter().map(bare).collect());
    for name in add.iter().filter(|name| *name != "ALL") {
        if number(name).is_none() {
            return Err(RuntimeError::InvalidSpec(format!("unknown capability to add: CAP_{name}")));
        }
        if !have(name) {
            return Err(RuntimeError::InvalidSpec(format!(
                "the capability CAP_{name} can't be added: this node does not have it itself"
            )));
        }
    }
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    let everything = security.privileged || has(&add, "ALL");
    let chosen = NAMES.iter().filter(|name| {
        let default = (everything || DEFAULT.contains(name)) && !has(&drop, "ALL");
        let wanted = has(&add, name) || (default && !has(&drop, name));
        (wanted || security.privileged) && have(name)
    });
    Ok(chosen.map(|name| format!("CAP_{name}")).collect())
}

/// The capabilities that a child of ours can have at most.
fn bounding(status: &str) -> u64 {
    status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str], privileged: bool, ours: u64) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        select(
            &Security {
                add_capabilities: words(add),
                drop_capabilities: words(drop),
                privileged,
                ..Security::default()
            },
            ours,
        )
        .unwrap()
    }

    #[test]
    fn the_security_context_changes_the_default() {
        let all = (1 << NAMES.len()) - 1;
        assert_eq!(of(&[], &[], false, all).len(), 14);
        assert_eq!(of(&["NET_ADMIN"], &["ALL"], false, all), ["CAP_NET_ADMIN"]);
        assert!(!of(&[], &["CAP_KILL"], false, all).contains(&"CAP_KILL".to_owned()));
        assert_eq!(of(&["ALL"], &["SYS_ADMIN"], false, all).len(), 40);
        assert_eq!(of(&[], &[], true, all).len(), 41);
        assert_eq!(of(&[], &[], true, 1), ["CAP_CHOWN"], "never more than we have");
        assert_eq!(bounding("Name:\tx\nCapBnd:\t000001ff\n"), 0x1ff);
    }
}
