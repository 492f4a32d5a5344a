//! What the end of a container leads to: its own rules, its own policy, its Pod's policy, in this order.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use super::Slot;
use super::spec::{container, is_sidecar};
use super::state::{ContainerState, PodState, Run};

/// What follows the end of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It stays ended.
    Nothing,
    /// It is started again.
    Restart,
    /// The whole Pod begins anew.
    RestartAll,
}

/// `spec.restartPolicy`, `Always` where it is not given.
#[must_use]
fn pod_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// The policy that holds for a container.
fn policy<'a>(pod: &'a Pod, spec: Option<&'a Container>) -> &'a str {
    spec.and_then(|spec| spec.restart_policy.as_deref()).unwrap_or_else(|| pod_policy(pod))
}

/// Whether a container that is killed for a failed probe is started again. Rules are about exit codes, and it has none yet.
pub(super) fn restarts_on_failure(pod: &Pod, slot: Slot) -> bool {
    policy(pod, container(pod, slot).as_deref()) != "Never"
}

/// What follows on the end of a container with this exit code.
#[must_use]
pub(super) fn after(pod: &Pod, slot: Slot, code: i32) -> After {
    if matches!(slot, Slot::Ephemeral(_)) {
        return After::Nothing;
    }
    let spec = container(pod, slot);
    let rules = spec.as_ref().filter(|spec| spec.restart_policy.is_some());
    let rules = rules.and_then(|spec| spec.restart_policy_rules.as_deref()).unwrap_or_default();
    let rule = rules.iter().find(|rule| matches(rule, code));
    // An init container that succeeded has done its part.
    let done = matches!(slot, Slot::Init(_)) && !is_sidecar(pod, slot) && code == 0;
    match rule.map(|rule| rule.action.as_str()) {
        Some("RestartAllContainers") => return After::RestartAll,
        Some("Restart") if !done => return After::Restart,
        _ => {}
    }
    let again = match policy(pod, spec.as_deref()) {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => !done,
    };
    if again { After::Restart } else { After::Nothing }
}

fn matches(rule: &ContainerRestartRule, code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let named = codes.values.iter().flatten().any(|value| *value == code);
        match codes.operator.as_str() {
            "In" => named,
            "NotIn" => !named,
            _ => false,
        }
    })
}

/// Whether the container has ended and stays so.
pub(super) fn is_over(pod: &Pod, slot: Slot, state: &ContainerState) -> bool {
    matches!(&state.run, Run::Exited { ended, restart: false } if after(pod, slot, ended.code) == After::Nothing)
}

/// The container whose end asks for the whole Pod to begin anew.
pub(super) fn asks_for_all(pod: &Pod, state: &PodState) -> Option<Slot> {
    let asks = |(slot, container): &(Slot, &ContainerState)| matches!(&container.run, Run::Exited { ended, restart: false } if after(pod, *slot, ended.code) == After::RestartAll);
    state.slots().find(asks).map(|(slot, _)| slot)
}

/// Some container has a rule that begins the whole Pod anew.
pub(super) fn may_restart_all(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let all = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    all.flat_map(|container| container.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == "RestartAllContainers")
}
