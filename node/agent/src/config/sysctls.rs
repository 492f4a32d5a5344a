//! Which of the kernel's settings a Pod may have: those that concern nobody else, as kubelet knows them.

use k8s_openapi::api::core::v1::Pod;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ipc,
    Net,
}

const SAFE: [(&str, Kind); 12] = [
    ("kernel.shm_rmid_forced", Kind::Ipc),
    ("net.ipv4.ip_local_port_range", Kind::Net),
    ("net.ipv4.ip_local_reserved_ports", Kind::Net),
    ("net.ipv4.ip_unprivileged_port_start", Kind::Net),
    ("net.ipv4.ping_group_range", Kind::Net),
    ("net.ipv4.tcp_fin_timeout", Kind::Net),
    ("net.ipv4.tcp_keepalive_intvl", Kind::Net),
    ("net.ipv4.tcp_keepalive_probes", Kind::Net),
    ("net.ipv4.tcp_keepalive_time", Kind::Net),
    ("net.ipv4.tcp_rmem", Kind::Net),
    ("net.ipv4.tcp_syncookies", Kind::Net),
    ("net.ipv4.tcp_wmem", Kind::Net),
];

/// Why the Pod is rejected for its sysctls: the reason `SysctlForbidden`'s message.
pub(crate) fn forbidden(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let asked = spec.security_context.as_ref()?.sysctls.as_ref()?;
    let problem = |name: &str| {
        // Its parts may be separated by slashes as well; none of the safe ones has either in a part.
        let name = if name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/')) {
            name.replace('/', ".")
        } else {
            name.to_owned()
        };
        match SAFE.iter().find(|(safe, _)| *safe == name) {
            None => Some(format!("{name:?} not allowlisted")),
            Some((_, Kind::Net)) if spec.host_network == Some(true) => {
                Some(format!("{name:?} not allowed with host net enabled"))
            }
            Some((_, Kind::Ipc)) if spec.host_ipc == Some(true) => {
                Some(format!("{name:?} not allowed with host ipc enabled"))
            }
            Some(_) => None,
        }
    };
    asked.iter().find_map(|sysctl| problem(&sysctl.name)).map(|problem| format!("forbidden sysctl: {problem}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(name: &str, host: Option<&str>) -> Option<String> {
        let mut spec = json!({ "containers": [], "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
        if let Some(field) = host {
            spec[field] = json!(true);
        }
        forbidden(&serde_json::from_value(json!({ "spec": spec })).unwrap())
    }

    #[test]
    fn what_concerns_others_is_forbidden() {
        for name in ["kernel.shm_rmid_forced", "kernel/shm_rmid_forced", "net.ipv4.tcp_syncookies"] {
            assert_eq!(of(name, None), None, "{name}");
        }
        let told = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        assert_eq!(of("kernel.msgmax", None).as_deref(), Some(told));
        let told = "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host net enabled";
        assert_eq!(of("net.ipv4.tcp_rmem", Some("hostNetwork")).as_deref(), Some(told));
        let told = "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled";
        assert_eq!(of("kernel.shm_rmid_forced", Some("hostIPC")).as_deref(), Some(told));
    }
}
