//! A Pod's status, as kubelet would write it.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod, PodIP, PodStatus, ResourceRequirements,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use wherry_runtime::User;

use super::Slot;
use super::conditions::conditions;
use super::phase::phase;
use super::spec::{container as container_spec, is_sidecar};
use super::state::{ContainerState, Ended, Given, Phase, PodState, Run};

/// What a Pod's status tells of its node.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    /// `status.hostIPs`.
    pub host_ips: Vec<IpAddr>,
}

/// The status of `pod` for the API. `old` keeps what others wrote and the times of conditions that did not change.
#[must_use]
pub(crate) fn status(
    pod: &Pod,
    state: &PodState,
    ending: bool,
    old: &PodStatus,
    node: &NodeFacts,
    now: Timestamp,
) -> PodStatus {
    let phase = phase(pod, state, ending);
    let has_init = !state.init.is_empty();
    let list = |containers: &[ContainerState], slot: fn(usize) -> Slot| -> Vec<ContainerStatus> {
        containers
            .iter()
            .enumerate()
            .map(|(n, container)| container_status(pod, slot(n), container, has_init, phase, ending, now))
            .collect()
    };
    let mut init_statuses = list(&state.init, Slot::Init);
    let mut statuses = list(&state.containers, Slot::Main);
    let mut ephemeral_statuses = list(&state.ephemeral, Slot::Ephemeral);
    share_messages([&mut init_statuses, &mut statuses, &mut ephemeral_statuses]);
    let mut status = old.clone();
    status.phase = Some(phase.as_str().to_owned());
    status.observed_generation = pod.metadata.generation;
    status.start_time = old.start_time.clone().or_else(|| state.started_at.map(seconds));
    status.host_ip = node.host_ips.first().map(ToString::to_string);
    status.host_ips =
        (!node.host_ips.is_empty()).then(|| node.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect());
    status.pod_ip = state.ips.first().map(ToString::to_string);
    status.pod_ips = (!state.ips.is_empty()).then(|| state.ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect());
    if let Some(verdict) = &state.verdict {
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
    }
    conditions(pod, state, phase, &init_statuses, &statuses, &mut status, now);
    // A Pod that was refused never had containers.
    let refused = state.verdict.is_some() && state.slots().all(|(_, container)| container.attempts == 0);
    status.init_container_statuses = (has_init && !refused).then_some(init_statuses);
    status.container_statuses = (!refused).then_some(statuses);
    status.ephemeral_container_statuses = (!state.ephemeral.is_empty() && !refused).then_some(ephemeral_statuses);
    status
}

