//! Carrying out what was planned.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::EventType;
use wherry_runtime::PodRef;

use super::outcome::Outcome;
use super::record::{RunHandle, Uid};
use super::shared::Shared;
use super::start::{Job, Started};
use super::stop::{Order, Stop, Watched};
use super::{Driver, Timer, ground, start};
use crate::config::volumes;
use crate::lifecycle::{self, Action, Live, ProbeVerdict, Probes, Run, Slot};
use crate::probe::run::{Found, Ready, Target};
use crate::probe::{ProbeKind, Tracker};

impl Driver {
    /// Begins an action that has been applied to the state.
    pub(super) fn act(&mut self, uid: &Uid, action: Action) {
        match action {
            Action::SetUp => self.set_up(uid),
            Action::Start { slot } => self.start(uid, slot),
            Action::Cancel { slot } => {
                if let Some(cancel) = self.pods.get(uid).and_then(|record| record.starting.get(&slot)) {
                    cancel.cancel();
                }
            }
            Action::Stop { slot, deadline, message, restart, turn } => {
                self.stop(uid, slot, Order { deadline, turn }, &message, restart);
            }
            Action::Turn { slot } => {
                if let Some(stop) = self.pods.get(uid).and_then(|record| record.runs.get(&slot)?.stop.as_ref()) {
                    stop.send_modify(|order| order.turn = true);
                }
            }
            Action::Resize { slot, wanted } => self.resize(uid, slot, wanted),
            Action::RestartAll { .. } | Action::Renew => {}
            Action::TearDown => self.tear_down(uid),
            Action::Delete => self.delete(uid),
            Action::Forget => self.forget(uid),
            Action::Fail(verdict) => {
                if let Some(record) = self.pods.get(uid) {
                    // Whoever set the deadline wanted it.
                    self.shared.event(&record.pod, EventType::Normal, &verdict.reason, verdict.message);
                }
            }
            Action::HoldBack { slot, .. } => {
                if let Some(record) = self.pods.get(uid) {
                    let pod = &record.reference;
                    let name = lifecycle::name(&record.pod, slot);
                    let text = format!(
                        "Back-off restarting failed container {name} in pod {}_{}({})",
                        pod.name, pod.namespace, pod.uid
                    );
                    self.shared.container_event(&record.pod, slot, EventType::Warning, "BackOff", text);
                }
            }
        }
    }

    fn set_up(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get(uid) else { return };
        let (shared, pod, reference, dir) =
            (self.shared.clone(), record.pod.clone(), record.reference.clone(), record.dir.clone());
        let before = ground::Before { ip: record.state.ips.first().copied(), in_use: record.state.is_live() };
        let tokens = record.tokens.clone();
        let uid = uid.clone();
        let lost = Outcome::Ground { uid: uid.clone(), result: Err(ground::GroundError::Failed) };
        self.spawn(lost, async move {
            let result = ground::set_up(&shared, &pod, &reference, &dir, before, &tokens).await;
            Outcome::Ground { uid, result }
        });
    }

