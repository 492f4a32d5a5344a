//! What the driver does for a Pod that no node takes: it says so, and makes room where that is possible.
//!
//! Where room is made, the Pod's node is written on the Pod before anybody is asked to leave: should this process end in
//! between, the next one awaits the Pod there. In memory both hold at once, so that the next decisions count with them.

use std::{collections::BTreeSet, sync::Arc};

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use tracing::warn;
use wherry_reconcile::EventType;

use super::{Done, Scheduler};
use crate::{
    bind,
    filters::Wake,
    pod::PodInfo,
    preemption::{Candidate, Nomination, preempt},
};

/// How many of a Pod's victims are asked to leave at a time.
const AT_ONCE: usize = 16;

impl Scheduler {
    /// No node takes a Pod in flight.
    pub(super) fn unplaced(
        &mut self,
        pod: Arc<PodInfo>,
        mut message: String,
        wake: BTreeSet<Wake>,
        resolvable: &[String],
    ) {
        let now = Instant::now();
        let budgets = if resolvable.is_empty() { Vec::new() } else { self.budgets.list() };
        let preemption = preempt(&self.cluster, &pod, resolvable, &budgets, self.turn);
        if let Some(more) = preemption.message {
            message = format!("{message} {more}");
        }
        let mut room = None;
        match preemption.nomination {
            Nomination::Keep => {}
            Nomination::Clear => self.await_nowhere(&pod.uid, now),
            Nomination::On(candidate) => room = Some(self.make_room(&pod, candidate, now)),
        }
        self.queue.unschedulable(&pod.key, &pod.uid, wake, now);
        self.config.recorder.on(&*pod.pod, EventType::Warning, "FailedScheduling", message.clone());
        let patch = bind::unplaced(&pod.pod, &message, self.cluster.nominations.of(&pod.uid), Timestamp::now());
        if patch.is_some() || room.is_some() {
            self.tell(pod, patch, room.unwrap_or_default());
        }
    }

    /// The Pod needs no room made any more: others may have it.
    pub(super) fn await_nowhere(&mut self, uid: &str, now: Instant) {
        if self.cluster.nominations.remove(uid) {
            self.queue.wake(Wake::PodGone, now);
        }
    }

    /// The Pod has a node: if it was awaited on another, others may have that room.
    pub(super) fn settles(&mut self, uid: &str, node: &str, now: Instant) {
        if self.cluster.nominations.of(uid).is_some_and(|awaited| awaited != node) {
            self.await_nowhere(uid, now);
        }
    }

    /// Awaits the Pod on the node, and its victims' leaving. Gives what is to be written.
    fn make_room(&mut self, pod: &Arc<PodInfo>, candidate: Candidate, now: Instant) -> Room {
        let Candidate { node, victims, .. } = candidate;
        if self.cluster.nominations.of(&pod.uid) != Some(&*node) {
            self.await_nowhere(&pod.uid, now);
        }
        let awaited = self.cluster.nominations.on(&node);
        let outdone: Vec<_> = awaited.filter(|other| other.priority < pod.priority).cloned().collect();
        for other in &outdone {
            self.cluster.nominations.remove(&other.uid);
            self.queue.nudge(&other.key, &other.uid, now);
        }
        self.cluster.nominations.set(pod.clone(), &node);
        let victims: Vec<_> = victims.into_iter().filter(|victim| !victim.terminating).collect();
        victims.iter().for_each(|victim| self.cluster.ask_to_leave(&victim.uid));
        Room { node, victims, outdone }
    }

    /// Writes why the Pod has no node, then makes room for it.
    fn tell(&mut self, pod: Arc<PodInfo>, patch: Option<serde_json::Value>, room: Room) {
        let (client, recorder) = (self.config.client.clone(), self.config.recorder.clone());
        let scheduler = self.config.name.clone();
        self.tasks.spawn(async move {
            if let Some(patch) = patch
                && let Err(error) = bind::report(client.clone(), &pod, patch).await
            {
                if !bind::is_stale(&error) {
                    warn!(pod = %pod.key, %error, "cannot write why the Pod has no node");
                }
                let spared = room.victims.iter().map(|victim| victim.uid.clone()).collect();
                return Done::Told { pod, spared };
            }
            for other in &room.outdone {
                if let Err(error) = bind::clear_nomination(client.clone(), other).await
                    && !bind::is_stale(&error)
                {
                    warn!(pod = %other.key, %error, "cannot write that the Pod is awaited nowhere");
                }
            }
            let text = format!("Preempted by pod {} on node {}", pod.uid, room.node);
            let ask = |victim: Arc<PodInfo>| {
                let (client, scheduler, recorder, text) = (&client, &scheduler, &recorder, &text);
                async move {
                    match bind::preempt(client.clone(), &victim, scheduler).await {
                        Ok(()) => recorder.on(&*victim.pod, EventType::Normal, "Preempted", text.clone()),
                        Err(error) if bind::is_gone(&error) => {}
                        Err(error) => {
                            warn!(pod = %victim.key, %error, "cannot preempt");
                            return Some(victim.uid.clone());
                        }
                    }
                    None
                }
            };
            let asked = futures::stream::iter(room.victims).map(ask).buffer_unordered(AT_ONCE);
            let spared = asked.filter_map(std::future::ready).collect().await;
            Done::Told { pod, spared }
        });
    }

    /// The Pod was told; these victims of its were not.
    pub(super) fn told(&mut self, pod: &PodInfo, spared: &[String]) {
        if spared.is_empty() {
            return;
        }
        spared.iter().for_each(|uid| self.cluster.spare(uid));
        self.queue.nudge(&pod.key, &pod.uid, Instant::now());
    }
}

/// How room is made for a Pod.
#[derive(Debug, Default)]
struct Room {
    node: String,
    victims: Vec<Arc<PodInfo>>,
    /// Pods of lower priority that were awaited on the node.
    outdone: Vec<Arc<PodInfo>>,
}
