//! Resizes of Pods: which ones the node has room for, and carrying them out.
//!
//! # Flow
//! manifest → [`granted`](Driver::granted) → an agent works by what it granted; what it has no room for waits
//! ([`Room`]) → room appears → the waiting ones are weighed again, those that need none first, then by priority, quality of service
//! and how long they have waited.
//!
//! # Guarantees
//! - What a Pod was given before is its until another size is granted, whatever its manifest says and however often it restarts.
//! - A change that may have been made and was not told is noted in the Pod's directory: another life of the agent makes it again.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use wherry_reconcile::EventType;
use wherry_reconcile::resources::{self, DEFERRED, INFEASIBLE, Resources};

use super::outcome::Outcome;
use super::record::{Record, Uid};
use super::{Driver, start};
use crate::lifecycle::{Given, Pending, Resize, Run, Slot, resize};
use crate::node::Capacity;

/// What Pods hold of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    milli_cpu: i64,
    memory: i64,
}

impl Held {
    pub(super) fn of(pod: &Pod) -> Self {
        let requests = pod.spec.as_ref().map(resources::requests).unwrap_or_default();
        Self { milli_cpu: requests.milli_cpu, memory: requests.memory }
    }

    fn exceeds(self, other: Self) -> bool {
        self.milli_cpu > other.milli_cpu || self.memory > other.memory
    }
}

/// What is left for resizes, and who waits for it.
#[derive(Default)]
pub(super) struct Room {
    used: Held,
    /// Something was given back since the waiting ones were weighed.
    freed: bool,
    deferred: HashSet<Uid>,
}

impl Room {
    fn change(&mut self, from: Held, to: Held) {
        self.used.milli_cpu += to.milli_cpu - from.milli_cpu;
        self.used.memory += to.memory - from.memory;
        self.freed |= from.exceeds(to);
    }

    /// A Pod is gone.
    pub(super) fn leave(&mut self, uid: &Uid, held: Held) {
        self.change(held, Held::default());
        self.deferred.remove(uid);
    }

    /// Whether a Pod that holds nothing yet can have this much of CPU and memory. Pods that are gone and not forgotten are counted.
    pub(super) fn surely_has(&self, wanted: &Resources, node: &Capacity) -> bool {
        self.used.milli_cpu + wanted.milli_cpu <= node.cpu_millis
            && self.used.memory + wanted.memory <= node.memory_bytes
    }

    /// Why a Pod that holds `now` cannot have `wanted`. Memory is told of before CPU. What does not grow is never refused.
    fn refusal(&self, now: Held, wanted: Held, node: &Capacity) -> Option<(&'static str, String)> {
        let resources = [
            ("memory", now.memory, wanted.memory, self.used.memory, node.memory_bytes),
            ("cpu", now.milli_cpu, wanted.milli_cpu, self.used.milli_cpu, node.cpu_millis),
        ];
        let growing = || resources.iter().filter(|(_, now, wanted, ..)| wanted > now);
        let never = growing().find(|(_, _, wanted, _, capacity)| wanted > capacity);
        if let Some((name, _, wanted, _, capacity)) = never {
            let message =
                format!("Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}");
            return Some((INFEASIBLE, message));
        }
        growing().find(|(_, now, wanted, used, capacity)| used - now + wanted > *capacity).map(
            |(name, now, wanted, used, capacity)| {
                let used = used - now;
                let message = format!(
                    "Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
                );
                (DEFERRED, message)
            },
        )
    }
}

impl Driver {
    /// The manifest with the resources that the Pod may have: those that it asks for where there is room, else those that it had.
    pub(super) fn granted(&mut self, uid: &Uid, wanted: Arc<Pod>) -> Arc<Pod> {
        let now = self.shared.clock.now();
        let Some(record) = self.pods.get_mut(uid) else { return wanted };
        self.room.deferred.remove(uid);
        let before = record.state.pending.take();
        record.wanted = None;
        if !resize::asks(&wanted, &record.pod) {
            return wanted;
        }
        if record.is_over() || record.ending() {
            return Arc::new(resize::with_allocation(&wanted, &record.pod));
        }
        let generation = wanted.metadata.generation.unwrap_or_default();
        let Some((reason, message)) = self.room.refusal(record.held, Held::of(&wanted), &self.shared.capacity) else {
            record.state.resizing = Some(generation);
            let text = resize::event("started", &wanted, generation, "");
            self.shared.event(&wanted, EventType::Normal, "ResizeStarted", text);
            return wanted;
        };
        if before.as_ref().is_none_or(|before| (before.reason, before.generation) != (reason, generation)) {
            let text = resize::event(reason, &wanted, generation, &message);
            self.shared.event(&wanted, EventType::Warning, &format!("Resize{reason}"), text);
        }
        let since = before.map_or(now, |before| before.since);
        record.state.pending = Some(Pending { reason, message, generation, since });
        record.wanted = Some(wanted.clone());
        if reason == DEFERRED {
            self.room.deferred.insert(uid.clone());
        }
        Arc::new(resize::with_allocation(&wanted, &record.pod))
    }

    /// Counts what the Pod holds now.
    pub(super) fn account(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let held = if record.is_over() { Held::default() } else { record.requests };
        if held != record.held {
            self.room.change(record.held, held);
            record.held = held;
        }
    }

    /// Weighs the resizes that wait again, where there is more room than before.
    pub(super) fn retry_resizes(&mut self) {
        while std::mem::take(&mut self.room.freed) && !self.room.deferred.is_empty() {
            let waiting = self.room.deferred.iter().filter_map(|uid| {
                let record = self.pods.get(uid)?;
                Some((record.turn()?, uid.clone(), record.wanted.clone()?))
            });
            let mut waiting: Vec<_> = waiting.collect();
            waiting.sort_by(|one, other| one.0.cmp(&other.0));
            for (_, uid, wanted) in waiting {
                self.pod_known(uid, wanted);
            }
        }
    }