fn container_status(
    pod: &Pod,
    slot: Slot,
    container: &ContainerState,
    has_init: bool,
    phase: Phase,
    ending: bool,
    now: Timestamp,
) -> ContainerStatus {
    let spec = container_spec(pod, slot);
    let spec = spec.as_deref();
    let sidecar = is_sidecar(pod, slot);
    let waiting = |reason: &str, message: &str| ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ApiState::default()
    };
    let not_yet = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let mut last = container.last.as_ref();
    let mut identity = last.map(|ended| ended.identity.clone()).unwrap_or_default();
    let (mut ready, mut started) = (false, false);
    let state = match &container.run {
        // What never ran and never will be told apart from what is about to run.
        Run::Waiting { .. } if phase.is_terminal() && ending && container.attempts == 0 => ApiState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some("ContainerStatusUnknown".to_owned()),
                message: Some("The container could not be located when the pod was terminated".to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..ApiState::default()
        },
        // A Pod that ends while a restart is held back shows how the container ended.
        Run::Waiting { .. } if phase.is_terminal() && last.is_some() => {
            let ended = last.take();
            ended.map(terminated).unwrap_or_default()
        }
        Run::Waiting { why: Some(why), .. } | Run::Starting { why: Some(why), .. } => {
            let why = why.at(now);
            waiting(&why.reason, &why.message)
        }
        // Between an exit and the restart that follows it at once.
        Run::Starting { why: None, .. } | Run::Waiting { why: None, .. } if last.is_some() => {
            last.take().map(terminated).unwrap_or_default()
        }
        Run::Starting { .. } | Run::Waiting { .. } => waiting(not_yet, ""),
        // It is being killed for its postStart hook: it was never up.
        Run::Running(live) | Run::Stopping { live, .. } if live.hook_failed => match last.take() {
            Some(last) => terminated(last),
            None => waiting(not_yet, ""),
        },
        Run::Running(live) | Run::Stopping { live, .. } => {
            identity = live.identity.clone();
            started = live.started();
            ready = live.ready() && (sidecar || matches!(slot, Slot::Main(_)));
            ApiState {
                running: Some(ContainerStateRunning { started_at: Some(seconds(live.started_at)) }),
                ..ApiState::default()
            }
        }
        Run::Exited { ended, .. } => {
            identity = ended.identity.clone();
            ready = matches!(slot, Slot::Init(_)) && !sidecar && ended.code == 0;
            terminated(ended)
        }
    };
    let image = if identity.image.is_empty() {
        spec.and_then(|spec| spec.image.clone()).unwrap_or_default()
    } else {
        identity.image
    };
    let some = |resources: &ResourceRequirements| resources.limits.is_some() || resources.requests.is_some();
    let allocated = spec.and_then(|spec| spec.resources.clone()).filter(some);
    // What runs has what it was given, until a resize has changed it.
    let resources = match container.run.live().map(|live| &live.resources) {
        Some(Given::Known(given)) => given.clone().filter(some),
        Some(Given::Unknown) | None => allocated.clone(),
    };
    ContainerStatus {
        name: spec.map(|spec| spec.name.clone()).unwrap_or_default(),
        image,
        image_id: identity.image_id,
        user: identity.user.map(told_user),
        container_id: (!identity.container_id.is_empty()).then_some(identity.container_id),
        allocated_resources: allocated.as_ref().and_then(|resources| resources.requests.clone()),
        resources,
        restart_count: i32::try_from(container.restarts()).unwrap_or(i32::MAX),
        ready,
        started: (!matches!(slot, Slot::Ephemeral(_))).then_some(started),
        last_state: Some(last.map(terminated).unwrap_or_default()),
        state: Some(state),
        volume_mounts: spec.and_then(|spec| spec.volume_mounts.as_ref()).map(|mounts| {
            mounts
                .iter()
                .map(|mount| VolumeMountStatus {
                    name: mount.name.clone(),
                    mount_path: mount.mount_path.clone(),
                    read_only: mount.read_only,
                    recursive_read_only: mount.read_only.unwrap_or(false).then(|| "Disabled".to_owned()),
                    ..VolumeMountStatus::default()
                })
                .collect()
        }),
        ..ContainerStatus::default()
    }
}

fn told_user(user: User) -> ContainerUser {
    let groups = user.groups.into_iter().map(i64::from).collect();
    let linux = LinuxContainerUser { uid: user.uid.into(), gid: user.gid.into(), supplemental_groups: Some(groups) };
    ContainerUser { linux: Some(linux) }
}

fn terminated(ended: &Ended) -> ApiState {
    ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: (!ended.identity.container_id.is_empty()).then(|| ended.identity.container_id.clone()),
            exit_code: ended.code,
            reason: Some(ended.reason.clone()),
            message: ended.message.clone().filter(|message| !message.is_empty()),
            signal: None,
            started_at: ended.started_at.map(seconds),
            finished_at: ended.finished_at.map(seconds),
        }),
        ..ApiState::default()
    }
}

/// How much the termination messages of one Pod may take, in bytes (kubelet's `MaxPodTerminationMessageLogLength`).
const MESSAGES: usize = 12 << 10;

/// Gives each container its equal share of what the Pod's termination messages may take, as kubelet's status manager does; of a
/// longer one the beginning is told.
fn share_messages(lists: [&mut Vec<ContainerStatus>; 3]) {
    let share = MESSAGES / lists.iter().map(|list| list.len()).sum::<usize>().max(1);
    for status in lists.into_iter().flatten() {
        for state in [&mut status.state, &mut status.last_state].into_iter().flatten() {
            if let Some(message) = state.terminated.as_mut().and_then(|ended| ended.message.as_mut()) {
                message.truncate(message.floor_char_boundary(share));
            }
        }
    }
}

/// The API's times are whole seconds.
pub(super) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
