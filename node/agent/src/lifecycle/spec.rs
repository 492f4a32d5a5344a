//! A container's part of the manifest, whichever list it stands in.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod};

use super::Slot;

/// A container's spec.
pub(crate) fn container(pod: &Pod, slot: Slot) -> Option<Cow<'_, Container>> {
    let spec = pod.spec.as_ref()?;
    match slot {
        Slot::Init(n) => spec.init_containers.as_ref()?.get(n).map(Cow::Borrowed),
        Slot::Main(n) => spec.containers.get(n).map(Cow::Borrowed),
        Slot::Ephemeral(n) => spec.ephemeral_containers.as_ref()?.get(n).cloned().map(ordinary).map(Cow::Owned),
    }
}

/// A container's name.
pub(crate) fn name(pod: &Pod, slot: Slot) -> &str {
    let Some(spec) = &pod.spec else { return "" };
    match slot {
        Slot::Init(n) => spec.init_containers.iter().flatten().nth(n).map(|container| container.name.as_str()),
        Slot::Main(n) => spec.containers.get(n).map(|container| container.name.as_str()),
        Slot::Ephemeral(n) => {
            spec.ephemeral_containers.iter().flatten().nth(n).map(|container| container.name.as_str())
        }
    }
    .unwrap_or_default()
}

/// The list that a container stands in, and its place there: `spec.containers[0]`.
pub(crate) fn field(slot: Slot) -> (&'static str, usize) {
    match slot {
        Slot::Init(n) => ("initContainers", n),
        Slot::Main(n) => ("containers", n),
        Slot::Ephemeral(n) => ("ephemeralContainers", n),
    }
}

/// An init container that restarts always: it runs beside the containers.
pub(crate) fn is_sidecar(pod: &Pod, slot: Slot) -> bool {
    matches!(slot, Slot::Init(_))
        && container(pod, slot).is_some_and(|container| container.restart_policy.as_deref() == Some("Always"))
}

/// The Pod with its ephemeral containers where they were: those that are added by a patch may come before the others, and a
/// [`Slot`] is a place.
pub(crate) fn in_known_order(mut pod: Arc<Pod>, known: &Pod) -> Arc<Pod> {
    fn list(pod: &Pod) -> &[EphemeralContainer] {
        pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
    }
    let before = list(known);
    if list(&pod).iter().zip(before).all(|(now, before)| now.name == before.name) {
        return pod;
    }
    if let Some(list) = Arc::make_mut(&mut pod).spec.as_mut().and_then(|spec| spec.ephemeral_containers.as_mut()) {
        // New ones keep their order, behind the others.
        list.sort_by_key(|container| {
            before.iter().position(|known| known.name == container.name).unwrap_or(before.len())
        });
    }
    pod
}

/// An ephemeral container has the fields of any other (those that it may not use are empty).
fn ordinary(from: EphemeralContainer) -> Container {
    Container {
        args: from.args,
        command: from.command,
        env: from.env,
        env_from: from.env_from,
        image: from.image,
        image_pull_policy: from.image_pull_policy,
        lifecycle: from.lifecycle,
        liveness_probe: from.liveness_probe,
        name: from.name,
        ports: from.ports,
        readiness_probe: from.readiness_probe,
        resize_policy: from.resize_policy,
        resources: from.resources,
        restart_policy: from.restart_policy,
        restart_policy_rules: from.restart_policy_rules,
        security_context: from.security_context,
        startup_probe: from.startup_probe,
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        termination_message_path: from.termination_message_path,
        termination_message_policy: from.termination_message_policy,
        tty: from.tty,
        volume_devices: from.volume_devices,
        volume_mounts: from.volume_mounts,
        working_dir: from.working_dir,
    }
}
