//! Which fields of a manifest this node cannot honour: refused with their path and why, never ignored.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};
use wherry_api::quantity::Quantity;
use wherry_runtime::{ImageKind, Security};

use super::ConfigError;

fn unsupported(field: impl Into<String>, problem: &str) -> ConfigError {
    ConfigError::Unsupported { field: field.into(), problem: problem.to_owned() }
}

/// What no Pod on this node can have.
pub(crate) fn pod(pod: &Pod) -> Result<(), ConfigError> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let flags = [
        (spec.host_network, "spec.hostNetwork", "Pods have a network of their own on this node"),
        (spec.host_pid, "spec.hostPID", "containers do not see the node's processes on this node"),
        (spec.host_ipc, "spec.hostIPC", "containers do not share the node's IPC namespace on this node"),
        (
            spec.share_process_namespace,
            "spec.shareProcessNamespace",
            "containers do not share a process namespace on this node",
        ),
        (spec.set_hostname_as_fqdn, "spec.setHostnameAsFQDN", "a Pod's host name is its short name on this node"),
        (spec.host_users.map(|on| !on), "spec.hostUsers", "user namespaces are not supported by this node"),
    ];
    for (set, field, problem) in flags {
        if set == Some(true) {
            return Err(unsupported(field, problem));
        }
    }
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        return Err(unsupported("spec.os.name", &format!("this node runs linux, not {}", os.name)));
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Err(unsupported("spec.resourceClaims", "dynamic resources are not supported by this node"));
    }
    if spec.ephemeral_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
        return Err(unsupported("spec.ephemeralContainers", "ephemeral containers are not supported by this node yet"));
    }
    if let Some(context) = &spec.security_context {
        if context.sysctls.as_ref().is_some_and(|sysctls| !sysctls.is_empty()) {
            return Err(unsupported("spec.securityContext.sysctls", "sysctls are not supported by this node"));
        }
        if context.se_linux_options.is_some() {
            return Err(unsupported("spec.securityContext.seLinuxOptions", "SELinux is not supported by this node"));
        }
        app_armor("spec.securityContext", context.app_armor_profile.as_ref())?;
    }
    for (n, volume) in spec.volumes.iter().flatten().enumerate() {
        let on_disk = volume.empty_dir.as_ref().filter(|empty| empty.medium.as_deref().unwrap_or_default().is_empty());
        let limit = on_disk.and_then(|empty| empty.size_limit.as_ref());
        if limit.is_some_and(|limit| !Quantity::parse(&limit.0).is_ok_and(|limit| limit.value() == 0)) {
            let problem = "this node cannot limit a directory on its disk; use medium: Memory or leave the limit out";
            return Err(unsupported(format!("spec.volumes[{n}].emptyDir.sizeLimit"), problem));
        }
    }
    let init = spec
        .init_containers
        .iter()
        .flatten()
        .enumerate()
        .map(|(n, container)| (format!("spec.initContainers[{n}]"), container));
    let main = spec.containers.iter().enumerate().map(|(n, container)| (format!("spec.containers[{n}]"), container));
    for (field, of) in init.chain(main) {
        container(&field, of)?;
    }
    Ok(())
}

