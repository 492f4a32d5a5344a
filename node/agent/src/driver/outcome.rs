//! What tasks report, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::Value;
use wherry_reconcile::EventType;

use super::ground::{GroundError, Made};
use super::look::Found as Looked;
use super::record::{Refresh, Uid};
use super::start::{StartError, Started};
use super::status::WriteError;
use super::tokens::Tokens;
use super::{Driver, Timer};
use crate::lifecycle::{ContainerState, Ended, Ground, ProbeVerdict, Run, Slot, Verdict, Why, add};
use crate::manifests::Key;
use crate::probe::ProbeKind;
use crate::probe::run::Found;

/// The end of a task.
pub(super) enum Outcome {
    Ground { uid: Uid, result: Result<Made, GroundError> },
    TornDown { uid: Uid, result: Result<(), String> },
    Started { uid: Uid, slot: Slot, attempt: u32, result: Result<Started, StartError> },
    Exited { uid: Uid, slot: Slot, attempt: u32, ended: Ended },
    Probed { uid: Uid, slot: Slot, attempt: u32, kind: ProbeKind, found: Found },
    Resized { uid: Uid, slot: Slot, attempt: u32, wanted: Option<ResourceRequirements>, result: Result<(), String> },
    Written { uid: Uid, wanted: Value, result: Result<(), WriteError> },
    Deleted { uid: Uid, again: bool },
    Refreshed { uid: Uid, tokens: Option<Arc<Tokens>> },
    Looked(Box<Looked>),
    Mirrored { key: Key, failed: bool },
    Nothing,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ground { .. } => "Ground",
            Self::TornDown { .. } => "TornDown",
            Self::Started { .. } => "Started",
            Self::Exited { .. } => "Exited",
            Self::Probed { .. } => "Probed",
            Self::Resized { .. } => "Resized",
            Self::Written { .. } => "Written",
            Self::Deleted { .. } => "Deleted",
            Self::Refreshed { .. } => "Refreshed",
            Self::Looked(_) => "Looked",
            Self::Mirrored { .. } => "Mirrored",
            Self::Nothing => "Nothing",
        })
    }
}

