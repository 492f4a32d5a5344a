//! What to do next for one Pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::state::{ContainerState, Ended, Ground, PodState, ProbeVerdict, Run, Verdict, Why, add};
use super::{Slot, status};

/// What is wanted of a Pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Want {
    /// The object asks for its deletion.
    pub deletion: Option<Deletion>,
    /// The object is no longer in the API (or no longer this one's): end what is left of it.
    pub gone: bool,
}

/// A wanted deletion.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Deletion {
    /// `metadata.deletionTimestamp`: when the grace ends.
    pub deadline: Timestamp,
    /// `metadata.deletionGracePeriodSeconds`.
    pub grace: Duration,
}

/// One thing to do. The driver applies it to the state, then carries it out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make the Pod's directory, volumes and network.
    SetUp,
    /// Pull, resolve, create and start a container.
    Start {
        /// Which.
        slot: Slot,
    },
    /// Give up a start that is under way.
    Cancel {
        /// Which.
        slot: Slot,
    },
    /// End a container: preStop, Term, Kill at the deadline. Repeated with an earlier deadline where grace shrinks.
    Stop {
        /// Which.
        slot: Slot,
        /// When it is killed.
        deadline: Timestamp,
        /// The event's text.
        message: String,
        /// It will be started again.
        restart: bool,
    },
    /// Release the Pod's network and volumes.
    TearDown,
    /// `DELETE` the object with grace 0 and its uid.
    Delete,
    /// Drop everything that is left on the node: files, logs, the record itself.
    Forget,
    /// End the Pod as Failed.
    Fail(Verdict),
    /// Tell (once a state) that a restart is being held back.
    HoldBack {
        /// Which.
        slot: Slot,
        /// `CrashLoopBackOff` and its text.
        why: Why,
        /// Until when.
        until: Timestamp,
    },
}

/// What to do, and when to look again though nothing happens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// The next moment at which the plan changes by itself.
    pub wake: Option<Timestamp>,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// `spec.restartPolicy`, `Always` where it is not given.
#[must_use]
pub(super) fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether a container that ended with `code` is started again. Init containers that succeeded are not.
#[must_use]
pub(super) fn should_restart(policy: &str, slot: Slot, code: i32) -> bool {
    match (policy, slot) {
        ("Never", _) => false,
        ("OnFailure", _) | (_, Slot::Init(_)) => code != 0,
        _ => true,
    }
}

/// What to do for `pod`, of which `state` is known, at `now`.
#[must_use]
pub(crate) fn plan(pod: &Pod, want: &Want, state: &PodState, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let phase = status::phase(pod, state, want.deletion.is_some() || want.gone || state.verdict.is_some());
    if want.gone || want.deletion.is_some() || state.verdict.is_some() {
        end(pod, want, state, now, &mut plan);
    } else if phase.is_terminal() {
        release(state, now, &mut plan);
    } else {
        run(pod, state, now, &mut plan);
    }
    plan
}

/// Ends every container, then releases, reports, deletes and forgets, each when the one before is done.
fn end(pod: &Pod, want: &Want, state: &PodState, now: Timestamp, plan: &mut Plan) {
    let deadline = if want.gone && want.deletion.is_none() {
        add(now, default_grace(pod))
    } else {
        // A Pod that fails by itself has the grace of its spec.
        want.deletion
            .map_or_else(|| add(now, default_grace(pod)), |deletion| deletion.deadline.min(add(now, deletion.grace)))
    };
    for (slot, container) in state.slots() {
        let stop = |restart| Action::Stop {
            slot,
            deadline,
            message: format!("Stopping container {}", name(pod, slot)),
            restart,
        };
        match &container.run {
            Run::Starting { cancelled: false, .. } => plan.actions.push(Action::Cancel { slot }),
            Run::Running(_) => plan.actions.push(stop(false)),
            Run::Stopping { deadline: earlier, restart, .. }
                if *restart || (want.deletion.is_some() && deadline < *earlier) =>
            {
                plan.actions.push(stop(false));
            }
            Run::Starting { .. } | Run::Stopping { .. } | Run::Waiting { .. } | Run::Exited { .. } => {}
        }
    }
    if state.is_live() {
        return;
    }
    match state.ground {
        Ground::Making | Ground::Removing => {}
        Ground::Ready | Ground::Failed { .. } => plan.actions.push(Action::TearDown),
        Ground::Stuck { retry_at } if now < retry_at => plan.wake_at(retry_at),
        Ground::Stuck { .. } => plan.actions.push(Action::TearDown),
        Ground::Missing | Ground::Gone if want.gone => plan.actions.push(Action::Forget),
        Ground::Missing | Ground::Gone => {
            if want.deletion.is_some() && state.reported_end && !state.delete_sent {
                plan.actions.push(Action::Delete);
            }
        }
    }
}

