//! What to do next for one Pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use super::restart::{self, After, after};
use super::spec::{container, is_sidecar, name};
use super::state::{ContainerState, Ended, Ground, PodState, ProbeVerdict, Run, Verdict, Why, add};
use super::{Slot, order, phase, resize};

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
        /// It may be signalled as soon as its preStop hook is done; else a [`Action::Turn`] follows.
        turn: bool,
    },
    /// Those that a container outlives have ended: it may be signalled now.
    Turn {
        /// Which.
        slot: Slot,
    },
    /// Change the resources of a running container.
    Resize {
        /// Which.
        slot: Slot,
        /// To what.
        wanted: Option<ResourceRequirements>,
    },
    /// End all containers, to begin the Pod anew.
    RestartAll {
        /// Whose rule asks for it.
        slot: Slot,
    },
    /// All have ended: the Pod begins anew, its init containers first.
    Renew,
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

/// What to do for `pod`, of which `state` is known, at `now`.
#[must_use]
pub(crate) fn plan(pod: &Pod, want: &Want, state: &PodState, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let phase = phase::phase(pod, state, want.deletion.is_some() || want.gone || state.verdict.is_some());
    if want.gone || want.deletion.is_some() || state.verdict.is_some() {
        end(pod, want, state, now, &mut plan);
    } else if phase.is_terminal() {
        release(pod, state, now, &mut plan);
    } else {
        run(pod, state, now, &mut plan);
    }
    plan
}

/// Ends every container, then releases, reports, deletes and forgets, each when the one before is done.
fn end(pod: &Pod, want: &Want, state: &PodState, now: Timestamp, plan: &mut Plan) {
    let deadline = match want.deletion {
        // A Pod that fails by itself has the grace of its spec, one that is ended what it is given.
        None => {
            let given = state.verdict.as_ref().and_then(|verdict| verdict.grace);
            add(now, given.unwrap_or_else(|| default_grace(pod)))
        }
        Some(deletion) => deletion.deadline.min(add(now, deletion.grace)),
    };
    stop_all(pod, state, deadline, want.deletion.is_some(), plan);
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

/// Asks whatever runs to end by `deadline`; `sooner`: also what has a later one.
fn stop_all(pod: &Pod, state: &PodState, deadline: Timestamp, sooner: bool, plan: &mut Plan) {
    for (slot, container) in state.slots() {
        match &container.run {
            Run::Starting { cancelled: false, .. } => plan.actions.push(Action::Cancel { slot }),
            Run::Running(_) => plan.actions.push(last_stop(pod, state, slot, deadline)),
            Run::Stopping { deadline: earlier, restart, .. } if *restart || (sooner && deadline < *earlier) => {
                plan.actions.push(last_stop(pod, state, slot, deadline));
            }
            Run::Stopping { turn: false, .. } if order::is_its_turn(pod, state, slot) => {
                plan.actions.push(Action::Turn { slot });
            }
            Run::Starting { .. } | Run::Stopping { .. } | Run::Waiting { .. } | Run::Exited { .. } => {}
        }
    }
}

/// Ends a container as its Pod ends.
fn last_stop(pod: &Pod, state: &PodState, slot: Slot, deadline: Timestamp) -> Action {
    let message = format!("Stopping container {}", name(pod, slot));
    Action::Stop { slot, deadline, message, restart: false, turn: order::is_its_turn(pod, state, slot) }
}

/// Releases what a finished Pod holds; its logs stay until it is deleted.
fn release(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    // An ephemeral container may still be there.
    stop_all(pod, state, add(now, default_grace(pod)), false, plan);
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
            plan.actions.push(Action::Fail(Verdict::new("DeadlineExceeded", message)));
            return;
        }
        plan.wake_at(until);
    }
    match &state.ground {
        Ground::Missing => plan.actions.push(Action::SetUp),
        Ground::Failed { retry_at } if now >= *retry_at => plan.actions.push(Action::SetUp),
        Ground::Failed { retry_at } => plan.wake_at(*retry_at),
        Ground::Making | Ground::Removing | Ground::Stuck { .. } | Ground::Gone => {}
        Ground::Ready if state.renewing => renew(pod, state, now, plan),
        Ground::Ready => keep(pod, state, now, plan),
    }
}

/// Starts, restarts and stops the containers of a Pod that shall run.
fn keep(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    if let Some(slot) = restart::asks_for_all(pod, state) {
        plan.actions.push(Action::RestartAll { slot });
        return;
    }
    if order::is_over_all(pod, state) {
        // Sidecars do not hold a Pod up that has done its work.
        stop_all(pod, state, add(now, default_grace(pod)), false, plan);
        return;
    }
    let wanted = order::wanted(pod, state);
    let ephemeral = state.ephemeral.iter().enumerate().filter(|(_, container)| container.attempts == 0);
    for slot in ephemeral.map(|(n, _)| Slot::Ephemeral(n)).chain(wanted.iter().copied()) {
        if let Some(container) = state.container(slot) {
            step(pod, slot, container, now, plan);
        }
    }
    if wanted.iter().any(|slot| matches!(slot, Slot::Main(_))) {
        name_the_end(pod, state, plan);
    }
}

