//! The state after an action has begun.

use jiff::Timestamp;

use super::plan::Action;
use super::state::{ContainerState, Ended, Ground, PodState, Resize, Run, Why};

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
        Action::Stop { slot, deadline, restart, turn, .. } => {
            if let Some(container) = state.container_mut(*slot)
                && let Some(live) = container.run.live().cloned()
            {
                let turn = *turn || matches!(container.run, Run::Stopping { turn: true, .. });
                container.run = Run::Stopping { live, deadline: *deadline, restart: *restart, turn };
            }
        }
        Action::Turn { slot } => {
            if let Some(Run::Stopping { turn, .. }) = state.container_mut(*slot).map(|container| &mut container.run) {
                *turn = true;
            }
        }
        Action::Resize { slot, wanted } => {
            if let Some(live) = state.container_mut(*slot).and_then(|container| container.run.live_mut()) {
                live.resize = Some(Resize { wanted: wanted.clone(), failed: None });
            }
        }
        Action::RestartAll { slot } => {
            state.renewing = true;
            if let Some(Run::Exited { restart, .. }) = state.container_mut(*slot).map(|container| &mut container.run) {
                *restart = true;
            }
        }
        Action::Renew => {
            state.renewing = false;
            let reason = if state.init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
            state.init.iter_mut().chain(&mut state.containers).for_each(|container| container.renew(reason));
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
    /// As before its first run, but for what is counted and told. The one whose rule began all this (it is to be restarted
    /// anyway) keeps its exit, so that its back-off counts.
    fn renew(&mut self, reason: &str) {
        self.base = self.attempts;
        if let Run::Exited { ended, restart } = &mut self.run {
            if *restart {
                return;
            }
            self.last = Some(ended.clone());
            self.run = Run::Waiting { why: Some(Why::new(reason, "")), until: None };
        }
    }

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