/// Releases what a finished Pod holds; its logs stay until it is deleted.
fn release(state: &PodState, now: Timestamp, plan: &mut Plan) {
    match state.ground {
        _ if state.is_live() => {}
        Ground::Stuck { retry_at } if now < retry_at => plan.wake_at(retry_at),
        Ground::Ready | Ground::Failed { .. } | Ground::Stuck { .. } => plan.actions.push(Action::TearDown),
        Ground::Missing | Ground::Making | Ground::Removing | Ground::Gone => {}
    }
}

fn run(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    let active = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
    if let (Some(seconds), Some(started)) = (active, state.started_at) {
        let until = add(started, Duration::from_secs(seconds.max(0).unsigned_abs()));
        if now >= until {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            plan.actions.push(Action::Fail(Verdict { reason: "DeadlineExceeded".to_owned(), message }));
            return;
        }
        plan.wake_at(until);
    }
    match &state.ground {
        Ground::Missing => plan.actions.push(Action::SetUp),
        Ground::Failed { retry_at } if now >= *retry_at => plan.actions.push(Action::SetUp),
        Ground::Failed { retry_at } => plan.wake_at(*retry_at),
        Ground::Making | Ground::Removing | Ground::Stuck { .. } | Ground::Gone => {}
        Ground::Ready => {
            let pending = state.init.iter().position(|container| !initialised(container));
            // Once a container has run, the Pod is initialised for good (an agent that restarts may have lost the init runs).
            let begun = state.containers.iter().any(|container| container.attempts > 0);
            match pending {
                Some(n) if !begun => step(pod, Slot::Init(n), &state.init[n], now, plan),
                _ => {
                    for (n, container) in state.containers.iter().enumerate() {
                        step(pod, Slot::Main(n), container, now, plan);
                    }
                    name_the_end(pod, state, plan);
                }
            }
        }
    }
}

fn initialised(container: &ContainerState) -> bool {
    matches!(&container.run, Run::Exited { ended, .. } if ended.code == 0)
}

/// One container of a Pod that shall run.
fn step(pod: &Pod, slot: Slot, container: &ContainerState, now: Timestamp, plan: &mut Plan) {
    match &container.run {
        Run::Waiting { until: Some(until), why } if now < *until => {
            plan.wake_at(*until);
            if let Some((then, _)) = why.as_ref().and_then(|why| why.then.as_ref()).filter(|(then, _)| now < *then) {
                plan.wake_at(*then);
            }
        }
        Run::Waiting { .. } => plan.actions.push(Action::Start { slot }),
        Run::Starting { .. } | Run::Stopping { .. } => {}
        Run::Running(live) => {
            if let Some(stop) = image_stop(pod, slot, live.asked.as_deref(), now) {
                plan.actions.push(stop);
                return;
            }
            let failed = match (live.probes.startup, live.probes.liveness) {
                (ProbeVerdict::Failing, _) => "startup",
                (_, ProbeVerdict::Failing) => "liveness",
                _ => return,
            };
            plan.actions.push(probe_stop(pod, slot, failed, now));
        }
        Run::Exited { ended, restart } => restarting(pod, slot, container, ended, *restart, now, plan),
    }
}

/// Where no container is kept, the Pod is stopped as a whole, and that is what is told.
fn name_the_end(pod: &Pod, state: &PodState, plan: &mut Plan) {
    let ends = |slot: Slot| move |action: &Action| matches!(action, Action::Stop { slot: of, restart: false, .. } if *of == slot);
    let kept = state.containers.iter().enumerate().any(|(n, container)| match &container.run {
        Run::Exited { ended, restart } => *restart || should_restart(restart_policy(pod), Slot::Main(n), ended.code),
        Run::Stopping { restart, .. } => *restart,
        Run::Waiting { .. } | Run::Starting { .. } | Run::Running(_) => !plan.actions.iter().any(ends(Slot::Main(n))),
    });
    if kept {
        return;
    }
    for action in &mut plan.actions {
        if let Action::Stop { slot, message, .. } = action {
            *message = format!("Stopping container {}", name(pod, *slot));
        }
    }
}

/// Another image was put into the Pod's manifest: the container is started again from it, whatever the policy.
fn image_stop(pod: &Pod, slot: Slot, asked: Option<&str>, now: Timestamp) -> Option<Action> {
    let wanted = container(pod, slot)?.image.as_deref()?;
    if asked? == wanted {
        return None;
    }
    let message = format!("Container {} definition changed, will be restarted", name(pod, slot));
    Some(Action::Stop { slot, deadline: add(now, default_grace(pod)), message, restart: true })
}