fn container(field: &str, container: &Container) -> Result<(), ConfigError> {
    if container.restart_policy.is_some() {
        return Err(unsupported(
            format!("{field}.restartPolicy"),
            "sidecars and restart rules are not supported by this node yet",
        ));
    }
    if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(unsupported(format!("{field}.volumeDevices"), "block devices are not supported by this node"));
    }
    let hooks = container.lifecycle.as_ref();
    if hooks.is_some_and(|hooks| hooks.post_start.is_some()) {
        return Err(unsupported(
            format!("{field}.lifecycle.postStart"),
            "postStart hooks are not supported by this node yet",
        ));
    }
    if hooks.is_some_and(|hooks| hooks.stop_signal.is_some()) {
        return Err(unsupported(
            format!("{field}.lifecycle.stopSignal"),
            "stop signals other than SIGTERM are not supported by this node yet",
        ));
    }
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ];
    for (name, probe) in probes {
        if probe.as_ref().is_some_and(|probe| probe.grpc.is_some()) {
            return Err(unsupported(format!("{field}.{name}.grpc"), "gRPC probes are not supported by this node yet"));
        }
    }
    for (n, port) in container.ports.iter().flatten().enumerate() {
        if port.host_port.is_some_and(|port| port != 0) {
            return Err(unsupported(
                format!("{field}.ports[{n}].hostPort"),
                "host ports are not supported by this node; use a NodePort Service",
            ));
        }
    }
    let resources = container.resources.as_ref();
    let lists = [
        ("limits", resources.and_then(|resources| resources.limits.as_ref())),
        ("requests", resources.and_then(|resources| resources.requests.as_ref())),
    ];
    for (name, list) in lists {
        for resource in list.into_iter().flatten().map(|(resource, _)| resource) {
            if !matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                return Err(unsupported(
                    format!("{field}.resources.{name}[{resource}]"),
                    "this node does not have this resource",
                ));
            }
        }
    }
    let context = container.security_context.as_ref();
    if context.is_some_and(|context| context.se_linux_options.is_some()) {
        return Err(unsupported(
            format!("{field}.securityContext.seLinuxOptions"),
            "SELinux is not supported by this node",
        ));
    }
    app_armor(&format!("{field}.securityContext"), context.and_then(|context| context.app_armor_profile.as_ref()))
}

/// As a kubelet whose kernel has no AppArmor.
fn app_armor(field: &str, profile: Option<&AppArmorProfile>) -> Result<(), ConfigError> {
    match profile {
        Some(profile) if profile.type_ != "Unconfined" => Err(unsupported(
            format!("{field}.appArmorProfile"),
            "cannot enforce AppArmor: it is not supported by this node",
        )),
        _ => Ok(()),
    }
}

/// System calls of a container are not filtered yet. For Wasm, which makes none, every profile is honoured.
fn seccomp(pod: &Pod, field: &str, container: &Container) -> Result<(), ConfigError> {
    let own = container.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    let shared = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref())
        .and_then(|context| context.seccomp_profile.as_ref());
    let (field, profile) = match (own, shared) {
        (Some(own), _) => (format!("{field}.securityContext.seccompProfile"), own),
        (None, Some(shared)) => ("spec.securityContext.seccompProfile".to_owned(), shared),
        (None, None) => return Ok(()),
    };
    if profile.type_ == "Unconfined" {
        return Ok(());
    }
    Err(unsupported(
        field,
        &format!("{} cannot be enforced for containers by this node yet; use Unconfined", profile.type_),
    ))
}

/// What a container of this kind cannot have. What is already so for every Wasm container (no new privileges, all
/// capabilities dropped, a read-only root, any seccomp profile) may be asked for.
pub(crate) fn kind(pod: &Pod, field: &str, container: &Container, kind: ImageKind) -> Result<(), ConfigError> {
    if kind == ImageKind::Container {
        return seccomp(pod, field, container);
    }
    let wasm =
        |name: &str, problem: &str| Err(unsupported(format!("{field}.{name}"), &format!("{problem} a Wasm container")));
    if let Some(context) = &container.security_context {
        if context.privileged == Some(true) {
            return wasm("securityContext.privileged", "there are no privileges to give to");
        }
        if context
            .capabilities
            .as_ref()
            .and_then(|capabilities| capabilities.add.as_ref())
            .is_some_and(|add| !add.is_empty())
        {
            return wasm("securityContext.capabilities.add", "there are no capabilities to give to");
        }
        if context.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
            return wasm("securityContext.procMount", "there is no /proc for");
        }
    }
    if container.stdin == Some(true) {
        return wasm("stdin", "there is no standard input for");
    }
    if container.tty == Some(true) {
        return wasm("tty", "there is no terminal for");
    }
    let probes = [
        ("startupProbe", &container.startup_probe),
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
    ];
    for (name, probe) in probes {
        if probe.as_ref().is_some_and(|probe| probe.exec.is_some()) {
            return wasm(&format!("{name}.exec"), "no command can be run in");
        }
    }
    let spec = pod.spec.as_ref();
    let devices = spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten().filter(|volume| {
        let kind = volume.host_path.as_ref().and_then(|host| host.type_.as_deref());
        matches!(kind, Some("Socket" | "CharDevice" | "BlockDevice"))
    });
    for volume in devices {
        if let Some(n) = container.volume_mounts.iter().flatten().position(|mount| mount.name == volume.name) {
            return wasm(&format!("volumeMounts[{n}]"), "a socket or device cannot be mounted into");
        }
    }
    Ok(())
}

