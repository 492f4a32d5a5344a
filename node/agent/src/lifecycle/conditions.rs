//! A Pod's conditions.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use wherry_reconcile::resources::RESIZE_PENDING;

use super::Slot;
use super::resize::{IN_PROGRESS, failure};
use super::restart::may_restart_all;
use super::spec::is_sidecar;
use super::state::{Ground, Phase, PodState};
use super::status::seconds;

/// The condition of a Pod that has to go for what it did not do. Others set it, too.
pub(crate) const DISRUPTION_TARGET: &str = "DisruptionTarget";
/// Its reason where this node wanted it.
pub(crate) const TERMINATION_BY_KUBELET: &str = "TerminationByKubelet";

/// Writes the conditions that are the agent's into `status`.
pub(super) fn conditions(
    pod: &Pod,
    state: &PodState,
    phase: Phase,
    init: &[ContainerStatus],
    statuses: &[ContainerStatus],
    status: &mut PodStatus,
    now: Timestamp,
) {
    let told = |unready: &[String], what: &str| format!("containers with {what} status: [{}]", unready.join(" "));

    // An init container is done when it has ended well, a sidecar when it has started.
    let incomplete: Vec<String> = init
        .iter()
        .enumerate()
        .filter(|(n, status)| {
            let done = if is_sidecar(pod, Slot::Init(*n)) { status.started == Some(true) } else { status.ready };
            !done
        })
        .map(|(_, status)| status.name.clone())
        .collect();
    let initialised = if phase == Phase::Succeeded {
        (true, "PodCompleted", String::new())
    } else if incomplete.is_empty() || state.begun() {
        (true, "", String::new())
    } else {
        (false, "ContainersNotInitialized", told(&incomplete, "incomplete"))
    };

    let sidecars = init.iter().enumerate().filter(|(n, _)| is_sidecar(pod, Slot::Init(*n))).map(|(_, status)| status);
    let unready: Vec<String> =
        sidecars.chain(statuses).filter(|status| !status.ready).map(|status| status.name.clone()).collect();
    let containers_ready = match phase {
        Phase::Succeeded => (false, "PodCompleted", String::new()),
        Phase::Failed => (false, "PodFailed", String::new()),
        _ if unready.is_empty() => (true, "", String::new()),
        _ => (false, "ContainersNotReady", told(&unready, "unready")),
    };

    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    let missing: Vec<String> = gates
        .into_iter()
        .flatten()
        .filter_map(|gate| {
            let found = status.conditions.iter().flatten().find(|condition| condition.type_ == gate.condition_type);
            match found {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{}\" does not exist.",
                    gate.condition_type
                )),
                Some(condition) if condition.status != "True" => Some(format!(
                    "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                    gate.condition_type, condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    let ready = if containers_ready.0 && !missing.is_empty() {
        (false, "ReadinessGatesNotReady", missing.join(", "))
    } else {
        containers_ready.clone()
    };

    let grounded = matches!(state.ground, Ground::Ready);
    let list = status.conditions.get_or_insert_default();
    set(list, pod, "PodReadyToStartContainers", (grounded, "", String::new()), now);
    set(list, pod, "Initialized", initialised, now);
    set(list, pod, "Ready", ready, now);
    set(list, pod, "ContainersReady", containers_ready, now);
    set(list, pod, "PodScheduled", (true, "", String::new()), now);
    let pending = state.pending.as_ref().filter(|_| !phase.is_terminal());
    let pending = pending.map(|pending| (pending.reason, pending.message.clone(), pending.generation));
    let (reason, message) = failure(pod, state).map_or(("", String::new()), |message| ("Error", message));
    let resizing = state.resizing.filter(|_| !phase.is_terminal()).map(|generation| (reason, message, generation));
    for (type_, told) in [(RESIZE_PENDING, pending), (IN_PROGRESS, resizing)] {
        match told {
            Some((reason, message, generation)) => set_at(list, Some(generation), type_, (true, reason, message), now),
            None => list.retain(|condition| condition.type_ != type_),
        }
    }
    if let Some(verdict) = state.verdict.as_ref().filter(|verdict| verdict.disrupted) {
        set(list, pod, DISRUPTION_TARGET, (true, TERMINATION_BY_KUBELET, verdict.message.clone()), now);
    }
    if may_restart_all(pod) {
        set(list, pod, "AllContainersRestarting", (state.renewing, "", String::new()), now);
    }
}

/// Sets one condition, as of the manifest that is known.
fn set(list: &mut Vec<PodCondition>, pod: &Pod, type_: &str, told: (bool, &str, String), now: Timestamp) {
    set_at(list, pod.metadata.generation, type_, told, now);
}

/// Sets one condition; its transition time moves only with its status.
fn set_at(
    list: &mut Vec<PodCondition>,
    generation: Option<i64>,
    type_: &str,
    (on, reason, message): (bool, &str, String),
    now: Timestamp,
) {
    let status = if on { "True" } else { "False" };
    let old = list.iter().position(|condition| condition.type_ == type_);
    let since = old.filter(|&n| list[n].status == status).and_then(|n| list[n].last_transition_time.clone());
    let condition = PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then_some(message),
        last_probe_time: None,
        last_transition_time: Some(since.unwrap_or_else(|| seconds(now))),
        observed_generation: generation,
    };
    match old {
        Some(n) => list[n] = condition,
        None => list.push(condition),
    }
}