/// Between attempts at what the node could not do.
const RETRY: Duration = Duration::from_secs(10);
/// Between attempts at what only another manifest or image helps.
const RETRY_PERMANENT: Duration = Duration::from_secs(300);
/// How long a failed pull is told as `ErrImagePull` before it is `ImagePullBackOff`.
const TOLD: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn finished(&mut self, outcome: Outcome) {
        let now = self.shared.clock.now();
        match outcome {
            Outcome::Nothing => {}
            Outcome::Ground { uid, result } => {
                self.ground_made(&uid, result, now);
                self.reconcile(&uid);
            }
            Outcome::TornDown { uid, result } => {
                if let Some(record) = self.pods.get_mut(&uid) {
                    record.state.ground = match result {
                        Ok(()) => Ground::Gone,
                        Err(error) => {
                            self.shared.event(
                                &record.pod,
                                EventType::Warning,
                                "FailedKillPod",
                                format!("error killing pod: {error}"),
                            );
                            Ground::Stuck { retry_at: add(now, RETRY) }
                        }
                    };
                }
                self.reconcile(&uid);
            }
            Outcome::Started { uid, slot, attempt, result } => {
                self.started(&uid, slot, attempt, result, now);
                self.reconcile(&uid);
            }
            Outcome::Exited { uid, slot, attempt, ended } => {
                self.exited(&uid, slot, attempt, ended);
                self.reconcile(&uid);
            }
            Outcome::Probed { uid, slot, attempt, kind, found } => {
                if self.probed(&uid, slot, attempt, kind, &found, now) {
                    self.reconcile(&uid);
                }
            }
            Outcome::Resized { uid, slot, attempt, wanted, result } => {
                self.resized(&uid, slot, attempt, wanted, result);
                self.reconcile(&uid);
            }
            Outcome::Written { uid, wanted, result } => self.written(&uid, wanted, result, now),
            Outcome::Refreshed { uid, tokens } => self.refreshed(&uid, tokens, now),
            Outcome::Looked(found) => self.looked(*found),
            Outcome::Mirrored { key, failed } => self.mirrored(key, failed),
            Outcome::Deleted { uid, again } => {
                let is_static = self.is_static(&uid);
                let Some(record) = self.pods.get_mut(&uid) else { return };
                if again {
                    record.state.delete_sent = false;
                    self.timers.set(&Timer::Pod(uid), Some(add(now, RETRY)));
                } else if is_static {
                    // Of any other the informer tells.
                    record.gone = true;
                    self.reconcile(&uid);
                }
            }
        }
    }

    fn ground_made(&mut self, uid: &Uid, result: Result<Made, GroundError>, now: Timestamp) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        match result {
            Ok(made) => {
                record.state.ips = made.network.ips().to_vec();
                record.network = Some(made.network);
                record.volumes = made.volumes;
                record.etc = Some(made.etc);
                record.tokens = made.tokens;
                record.volume_images = made.images;
                record.state.ground = Ground::Ready;
                self.timers.set(&Timer::Tokens(uid.clone()), record.tokens.until());
                let outdated = std::mem::take(&mut record.outdated);
                if outdated {
                    self.refresh(uid);
                }
            }
            Err(GroundError::Failed) => {
                record.state.ground = Ground::Failed { retry_at: retry_at(&mut record.outdated, now) };
            }
            Err(GroundError::Rejected { reason, message }) => {
                record.state.ground = Ground::Gone;
                record.state.verdict = Some(Verdict::new(reason, message));
            }
            Err(GroundError::Refused(message)) => {
                record.state.ground = Ground::Failed { retry_at: Timestamp::MAX };
                for container in record.state.containers_mut() {
                    if let Run::Waiting { why, until } = &mut container.run {
                        *why = Some(Why::new("CreateContainerConfigError", message.clone()));
                        *until = Some(Timestamp::MAX);
                    }
                }
            }
        }
    }

    /// The volumes are written again, or the tokens for them could not be had.
    fn refreshed(&mut self, uid: &Uid, tokens: Option<Arc<Tokens>>, now: Timestamp) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let retry = if tokens.is_none() { Some(add(now, RETRY)) } else { None };
        if let Some(tokens) = tokens {
            record.tokens = tokens;
        }
        let again = record.refresh == Refresh::Again;
        record.refresh = Refresh::Idle;
        self.timers.set(&Timer::Tokens(uid.clone()), retry.or_else(|| record.tokens.until()));
        if again {
            self.refresh(uid);
        }
    }

    fn started(&mut self, uid: &Uid, slot: Slot, attempt: u32, result: Result<Started, StartError>, now: Timestamp) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        record.starting.remove(&slot);
        let image =
            crate::lifecycle::container(&record.pod, slot).and_then(|spec| spec.into_owned().image).unwrap_or_default();
        let error = match result {
            Ok(started) => {
                if let Some(container) = record.state.container_mut(slot) {
                    container.pull.reset();
                }
                self.watch(uid, slot, attempt, started, None);
                return;
            }
            Err(error) => error,
        };
        let Some(container) = record.state.container_mut(slot) else { return };
        match error {
            StartError::Pull { reason, message } => {
                wait_for_image(container, &image, reason, &message, now);
                let pod = record.pod.clone();
                self.shared.container_event(
                    &pod,
                    slot,
                    EventType::Normal,
                    "BackOff",
                    format!("Back-off pulling image {image:?}"),
                );
                self.shared.container_event(&pod, slot, EventType::Warning, "Failed", "Error: ImagePullBackOff");
            }
            StartError::Image { reason, message, permanent } => {
                let delay = if permanent { RETRY_PERMANENT } else { RETRY };
                wait(container, reason, message, add(now, delay));
            }
            StartError::Config(message) => {
                wait(container, "CreateContainerConfigError", message, retry_at(&mut record.outdated, now));
            }
            StartError::Create { message, permanent } => {
                let delay = if permanent { RETRY_PERMANENT } else { RETRY };
                wait(container, "CreateContainerError", message, add(now, delay));
            }
            StartError::Start { message, identity } => {
                container.attempts = attempt + 1;
                let reason = "StartError".to_owned();
                let ended = Ended {
                    identity: *identity,
                    code: 128,
                    reason,
                    message: Some(message),
                    started_at: Some(Timestamp::UNIX_EPOCH),
                    finished_at: Some(now),
                };
                container.run = Run::Exited { ended, restart: false };
            }
            StartError::Cancelled => container.run = Run::default(),
        }
    }

    fn exited(&mut self, uid: &Uid, slot: Slot, attempt: u32, ended: Ended) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        if record.runs.get(&slot).is_some_and(|run| run.attempt == attempt) {
            record.runs.remove(&slot);
        }
        for kind in ProbeKind::ALL {
            record.trackers.remove(&(slot, kind));
            self.timers.set(&Timer::Probe(uid.clone(), slot, attempt, kind), None);
        }
        if let Some(container) = record.state.container_mut(slot) {
            let restart = matches!(container.run, Run::Stopping { restart: true, .. });
            container.run = Run::Exited { ended, restart };
        }
    }

    /// Counts a probe's result. True where it changes anything.
    fn probed(&mut self, uid: &Uid, slot: Slot, attempt: u32, kind: ProbeKind, found: &Found, now: Timestamp) -> bool {
        let Some(record) = self.pods.get_mut(uid) else { return false };
        if record.runs.get(&slot).is_none_or(|run| run.attempt != attempt) {
            return false;
        }
        let title = kind.title();
        let event = match found {
            Found::Success => None,
            Found::Warning(text) => Some(("ProbeWarning", format!("{title} probe warning: {text}"))),
            Found::Failure(text) => Some(("Unhealthy", format!("{title} probe failed: {text}"))),
            Found::Error(text) => {
                Some(("Unhealthy", format!("{title} probe errored and resulted in Failure state: {text}")))
            }
        };
        if let Some((reason, message)) = event {
            self.shared.container_event(&record.pod, slot, EventType::Warning, reason, message);
        }
        let Some(tracker) = record.trackers.get_mut(&(slot, kind)) else { return false };
        tracker.in_flight = false;
        let verdict = tracker.count(found.is_success());
        let next = tracker.next(now);
        let Some(live) = record.state.container_mut(slot).and_then(|container| container.run.live_mut()) else {
            return false;
        };
        let current = match kind {
            ProbeKind::Startup => &mut live.probes.startup,
            ProbeKind::Liveness => &mut live.probes.liveness,
            ProbeKind::Readiness => &mut live.probes.readiness,
        };
        let changed = verdict.is_some_and(|verdict| *current != verdict);
        if let Some(verdict) = verdict {
            *current = verdict;
        }
        let started_at = live.started_at;
        let startup_passed = kind == ProbeKind::Startup && verdict == Some(ProbeVerdict::Passing);
        if startup_passed {
            record.trackers.remove(&(slot, kind));
            self.begin_probes(uid, slot, &[ProbeKind::Liveness, ProbeKind::Readiness], started_at, now);
        } else {
            self.timers.set(&Timer::Probe(uid.clone(), slot, attempt, kind), Some(next));
        }
        changed
    }

    fn written(&mut self, uid: &Uid, wanted: Value, result: Result<(), WriteError>, now: Timestamp) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        record.writing.in_flight = false;
        match result {
            Ok(()) => {
                record.writing.written = wanted;
                record.writing.failures = 0;
                record.writing.not_before = None;
            }
            Err(error) => {
                record.writing.failures += 1;
                let delay = Duration::from_millis(100).saturating_mul(1 << record.writing.failures.min(8));
                record.writing.not_before = Some(add(now, delay));
                // Of a Pod that is gone the informer tells soon.
                if let WriteError::Failed(error) = error {
                    tracing::warn!(pod = %record.reference.name, namespace = %record.reference.namespace, %error, "cannot write a Pod's status, trying again");
                }
            }
        }
        self.write_status(uid, false);
    }
}

fn wait(container: &mut ContainerState, reason: &str, message: String, until: Timestamp) {
    container.run = Run::Waiting { why: Some(Why::new(reason, message)), until: Some(until) };
}

/// `ErrImagePull` first, then `ImagePullBackOff` until the next attempt.
fn wait_for_image(container: &mut ContainerState, image: &str, reason: &str, message: &str, now: Timestamp) {
    container.pull.next(now, now);
    let until = add(now, container.pull.delay());
    let mut why = Why::new(reason, message);
    let backing_off = format!("Back-off pulling image {image:?}: {reason}: {message}");
    why.then = Some((add(now, TOLD), Box::new(Why::new("ImagePullBackOff", backing_off))));
    container.run = Run::Waiting { why: Some(why), until: Some(until) };
}

/// When to try again what failed now: at once where it was made of what has changed since.
fn retry_at(outdated: &mut bool, now: Timestamp) -> Timestamp {
    if std::mem::take(outdated) { now } else { add(now, RETRY) }
}
