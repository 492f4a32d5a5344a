//! A Pod's status, as kubelet would write it.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Slot;
use super::plan::{container as container_spec, restart_policy, should_restart};
use super::state::{
    Backoff, ContainerState, Ended, Ground, Identity, Live, Phase, PodState, ProbeVerdict, Probes, Run, Verdict,
};

/// What a Pod's status tells of its node.
#[derive(Clone, Debug)]
pub(crate) struct NodeFacts {
    /// `status.hostIPs`.
    pub host_ips: Vec<IpAddr>,
}

/// The phase that `state` amounts to. `ending`: no container is started any more.
pub(super) fn phase(pod: &Pod, state: &PodState, ending: bool) -> Phase {
    if state.phase.is_terminal() {
        return state.phase;
    }
    let policy = restart_policy(pod);
    let live = state.is_live();
    if state.verdict.is_some() && !live {
        return Phase::Failed;
    }
    let begun = state.containers.iter().any(|container| container.attempts > 0);
    let (mut pending, mut failed) = (false, false);
    for container in &state.init {
        match final_exit(container) {
            Some(ended) if ended.code != 0 => {
                failed |= !should_restart(policy, Slot::Init(0), ended.code) || (ending && !live);
                pending = true;
            }
            Some(_) if matches!(container.run, Run::Exited { .. }) => {}
            _ => pending = !begun || pending,
        }
    }
    if failed {
        return Phase::Failed;
    }
    if ending && !live {
        let succeeded = begun
            && state
                .containers
                .iter()
                .all(|container| matches!(&container.run, Run::Exited { ended, .. } if ended.code == 0));
        return if succeeded { Phase::Succeeded } else { Phase::Failed };
    }
    let pending = pending && !begun;
    let waiting = state.containers.iter().any(|container| container.attempts == 0);
    if pending || waiting {
        return Phase::Pending;
    }
    let all_ended = state.containers.iter().all(|container| match &container.run {
        Run::Exited { ended, restart } => !(*restart || should_restart(policy, Slot::Main(0), ended.code)),
        _ => false,
    });
    if !all_ended {
        return Phase::Running;
    }
    let all_zero =
        state.containers.iter().all(|container| matches!(&container.run, Run::Exited { ended, .. } if ended.code == 0));
    if all_zero { Phase::Succeeded } else { Phase::Failed }
}

/// How a container that is not live ended last.
fn final_exit(container: &ContainerState) -> Option<&Ended> {
    match &container.run {
        Run::Exited { ended, .. } => Some(ended),
        Run::Waiting { .. } | Run::Starting { .. } => container.last.as_ref(),
        Run::Running(_) | Run::Stopping { .. } => None,
    }
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
    let init_statuses = list(&state.init, Slot::Init);
    let statuses = list(&state.containers, Slot::Main);
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
        Run::Running(live) | Run::Stopping { live, .. } => {
            identity = live.identity.clone();
            started = live.probes.started();
            ready = live.probes.ready() && matches!(slot, Slot::Main(_));
            ApiState {
                running: Some(ContainerStateRunning { started_at: Some(seconds(live.started_at)) }),
                ..ApiState::default()
            }
        }
        Run::Exited { ended, .. } => {
            identity = ended.identity.clone();
            ready = matches!(slot, Slot::Init(_)) && ended.code == 0;
            terminated(ended)
        }
    };
    let image = if identity.image.is_empty() {
        spec.and_then(|spec| spec.image.clone()).unwrap_or_default()
    } else {
        identity.image
    };
    let resources = spec
        .and_then(|spec| spec.resources.clone())
        .filter(|resources| resources.limits.is_some() || resources.requests.is_some());
    ContainerStatus {
        name: spec.map(|spec| spec.name.clone()).unwrap_or_default(),
        image,
        image_id: identity.image_id,
        container_id: (!identity.container_id.is_empty()).then_some(identity.container_id),
        allocated_resources: resources.as_ref().and_then(|resources| resources.requests.clone()),
        resources,
        restart_count: i32::try_from(container.restarts()).unwrap_or(i32::MAX),
        ready,
        started: Some(started),
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

fn conditions(
    pod: &Pod,
    state: &PodState,
    phase: Phase,
    init: &[ContainerStatus],
    statuses: &[ContainerStatus],
    status: &mut PodStatus,
    now: Timestamp,
) {
    let names = |statuses: &[ContainerStatus]| -> Vec<String> {
        statuses.iter().filter(|status| !status.ready).map(|status| status.name.clone()).collect()
    };
    let told = |unready: &[String], what: &str| format!("containers with {what} status: [{}]", unready.join(" "));

    let begun = state.containers.iter().any(|container| container.attempts > 0);
    let incomplete = names(init);
    let initialised = if phase == Phase::Succeeded {
        (true, "PodCompleted", String::new())
    } else if incomplete.is_empty() || begun {
        (true, "", String::new())
    } else {
        (false, "ContainersNotInitialized", told(&incomplete, "incomplete"))
    };

    let unready = names(statuses);
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
}

/// Sets one condition; its transition time moves only with its status.
fn set(
    list: &mut Vec<PodCondition>,
    pod: &Pod,
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
        observed_generation: pod.metadata.generation,
    };
    match old {
        Some(n) => list[n] = condition,
        None => list.push(condition),
    }
}

/// The API's times are whole seconds.
fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The state of a Pod that an earlier life of the agent ran, from the status it wrote. Containers it left running are
/// `Running` here; the driver compares them with what the runtimes have.
#[must_use]
pub(crate) fn recover_status(pod: &Pod) -> PodState {
    let init = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_ref()).map_or(0, Vec::len);
    let mains = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let mut state = PodState::new(init, mains);
    let Some(status) = &pod.status else { return state };
    state.started_at = status.start_time.as_ref().map(|time| time.0);
    state.phase = status.phase.as_deref().map(Phase::parse).unwrap_or_default();
    state.ips = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
    if state.phase == Phase::Failed
        && let Some(reason) = &status.reason
    {
        state.verdict = Some(Verdict { reason: reason.clone(), message: status.message.clone().unwrap_or_default() });
    }
    let lists =
        [(&status.init_container_statuses, Slot::Init as fn(usize) -> Slot), (&status.container_statuses, Slot::Main)];
    for (statuses, slot) in lists {
        for n in 0..if matches!(slot(0), Slot::Init(_)) { init } else { mains } {
            let name = container_spec(pod, slot(n)).map(|spec| spec.name.as_str());
            let found = statuses.iter().flatten().find(|status| Some(status.name.as_str()) == name);
            if let (Some(found), Some(container)) = (found, state.container_mut(slot(n))) {
                *container = recover_container(found);
            }
        }
    }
    state
}

fn recover_container(status: &ContainerStatus) -> ContainerState {
    let identity = Identity {
        container_id: status.container_id.clone().unwrap_or_default(),
        image: status.image.clone(),
        image_id: status.image_id.clone(),
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
            started_at: running.started_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            probes: Probes {
                startup: verdict(status.started.unwrap_or(false)),
                readiness: verdict(status.ready),
                liveness: ProbeVerdict::NoProbe,
            },
        })
    } else {
        Run::default()
    };
    ContainerState {
        run,
        attempts: if ran { count + 1 } else { count },
        last: ended(status.last_state.as_ref()),
        crash: Backoff::default(),
        pull: Backoff::default(),
    }
}