/// Ends what is to begin anew. Nothing is asked of preStop hooks: there is no time for them.
fn renew(pod: &Pod, state: &PodState, now: Timestamp, plan: &mut Plan) {
    let mut live = false;
    for (slot, container) in state.slots().filter(|(slot, _)| !matches!(slot, Slot::Ephemeral(_))) {
        live |= container.run.is_live();
        match &container.run {
            Run::Starting { cancelled: false, .. } => plan.actions.push(Action::Cancel { slot }),
            Run::Running(_) => {
                let message = format!("Stopping container {} to restart all containers", name(pod, slot));
                plan.actions.push(Action::Stop { slot, deadline: now, message, restart: false, turn: true });
            }
            _ => {}
        }
    }
    if !live {
        plan.actions.push(Action::Renew);
    }
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
            if live.hook_failed {
                let (deadline, message) = (add(now, default_grace(pod)), HOOK_FAILED.to_owned());
                plan.actions.push(Action::Stop { slot, deadline, message, restart: false, turn: true });
                return;
            }
            if let Some(stop) = image_stop(pod, slot, live.asked.as_deref(), now) {
                plan.actions.push(stop);
                return;
            }
            match resize::step(pod, slot, live) {
                resize::Step::None => {}
                resize::Step::InPlace(action) => plan.actions.push(action),
                resize::Step::Restart => {
                    let message = format!("{} {} resize requires restart", called(slot), name(pod, slot));
                    let deadline = add(now, default_grace(pod));
                    plan.actions.push(Action::Stop { slot, deadline, message, restart: true, turn: true });
                    return;
                }
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

/// What is told of a container that is killed for its postStart hook.
const HOOK_FAILED: &str = "FailedPostStartHook";

/// Where no container is kept, the Pod is stopped as a whole, and that is what is told.
fn name_the_end(pod: &Pod, state: &PodState, plan: &mut Plan) {
    let ends = |slot: Slot| move |action: &Action| matches!(action, Action::Stop { slot: of, restart: false, .. } if *of == slot);
    let kept = state.containers.iter().enumerate().any(|(n, container)| match &container.run {
        Run::Exited { .. } => !restart::is_over(pod, Slot::Main(n), container),
        Run::Stopping { restart, .. } => *restart,
        Run::Waiting { .. } | Run::Starting { .. } | Run::Running(_) => !plan.actions.iter().any(ends(Slot::Main(n))),
    });
    if kept {
        return;
    }
    for action in &mut plan.actions {
        if let Action::Stop { slot, message, .. } = action
            && message != HOOK_FAILED
        {
            *message = format!("Stopping container {}", name(pod, *slot));
        }
    }
}

/// What a container is called in the messages of its stops.
fn called(slot: Slot) -> &'static str {
    if matches!(slot, Slot::Init(_)) { "Init container" } else { "Container" }
}

/// Another image was put into the Pod's manifest: the container is started again from it, whatever the policy.
fn image_stop(pod: &Pod, slot: Slot, asked: Option<&str>, now: Timestamp) -> Option<Action> {
    let spec = container(pod, slot)?;
    let wanted = spec.image.as_deref()?;
    // An init container that is at it works with what it has.
    if asked? == wanted || (matches!(slot, Slot::Init(_)) && !is_sidecar(pod, slot)) {
        return None;
    }
    let again = if matches!(slot, Slot::Init(_)) { "" } else { ", will be restarted" };
    let message = format!("{} {} definition changed{again}", called(slot), name(pod, slot));
    Some(Action::Stop { slot, deadline: add(now, default_grace(pod)), message, restart: true, turn: true })
}

fn probe_stop(pod: &Pod, slot: Slot, probe: &str, now: Timestamp) -> Action {
    let spec = container(pod, slot);
    let restart = restart::restarts_on_failure(pod, slot);
    let mut message = format!("{} {} failed {probe} probe", called(slot), name(pod, slot));
    if restart && matches!(slot, Slot::Main(_)) {
        message.push_str(", will be restarted");
    }
    let own = spec
        .as_ref()
        .and_then(|spec| if probe == "startup" { spec.startup_probe.as_ref() } else { spec.liveness_probe.as_ref() })
        .and_then(|probe| probe.termination_grace_period_seconds)
        .map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs()));
    let deadline = add(now, own.unwrap_or_else(|| default_grace(pod)));
    Action::Stop { slot, deadline, message, restart, turn: true }
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
    if !anyway && after(pod, slot, ended.code) == After::Nothing {
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

/// The Pod's `terminationGracePeriodSeconds`, 30 s where none.
pub(crate) fn default_grace(pod: &Pod) -> Duration {
    let seconds = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    Duration::from_secs(seconds.max(0).unsigned_abs())
}

/// As Go prints a whole number of seconds: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}
