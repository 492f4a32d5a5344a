//! The checks of the Pod Security Standards, as a table: which apply at a level and version, in which order.

use serde_json::Value;

use super::fields as f;
use super::policy::{Level, Standard};

/// What is looked at: a Pod or the template of one.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) annotations: &'a Value,
    pub(super) spec: &'a Value,
}

impl<'a> Subject<'a> {
    pub(super) fn of(pod: &'a Value) -> Self {
        Self { annotations: &pod["metadata"]["annotations"], spec: &pod["spec"] }
    }

    /// The names and contents of all containers: init, ordinary and ephemeral ones.
    pub(super) fn containers(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |key| self.spec[key].as_array().into_iter().flatten())
            .map(|container| (container["name"].as_str().unwrap_or_default(), container))
    }
}

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) reason: String,
    pub(super) detail: String,
}

/// What all checks of a standard found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict(Vec<Found>);

impl Verdict {
    pub(super) fn is_allowed(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong, in short.
    pub(super) fn reason(&self) -> String {
        self.0.iter().map(|found| found.reason.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// What is wrong and with which containers.
    pub(super) fn detail(&self) -> String {
        let each = self.0.iter().map(|found| match found.detail.as_str() {
            "" => found.reason.clone(),
            detail => format!("{} ({detail})", found.reason),
        });
        each.collect::<Vec<_>>().join(", ")
    }
}

type Run = fn(Subject<'_>) -> Option<Found>;

/// A check: its name, and from which minor version on it is which function. A check of the restricted level may stand for one of
/// the baseline.
struct Check {
    id: &'static str,
    versions: &'static [(u32, Run)],
    instead_of: &'static str,
}

const fn check(id: &'static str, versions: &'static [(u32, Run)]) -> Check {
    Check { id, versions, instead_of: "" }
}

const fn instead(of: &'static str, id: &'static str, versions: &'static [(u32, Run)]) -> Check {
    Check { id, versions, instead_of: of }
}

/// The checks of the baseline level, in order of their names, which is the order of messages.
const BASELINE: &[Check] = &[
    check("appArmorProfile", &[(0, f::app_armor)]),
    check("capabilities_baseline", &[(0, f::capabilities_baseline)]),
    check("hostNamespaces", &[(0, f::host_namespaces)]),
    check("hostPathVolumes", &[(0, f::host_path)]),
    check("hostPorts", &[(0, f::host_ports)]),
    check("hostProbesAndHostLifecycle", &[(34, f::host_probes)]),
    check("privileged", &[(0, f::privileged)]),
    check("procMount", &[(0, f::proc_mount), (35, f::proc_mount_outside_user_namespace)]),
    check("seLinuxOptions", &[(0, f::se_linux_0), (31, f::se_linux_31)]),
    check("seccompProfile_baseline", &[(0, f::seccomp_annotations), (19, f::seccomp_baseline)]),
    check("sysctls", &[(0, f::sysctls_0), (27, f::sysctls_27), (29, f::sysctls_29), (32, f::sysctls_32)]),
    check("windowsHostProcess", &[(0, f::windows_host_process)]),
];

/// What the restricted level adds.
const RESTRICTED: &[Check] = &[
    check("allowPrivilegeEscalation", &[(8, f::escalation), (25, f::escalation_unless_windows)]),
    instead(
        "capabilities_baseline",
        "capabilities_restricted",
        &[(22, f::capabilities_restricted), (25, f::capabilities_restricted_unless_windows)],
    ),
    instead("procMount", "procMount_restricted", &[(35, f::proc_mount)]),
    instead("hostPathVolumes", "restrictedVolumes", &[(0, f::volumes)]),
    check("runAsNonRoot", &[(0, f::non_root), (35, f::non_root_outside_user_namespace)]),
    check("runAsUser", &[(23, f::user), (35, f::user_outside_user_namespace)]),
    instead(
        "seccompProfile_baseline",
        "seccompProfile_restricted",
        &[(19, f::seccomp_restricted), (25, f::seccomp_restricted_unless_windows)],
    ),
];

impl Check {
    /// What the check is at a version; none before it was made.
    fn at(&self, version: u32) -> Option<Run> {
        self.versions.iter().rev().find(|(from, _)| *from <= version).map(|(_, run)| *run)
    }
}

/// What a standard finds wrong with a Pod.
pub(super) fn evaluate(standard: Standard, subject: Subject<'_>) -> Verdict {
    if standard.level == Level::Privileged {
        return Verdict::default();
    }
    // Every version from the last change on is the same.
    let version = standard.version.unwrap_or(u32::MAX);
    let restricted: &[Check] = if standard.level == Level::Restricted { RESTRICTED } else { &[] };
    let replaced = |id: &str| restricted.iter().any(|c| c.instead_of == id && c.at(version).is_some());
    let baseline = BASELINE.iter().filter(|check| !replaced(check.id));
    Verdict(baseline.chain(restricted).filter_map(|check| check.at(version)?(subject)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(level: Level, version: Option<u32>, spec: Value) -> String {
        let pod = json!({"metadata": {}, "spec": spec});
        evaluate(Standard { level, version }, Subject::of(&pod)).detail()
    }

    fn with(context: Value) -> Value {
        json!({"containers": [{"name": "a", "securityContext": context}]})
    }

    #[test]
    fn baseline_speaks_as_upstream() {
        for (spec, expected) in [
            (json!({"containers": [{"name": "a"}]}), ""),
            (json!({"hostNetwork": true, "hostIPC": true}), "host namespaces (hostNetwork=true, hostIPC=true)"),
            (
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {}}]}),
                "hostPath volumes (volumes \"v\", \"w\")",
            ),
            (
                json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]}),
                "hostPort (container \"a\" uses hostPorts 443, 80)",
            ),
            (
                with(json!({"privileged": true})),
                "privileged (container \"a\" must not set securityContext.privileged=true)",
            ),
            (
                with(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
                "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
            ),
            (
                json!({"securityContext": {"sysctls": [{"name": "a.b"}, {"name": "net.ipv4.tcp_rmem"}]}}),
                "forbidden sysctls (a.b)",
            ),
            (
                json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}}),
                "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
            ),
            (
                with(json!({"seccompProfile": {"type": "Unconfined"}})),
                "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            ),
            (
                with(json!({"procMount": "Unmasked"})),
                "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
            ),
            (
                json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}}]}),
                "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
            ),
            (
                with(json!({"appArmorProfile": {"type": "Unconfined"}})),
                "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
            ),
            (
                with(json!({"windowsOptions": {"hostProcess": true}})),
                "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
            ),
        ] {
            assert_eq!(found(Level::Baseline, None, spec.clone()), expected, "{spec}");
            assert_eq!(found(Level::Privileged, None, spec), "");
        }
    }

    #[test]
    fn restricted_asks_for_everything() {
        assert_eq!(
            found(Level::Restricted, None, json!({"containers": [{"name": "a"}, {"name": "b"}]})),
            "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        let good = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "a", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            }}],
            "volumes": [{"name": "v", "configMap": {}}],
        });
        assert_eq!(found(Level::Restricted, None, good.clone()), "");
        let mut bad = good;
        bad["volumes"] = json!([{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}]);
        bad["securityContext"]["runAsUser"] = json!(0);
        assert_eq!(
            found(Level::Restricted, None, bad),
            "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\"), \
             runAsUser=0 (pod must not set runAsUser=0)"
        );
    }

    #[test]
    fn versions_count() {
        let spec = json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 0}}]});
        assert!(!found(Level::Restricted, Some(22), spec.clone()).contains("runAsUser"));
        assert!(found(Level::Restricted, Some(23), spec.clone()).contains("runAsUser"));
        assert!(found(Level::Restricted, Some(99), spec).contains("runAsUser"));
        let rmem = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
        assert_eq!(found(Level::Baseline, Some(31), rmem.clone()), "forbidden sysctls (net.ipv4.tcp_rmem)");
        assert_eq!(found(Level::Baseline, Some(32), rmem), "");
        let unmasked =
            json!({"hostUsers": false, "containers": [{"name": "a", "securityContext": {"procMount": "Unmasked"}}]});
        assert!(found(Level::Baseline, Some(34), unmasked.clone()).contains("procMount"));
        assert_eq!(found(Level::Baseline, Some(35), unmasked.clone()), "");
        assert!(found(Level::Restricted, Some(35), unmasked).contains("procMount"));
    }
}