    fn start(&mut self, uid: &Uid, slot: Slot) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let (Some(network), Some(container)) = (record.network.clone(), record.state.container(slot)) else { return };
        let attempt = container.attempts;
        let cancel = CancellationToken::new();
        record.starting.insert(slot, cancel.clone());
        let job = Job {
            shared: self.shared.clone(),
            pod: record.pod.clone(),
            reference: record.reference.clone(),
            slot,
            attempt,
            network,
            volumes: record.volumes.clone(),
            etc: record.etc.clone(),
            dir: record.dir.clone(),
            cancel,
        };
        let uid = uid.clone();
        let panicked =
            start::StartError::Create { message: "the agent failed; see its log".to_owned(), permanent: false };
        let lost = Outcome::Started { uid: uid.clone(), slot, attempt, result: Err(panicked) };
        self.spawn(lost, async move { Outcome::Started { uid, slot, attempt, result: job.run().await } });
    }

    /// A run began (or was found running): its exit is waited for, its probes begin.
    pub(super) fn watch(&mut self, uid: &Uid, slot: Slot, attempt: u32, started: Started, adopted: Option<Probes>) {
        let now = self.shared.clock.now();
        let Some(record) = self.pods.get_mut(uid) else { return };
        let Some(spec) = lifecycle::container(&record.pod, slot).map(Cow::into_owned) else { return };
        let defined =
            |kind: ProbeKind| if kind.of(&spec).is_some() { ProbeVerdict::Unknown } else { ProbeVerdict::NoProbe };
        let mut probes = Probes {
            startup: defined(ProbeKind::Startup),
            liveness: defined(ProbeKind::Liveness),
            readiness: defined(ProbeKind::Readiness),
        };
        // What was ready before a restart of the agent stays so until a probe says otherwise.
        if let Some(before) = adopted {
            let keep =
                |known: ProbeVerdict, before: ProbeVerdict| if known == ProbeVerdict::NoProbe { known } else { before };
            probes.startup = keep(probes.startup, before.startup);
            probes.readiness = keep(probes.readiness, before.readiness);
        }
        let handle = RunHandle { id: started.id.clone(), runtime: started.runtime.clone(), attempt, stop: None };
        record.runs.insert(slot, handle);
        if let Some(image) = started.image {
            record.images.insert(slot, image);
        }
        if let Some(container) = record.state.container_mut(slot) {
            container.attempts = attempt + 1;
            container.run = Run::Running(Live {
                identity: started.identity.clone(),
                asked: started.asked,
                resources: started.resources,
                resize: None,
                started_at: started.at,
                probes,
                hook_failed: started.hook_failed,
            });
        }
        let watched = Watched {
            shared: self.shared.clone(),
            pod: record.pod.clone(),
            slot,
            attempt,
            id: started.id,
            runtime: started.runtime,
            identity: started.identity.clone(),
            dir: record.dir.clone(),
        };
        for kind in ProbeKind::ALL {
            record.trackers.remove(&(slot, kind));
        }
        if probes.startup == ProbeVerdict::Unknown {
            self.begin_probes(uid, slot, &[ProbeKind::Startup], started.at, now);
        } else {
            self.begin_probes(uid, slot, &[ProbeKind::Liveness, ProbeKind::Readiness], started.at, now);
        }
        let owner = uid.clone();
        let lost = Outcome::Exited { uid: uid.clone(), slot, attempt, ended: super::stop::lost(started.identity, now) };
        self.spawn(lost, async move { Outcome::Exited { uid: owner, slot, attempt, ended: watched.run().await } });
    }

    pub(super) fn begin_probes(
        &mut self,
        uid: &Uid,
        slot: Slot,
        kinds: &[ProbeKind],
        started: Timestamp,
        now: Timestamp,
    ) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let Some(attempt) = record.runs.get(&slot).map(|run| run.attempt) else { return };
        for &kind in kinds {
            let spec = lifecycle::container(&record.pod, slot);
            if let Some(spec) = spec.as_deref().and_then(|spec| kind.of(spec)) {
                let tracker = Tracker::new(spec);
                let first = tracker.first(started, now);
                record.trackers.insert((slot, kind), tracker);
                self.timers.set(&Timer::Probe(uid.clone(), slot, attempt, kind), Some(first));
            }
        }
    }

    /// Makes a probe that is due.
    pub(super) fn probe(&mut self, uid: &Uid, slot: Slot, attempt: u32, kind: ProbeKind) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let Some(run) = record.runs.get(&slot).filter(|run| run.attempt == attempt) else { return };
        // What is being stopped is asked for its readiness alone.
        if run.stop.is_some() && kind != ProbeKind::Readiness {
            return;
        }
        let ip = record.state.ips.first().copied();
        let Some(tracker) = record.trackers.get_mut(&(slot, kind)).filter(|tracker| !tracker.in_flight) else { return };
        let ready = match tracker.ready.take().filter(|ready| ready.is_at(ip)) {
            Some(ready) => ready,
            None => {
                let spec = lifecycle::container(&record.pod, slot);
                let Some((probe, spec)) = spec.as_deref().and_then(|spec| Some((kind.of(spec)?, spec))) else { return };
                let (network, runtime) = (self.shared.network.clone(), run.runtime.clone());
                Arc::new(Ready::new(probe, spec, Target { network, runtime, id: run.id.clone(), ip }))
            }
        };
        tracker.in_flight = true;
        tracker.ready = Some(ready.clone());
        let (shared, uid) = (self.shared.clone(), uid.clone());
        let failed = Found::Error("the agent failed; see its log".to_owned());
        let lost = Outcome::Probed { uid: uid.clone(), slot, attempt, kind, found: failed };
        self.spawn(lost, async move {
            let _permit = shared.limits.probes.acquire().await;
            let found = ready.make().await;
            Outcome::Probed { uid, slot, attempt, kind, found }
        });
    }

    fn stop(&mut self, uid: &Uid, slot: Slot, order: Order, message: &str, restart: bool) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let ending = record.ending();
        let ip = record.state.ips.first().copied();
        let Some(run) = record.runs.get_mut(&slot) else { return };
        if let Some(stop) = &run.stop {
            stop.send_modify(|known| *known = Order { deadline: order.deadline, turn: known.turn || order.turn });
            return;
        }
        let (sender, receiver) = watch::channel(order);
        run.stop = Some(sender);
        let stop = Stop {
            shared: self.shared.clone(),
            pod: record.pod.clone(),
            slot,
            id: run.id.clone(),
            runtime: run.runtime.clone(),
            order: receiver,
            drain: ip.filter(|_| ending && !restart),
            ip,
        };
        self.shared.container_event(&record.pod, slot, EventType::Normal, "Killing", message);
        self.spawn(Outcome::Nothing, async move {
            stop.run().await;
            Outcome::Nothing
        });
    }

    fn tear_down(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        record.network = None;
        let (shared, dir, owner) = (self.shared.clone(), record.dir.clone(), uid.clone());
        let volumes = record.volumes.clone();
        let lost = Outcome::TornDown { uid: uid.clone(), result: Err("the agent failed; see its log".to_owned()) };
        self.spawn(lost, async move {
            let result = ground::tear_down(&shared, &owner, &dir, volumes).await;
            Outcome::TornDown { uid: owner, result }
        });
    }

    fn delete(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get(uid) else { return };
        let (shared, owner) = (self.shared.clone(), uid.clone());
        let lost = Outcome::Deleted { uid: uid.clone(), again: true };
        let Some(reference) = record.shown.clone() else {
            // The API has nothing of it.
            self.spawn(lost, async move { Outcome::Deleted { uid: owner, again: false } });
            return;
        };
        self.spawn(lost, async move {
            let again = match delete(&shared, &reference).await {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(pod = %reference.name, namespace = %reference.namespace, %error, "cannot delete a Pod that has ended");
                    true
                }
            };
            Outcome::Deleted { uid: owner, again }
        });
    }

    /// Drops what is left of a Pod.
    fn forget(&mut self, uid: &Uid) {
        let Some(record) = self.take(uid) else { return };
        for timer in [Timer::Pod(uid.clone()), Timer::Write(uid.clone()), Timer::Tokens(uid.clone())] {
            self.timers.set(&timer, None);
        }
        let key = (record.reference.namespace.clone(), record.reference.name.clone());
        {
            let mut view = self.shared.view.write();
            if view.get(&key).is_some_and(|seen| seen.pod.metadata.uid == record.pod.metadata.uid) {
                view.remove(&key);
            }
        }
        self.static_forgotten(&key, uid);
        let all = [record.dir, self.shared.written(uid)];
        self.spawn(Outcome::Nothing, async move {
            if let Err(panic) = tokio::task::spawn_blocking(move || volumes::remove_each(&all)).await {
                tracing::error!(%panic, "removing a Pod's files panicked");
            }
            Outcome::Nothing
        });
    }
}

async fn delete(shared: &Arc<Shared>, reference: &PodRef) -> Result<(), kube::Error> {
    let Ok(_permit) = shared.limits.writes.acquire().await else { return Ok(()) };
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &reference.namespace);
    let preconditions = Preconditions { uid: Some(reference.uid.clone()), resource_version: None };
    let params =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(&reference.name, &params).await {
        Ok(_) => Ok(()),
        // It is gone, or another of its name is there.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(error) => Err(error),
    }
}