fn probe_stop(pod: &Pod, slot: Slot, probe: &str, now: Timestamp) -> Action {
    let spec = container(pod, slot);
    let policy = restart_policy(pod);
    let restart = policy != "Never";
    let what = if matches!(slot, Slot::Init(_)) { "Init container" } else { "Container" };
    let mut message = format!("{what} {} failed {probe} probe", name(pod, slot));
    if restart {
        message.push_str(", will be restarted");
    }
    let own = spec
        .and_then(|spec| if probe == "startup" { spec.startup_probe.as_ref() } else { spec.liveness_probe.as_ref() })
        .and_then(|probe| probe.termination_grace_period_seconds)
        .map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs()));
    Action::Stop { slot, deadline: add(now, own.unwrap_or_else(|| default_grace(pod))), message, restart }
}

fn restarting(
    pod: &Pod,
    slot: Slot,
    container: &ContainerState,
    ended: &Ended,
    anyway: bool,
    now: Timestamp,
    plan: &mut Plan,
) {
    if !anyway && !should_restart(restart_policy(pod), slot, ended.code) {
        return;
    }
    let event = ended.finished_at.unwrap_or(now);
    match container.crash.until(event, now) {
        None => plan.actions.push(Action::Start { slot }),
        Some((delay, until)) => {
            let meta = &pod.metadata;
            let message = format!(
                "back-off {} restarting failed container={} pod={}_{}({})",
                go_duration(delay),
                name(pod, slot),
                meta.name.as_deref().unwrap_or_default(),
                meta.namespace.as_deref().unwrap_or_default(),
                meta.uid.as_deref().unwrap_or_default(),
            );
            plan.actions.push(Action::HoldBack { slot, why: Why::new("CrashLoopBackOff", message), until });
        }
    }
}

/// Changes `state` as `action` begins.
pub(crate) fn apply(state: &mut PodState, action: &Action, now: Timestamp) {
    match action {
        Action::SetUp => {
            state.ground = Ground::Making;
            state.started_at.get_or_insert(now);
        }
        Action::TearDown => state.ground = Ground::Removing,
        Action::Delete => state.delete_sent = true,
        Action::Forget => {}
        Action::Fail(verdict) => state.verdict = Some(verdict.clone()),
        Action::Start { slot } => {
            if let Some(container) = state.container_mut(*slot) {
                begin(container, now);
            }
        }
        Action::Cancel { slot } => {
            if let Some(Run::Starting { cancelled, .. }) =
                state.container_mut(*slot).map(|container| &mut container.run)
            {
                *cancelled = true;
            }
        }
        Action::Stop { slot, deadline, restart, .. } => {
            if let Some(container) = state.container_mut(*slot)
                && let Some(live) = container.run.live().cloned()
            {
                container.run = Run::Stopping { live, deadline: *deadline, restart: *restart };
            }
        }
        Action::HoldBack { slot, why, until } => {
            if let Some(container) = state.container_mut(*slot)
                && let Run::Exited { ended, .. } = &container.run
            {
                container.crash_hold(ended.clone(), why.clone(), *until);
            }
        }
    }
}

impl ContainerState {
    /// The exit moves to `lastState` while the restart is held back.
    fn crash_hold(&mut self, ended: Ended, why: Why, until: Timestamp) {
        self.last = Some(ended);
        self.run = Run::Waiting { why: Some(why), until: Some(until) };
    }
}

/// Begins a run: what ended becomes `lastState`, and the next wait is counted.
fn begin(container: &mut ContainerState, now: Timestamp) {
    let (why, again) = match std::mem::take(&mut container.run) {
        Run::Exited { ended, .. } => {
            let why = (ended.reason == START_ERROR)
                .then(|| Why::new("RunContainerError", ended.message.clone().unwrap_or_default()));
            container.last = Some(ended);
            (why, true)
        }
        Run::Waiting { why, .. } => {
            let again = why.as_ref().is_some_and(|why| why.reason == "CrashLoopBackOff");
            (why, again)
        }
        other => {
            container.run = other;
            return;
        }
    };
    if again {
        let event = container.last.as_ref().and_then(|ended| ended.finished_at).unwrap_or(now);
        container.crash.next(event, now);
    }
    container.run = Run::Starting { why, cancelled: false };
}

/// The reason of a container that was created and could not be started.
pub(super) const START_ERROR: &str = "StartError";

/// The Pod's `terminationGracePeriodSeconds`, 30 s where none.
pub(crate) fn default_grace(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(seconds.max(0).unsigned_abs())
}

/// A container's spec.
pub(crate) fn container(pod: &Pod, slot: Slot) -> Option<&Container> {
    let spec = pod.spec.as_ref()?;
    match slot {
        Slot::Init(n) => spec.init_containers.as_ref()?.get(n),
        Slot::Main(n) => spec.containers.get(n),
    }
}

/// A container's name.
pub(crate) fn name(pod: &Pod, slot: Slot) -> &str {
    container(pod, slot).map_or("", |container| &container.name)
}

/// As Go prints a whole number of seconds: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
