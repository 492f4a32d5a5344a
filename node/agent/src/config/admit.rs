//! Which fields of a manifest this node cannot honour: refused with their path and why, never ignored. `seLinuxOptions` are no
//! exception: they label for a kernel with SELinux, and mean nothing (to a kubelet as well) where there is none.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};
use wherry_runtime::ImageKind;

use super::ConfigError;

fn unsupported(field: impl Into<String>, problem: &str) -> ConfigError {
    ConfigError::Unsupported { field: field.into(), problem: problem.to_owned() }
}

/// What no Pod on this node can have.
///
/// The namespaces that a Pod shares with its node or among its containers (`hostPID`, `hostIPC`, `shareProcessNamespace`) may
/// be asked for with Wasm containers too: these have no processes and no System V memory to show, and nothing to see others' with.
pub(crate) fn pod(pod: &Pod) -> Result<(), ConfigError> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    if spec.host_users == Some(false) {
        return Err(unsupported("spec.hostUsers", "user namespaces are not supported by this node"));
    }
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        return Err(unsupported("spec.os.name", &format!("this node runs linux, not {}", os.name)));
    }
    if spec.resources.as_ref().is_some_and(|all| all.limits.is_some() || all.requests.is_some()) {
        let problem = "resources of a whole Pod are not supported by this node; give them to its containers";
        return Err(unsupported("spec.resources", problem));
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Err(unsupported("spec.resourceClaims", "dynamic resources are not supported by this node"));
    }
    if let Some(context) = &spec.security_context {
        app_armor("spec.securityContext", context.app_armor_profile.as_ref())?;
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

/// What no container on this node can have.
pub(crate) fn container(field: &str, container: &Container) -> Result<(), ConfigError> {
    if container.volume_devices.as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(unsupported(format!("{field}.volumeDevices"), "block devices are not supported by this node"));
    }
    let hooks = container.lifecycle.as_ref();
    if hooks.is_some_and(|hooks| hooks.stop_signal.is_some()) {
        return Err(unsupported(
            format!("{field}.lifecycle.stopSignal"),
            "stop signals other than SIGTERM are not supported by this node yet",
        ));
    }
    for (n, port) in container.ports.iter().flatten().enumerate() {
        if port.host_port.is_some_and(|port| port != 0) && port.protocol.as_deref() == Some("SCTP") {
            return Err(unsupported(format!("{field}.ports[{n}].hostPort"), "SCTP is not supported by this node"));
        }
    }
    let resources = container.resources.as_ref();
    let lists = [
        ("limits", resources.and_then(|resources| resources.limits.as_ref())),
        ("requests", resources.and_then(|resources| resources.requests.as_ref())),
    ];
    for (name, list) in lists {
        for resource in list.into_iter().flatten().map(|(resource, _)| resource) {
            // What is named with a domain is counted by the scheduler, as often as the Node's capacity says; nothing is given.
            let counted = resource.contains('/');
            if !counted && !matches!(resource.as_str(), "cpu" | "memory" | "ephemeral-storage") {
                return Err(unsupported(
                    format!("{field}.resources.{name}[{resource}]"),
                    "this node does not have this resource",
                ));
            }
        }
    }
    let context = container.security_context.as_ref();
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

/// What a container of this kind cannot have. What is already so for every Wasm container (no new privileges, all
/// capabilities dropped, a read-only root, any seccomp profile) may be asked for.
pub(crate) fn kind(pod: &Pod, field: &str, container: &Container, kind: ImageKind) -> Result<(), ConfigError> {
    if kind == ImageKind::Container {
        return Ok(());
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
        for (spec, path) in [
            (with("hostUsers", json!(false)), "spec.hostUsers: "),
            (with("resources", json!({ "limits": { "memory": "1Gi" } })), "spec.resources: "),
            (
                with("securityContext", json!({ "appArmorProfile": { "type": "RuntimeDefault" } })),
                "spec.securityContext.appArmorProfile: ",
            ),
            (
                json!({ "containers": [{ "name": "c", "resources": { "limits": { "hugepages-2Mi": "4Mi" } } }] }),
                "spec.containers[0].resources.limits[hugepages-2Mi]: ",
            ),
        ] {
            let told = refused(spec, ImageKind::Container);
            assert!(told.starts_with(path), "{path} {told:?}");
        }
    }

    #[test]
    fn what_the_scheduler_counts_may_be_asked_for() {
        let amounts = json!({ "example.com/gpu": "1" });
        let resources = json!({ "limits": amounts, "requests": amounts });
        for kind in [ImageKind::Wasm, ImageKind::Container] {
            assert_eq!(refused(json!({ "containers": [{ "name": "c", "resources": resources }] }), kind), "");
        }
    }

    #[test]
    fn streams_and_commands_are_for_both_kinds() {
        let exec = json!({ "exec": { "command": ["probe"] } });
        let whole = json!({ "containers": [{ "name": "c", "stdin": true, "tty": true, "startupProbe": exec, "livenessProbe": exec,
            "readinessProbe": exec, "lifecycle": { "preStop": exec } }] });
        for kind in [ImageKind::Wasm, ImageKind::Container] {
            assert_eq!(refused(whole.clone(), kind), "");
        }
    }

    #[test]
    fn what_is_so_anyway_may_be_asked_for() {
        let unconfined = json!({ "containers": [{ "name": "c" }], "securityContext": { "seccompProfile": { "type": "Unconfined" }, "appArmorProfile": { "type": "Unconfined" } } });
        assert_eq!(refused(unconfined, ImageKind::Container), "");
        let filtered = json!({ "containers": [{ "name": "c" }], "securityContext": { "seccompProfile": { "type": "RuntimeDefault" } } });
        assert_eq!(refused(filtered.clone(), ImageKind::Wasm), "");
        assert_eq!(refused(filtered, ImageKind::Container), "");
        let limited = json!({ "containers": [{ "name": "c" }], "volumes": [{ "name": "v", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }] });
        assert_eq!(refused(limited, ImageKind::Wasm), "");
    }
}
