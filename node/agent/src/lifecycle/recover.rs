//! The state of a Pod from the status that an earlier life of the agent wrote.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState as ApiState, ContainerStatus, LinuxContainerUser, Pod};
use wherry_runtime::User;

use super::Slot;
use super::spec::name;
use super::state::{
    Backoff, ContainerState, Ended, Given, Identity, Live, Phase, PodState, ProbeVerdict, Probes, Run, Verdict,
};

/// The state of a Pod that an earlier life of the agent ran, from the status it wrote. Containers it left running are
/// `Running` here; the driver compares them with what the runtimes have.
#[must_use]
pub(crate) fn recover_status(pod: &Pod) -> PodState {
    let mut state = PodState::of(pod);
    let Some(status) = &pod.status else { return state };
    state.started_at = status.start_time.as_ref().map(|time| time.0);
    state.phase = status.phase.as_deref().map(Phase::parse).unwrap_or_default();
    state.ips = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    if state.phase == Phase::Failed
        && let Some(reason) = &status.reason
    {
        state.verdict = Some(Verdict::new(reason, status.message.clone().unwrap_or_default()));
    }
    (state.pending, state.resizing) = super::resize::told(status);
    let slots: Vec<Slot> = state.slots().map(|(slot, _)| slot).collect();
    for slot in slots {
        let statuses = match slot {
            Slot::Init(_) => &status.init_container_statuses,
            Slot::Main(_) => &status.container_statuses,
            Slot::Ephemeral(_) => &status.ephemeral_container_statuses,
        };
        let found = statuses.iter().flatten().find(|status| status.name == name(pod, slot));
        if let (Some(found), Some(container)) = (found, state.container_mut(slot)) {
            *container = recover_container(found);
        }
    }
    state
}

fn recover_container(status: &ContainerStatus) -> ContainerState {
    let identity = Identity {
        container_id: status.container_id.clone().unwrap_or_default(),
        image: status.image.clone(),
        image_id: status.image_id.clone(),
        user: status.user.as_ref().and_then(|user| user.linux.as_ref()).and_then(known_user),
    };
    let ended = |state: Option<&ApiState>| {
        state.and_then(|state| state.terminated.as_ref()).map(|terminated| Ended {
            identity: Identity {
                container_id: terminated.container_id.clone().unwrap_or_default(),
                ..identity.clone()
            },
            code: terminated.exit_code,
            reason: terminated.reason.clone().unwrap_or_default(),
            message: terminated.message.clone(),
            started_at: terminated.started_at.as_ref().map(|time| time.0),
            finished_at: terminated.finished_at.as_ref().map(|time| time.0),
        })
    };
    let ran = status.container_id.is_some();
    let count = u32::try_from(status.restart_count).unwrap_or(0);
    let run = if let Some(ended) = ended(status.state.as_ref()) {
        Run::Exited { ended, restart: false }
    } else if let Some(running) = status.state.as_ref().and_then(|state| state.running.as_ref()) {
        let verdict = |on: bool| if on { ProbeVerdict::Passing } else { ProbeVerdict::Unknown };
        Run::Running(Live {
            identity: identity.clone(),
            asked: None,
            resources: Given::Known(status.resources.clone()),
            resize: None,
            started_at: running.started_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            probes: Probes {
                startup: verdict(status.started.unwrap_or(false)),
                readiness: verdict(status.ready),
                liveness: ProbeVerdict::NoProbe,
            },
            hook_failed: false,
        })
    } else {
        Run::default()
    };
    ContainerState {
        run,
        attempts: if ran { count + 1 } else { count },
        base: 0,
        last: ended(status.last_state.as_ref()),
        crash: Backoff::default(),
        pull: Backoff::default(),
    }
}

fn known_user(user: &LinuxContainerUser) -> Option<User> {
    let id = |id: i64| u32::try_from(id).ok();
    let groups = user.supplemental_groups.iter().flatten().filter_map(|group| id(*group)).collect();
    Some(User { uid: id(user.uid)?, gid: id(user.gid)?, groups })
}