/// Who a container runs as.
pub(crate) fn security(pod: &Pod, container: &Container) -> Result<Security, ConfigError> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let id = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let user = id(own.and_then(|own| own.run_as_user).or_else(|| context.and_then(|context| context.run_as_user)));
    let group = id(own.and_then(|own| own.run_as_group).or_else(|| context.and_then(|context| context.run_as_group)));
    let non_root =
        own.and_then(|own| own.run_as_non_root).or_else(|| context.and_then(|context| context.run_as_non_root));
    if non_root == Some(true) && user == Some(0) {
        return Err(ConfigError::Invalid("container's runAsUser breaks non-root policy".to_owned()));
    }
    let groups = context
        .into_iter()
        .flat_map(|context| context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()));
    let names = |list: Option<&Vec<String>>| {
        list.into_iter().flatten().map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned()).collect()
    };
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    Ok(Security {
        user,
        group,
        supplemental_groups: groups.filter_map(|group| u32::try_from(group).ok()).collect(),
        read_only_root: own.and_then(|own| own.read_only_root_filesystem).unwrap_or(false),
        privileged: own.and_then(|own| own.privileged).unwrap_or(false),
        add_capabilities: names(capabilities.and_then(|capabilities| capabilities.add.as_ref())),
        drop_capabilities: names(capabilities.and_then(|capabilities| capabilities.drop.as_ref())),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(spec: Value, kind: ImageKind) -> String {
        let manifest: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let container = &manifest.spec.as_ref().unwrap().containers[0];
        let answer = pod(&manifest).and_then(|()| super::kind(&manifest, "spec.containers[0]", container, kind));
        answer.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_enforced_is_refused_by_its_path() {
        let with = |field: &str, value: Value| json!({ "containers": [{ "name": "c" }], field: value });
        let runtime_default = json!({ "seccompProfile": { "type": "RuntimeDefault" } });
        for (spec, path) in [
            (with("setHostnameAsFQDN", json!(true)), "spec.setHostnameAsFQDN: "),
            (
                with("securityContext", json!({ "appArmorProfile": { "type": "RuntimeDefault" } })),
                "spec.securityContext.appArmorProfile: ",
            ),
            (with("securityContext", runtime_default.clone()), "spec.securityContext.seccompProfile: "),
            (
                json!({ "containers": [{ "name": "c", "securityContext": runtime_default }] }),
                "spec.containers[0].securityContext.seccompProfile: ",
            ),
            (
                with("volumes", json!([{ "name": "v", "emptyDir": { "sizeLimit": "1Mi" } }])),
                "spec.volumes[0].emptyDir.sizeLimit: ",
            ),
        ] {
            let told = refused(spec, ImageKind::Container);
            assert!(told.starts_with(path), "{path} {told:?}");
        }
    }

    #[test]
    fn what_is_so_anyway_may_be_asked_for() {
        let unconfined = json!({ "containers": [{ "name": "c" }], "securityContext": { "seccompProfile": { "type": "Unconfined" }, "appArmorProfile": { "type": "Unconfined" } } });
        assert_eq!(refused(unconfined, ImageKind::Container), "");
        let filtered = json!({ "containers": [{ "name": "c" }], "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } } });
        assert_eq!(refused(filtered, ImageKind::Wasm), "");
        let limited = json!({ "containers": [{ "name": "c" }], "volumes": [{ "name": "v", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }] });
        assert_eq!(refused(limited, ImageKind::Wasm), "");
    }
}