    /// Tells that a resize is done, once it is.
    pub(super) fn end_resize(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let Some(generation) = record.state.resizing.filter(|_| resize::is_done(&record.pod, &record.state)) else {
            return;
        };
        record.state.resizing = None;
        if !record.is_over() && !record.ending() {
            let text = resize::event("completed", &record.pod, generation, "");
            self.shared.event(&record.pod, EventType::Normal, "ResizeCompleted", text);
        }
    }

    /// Changes the resources of a running container.
    pub(super) fn resize(&mut self, uid: &Uid, slot: Slot, wanted: Option<ResourceRequirements>) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let Some(run) = record.runs.get(&slot) else { return };
        record.resize_noted = true;
        let note = note(&record.dir);
        let (id, runtime, attempt, uid) = (run.id.clone(), run.runtime.clone(), run.attempt, uid.clone());
        let failed = Err("the agent failed; see its log".to_owned());
        let lost = Outcome::Resized { uid: uid.clone(), slot, attempt, wanted: wanted.clone(), result: failed };
        self.spawn(lost, async move {
            let result = async {
                let limits = start::limits(wanted.as_ref()).map_err(|error| error.to_string())?;
                let noted = async {
                    tokio::fs::create_dir_all(note.parent().unwrap_or(&note)).await?;
                    tokio::fs::write(&note, "").await
                };
                let noted = noted.await;
                noted.map_err(|error| format!("cannot write {}: {error}", note.display()))?;
                runtime.update(&id, limits).await.map_err(|error| error.to_string())
            };
            let result = result.await;
            Outcome::Resized { uid, slot, attempt, wanted, result }
        });
    }

    /// A running container has other resources, or has not.
    pub(super) fn resized(
        &mut self,
        uid: &Uid,
        slot: Slot,
        attempt: u32,
        wanted: Option<ResourceRequirements>,
        result: Result<(), String>,
    ) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        if record.runs.get(&slot).is_none_or(|run| run.attempt != attempt) {
            return;
        }
        let generation = record.state.resizing.or(record.pod.metadata.generation).unwrap_or_default();
        let Some(live) = record.state.container_mut(slot).and_then(|container| container.run.live_mut()) else {
            return;
        };
        match result {
            Ok(()) => (live.resources, live.resize) = (Given::Known(wanted), None),
            Err(message) => {
                tracing::warn!(pod = %record.reference.name, namespace = %record.reference.namespace, message, "cannot resize a container");
                let text = resize::event("error", &record.pod, generation, &message);
                self.shared.event(&record.pod, EventType::Warning, "ResizeError", text);
                live.resize = Some(Resize { wanted, failed: Some(message) });
            }
        }
    }

    /// The API knows what the Pod's containers have: nothing is to be remembered beside it.
    pub(super) fn drop_resize_note(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let under_way = record.state.slots().any(|(_, container)| {
            let Run::Running(live) = &container.run else { return false };
            live.resources == Given::Unknown || live.resize.as_ref().is_some_and(|resize| resize.failed.is_none())
        });
        if !record.resize_noted || under_way {
            return;
        }
        record.resize_noted = false;
        // A later resize makes it anew, and then it must not be taken away by this one: removed at once.
        if let Err(error) = std::fs::remove_file(note(&record.dir)) {
            tracing::debug!(pod = %record.reference.name, %error, "a resize stays noted: it is made again after a restart of the agent");
        }
    }
}

impl Record {
    /// It has ended, and nothing of it runs.
    pub(super) fn is_over(&self) -> bool {
        self.state.phase.is_terminal() && !self.state.is_live()
    }

    /// Where a resize that waits stands among others.
    fn turn(&self) -> Option<impl Ord + use<>> {
        let (pending, wanted) = (self.state.pending.as_ref()?, self.wanted.as_ref()?);
        let priority = wanted.spec.as_ref().and_then(|spec| spec.priority).unwrap_or_default();
        let class = wanted.status.as_ref().and_then(|status| status.qos_class.as_deref());
        let grows = Held::of(wanted).exceeds(self.held);
        Some((grows, Reverse(priority), class != Some("Guaranteed"), pending.since))
    }
}

/// Where it is noted that the containers of a Pod may have other resources than the API tells.
pub(super) fn note(dir: &Path) -> PathBuf {
    dir.join("resizing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_needs_room_and_what_shrinks_needs_none() {
        let node = Capacity { cpu_millis: 4000, memory_bytes: 1000, ..Capacity::default() };
        let held = |milli_cpu, memory| Held { milli_cpu, memory };
        let mut room = Room::default();
        room.change(Held::default(), held(3000, 900));
        let refusal =
            |now, wanted| room.refusal(now, wanted, &node).map(|(reason, message)| format!("{reason}: {message}"));
        assert_eq!(refusal(held(1000, 100), held(2000, 200)), None);
        assert_eq!(
            refusal(held(1000, 100), held(2001, 100)).as_deref(),
            Some("Deferred: Node didn't have enough resource: cpu, requested: 2001, used: 2000, capacity: 4000")
        );
        assert_eq!(
            refusal(held(1000, 100), held(4001, 1001)).as_deref(),
            Some("Infeasible: Node didn't have enough capacity: memory, requested: 1001, capacity: 1000")
        );
        room.change(Held::default(), held(3000, 900));
        assert!(!room.freed);
        assert_eq!(room.refusal(held(3000, 900), held(2000, 900), &node), None, "however full the node is");
        room.change(held(3000, 900), held(3000, 800));
        assert!(room.freed);
    }
}
