//! The look at what is used up, every ten seconds as kubelet's, one for the whole node. Only Pods with limits of their own are
//! measured; the others when the node is short. (Nothing tells when a directory grows.)
//!
//! # Flow
//! a timer → a task that measures, and makes room where images can go → its outcome: what [`shortage`](crate::shortage) decides is
//! carried out → the timer is set again.
//!
//! # Guarantees
//! - What is decided about a Pod is decided by figures of its containers as they run now: one whose figures are not there yet is
//!   left for the next look.
//! - For the node's need one Pod goes at a time, and the next when it is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use wherry_reconcile::EventType;
use wherry_runtime::ContainerId;

use super::collect::{collect, tidy};
use super::outcome::Outcome;
use super::record::{Record, Uid};
use super::shared::Shared;
use super::{Driver, Timer};
use crate::lifecycle::{self, Ground, Verdict, add};
use crate::measure::LocalFiles;
use crate::ports::Left;
use crate::shortage::{
    Candidate, EVICTED, ImageGc, LocalLimits, LocalUse, Met, Observed, Pressure, Resource, disk_volumes, first,
    is_critical, short_of,
};

/// kubelet's.
const INTERVAL: Duration = Duration::from_secs(10);
/// How often the uses of images are noted, and told that they cannot be collected.
const SELDOM: Duration = Duration::from_secs(300);
/// What a Pod has to end, however much it was promised: its node needs the room now.
const GRACE: Duration = Duration::from_secs(1);

/// What looks remember.
#[derive(Default)]
pub(super) struct Looks {
    observed: Observed,
    /// When images were tidied last.
    tidied: Option<Timestamp>,
    /// When it was told last that the disk stays full.
    complained: Option<Timestamp>,
}

/// What a look has found.
#[derive(Default)]
pub(super) struct Found {
    /// Pods that have outgrown a limit of theirs, and what is told of it.
    outgrown: Vec<(Uid, String)>,
    /// What the node is short of.
    pressure: Pressure,
    /// That the disk is too full, and that no image could go any more.
    full: Option<String>,
    /// What is still missing, and what Pods use of it.
    short: Option<(Met, Used)>,
}

/// What Pods use of what is short.
enum Used {
    /// Of memory: each container that runs.
    Memory(HashMap<ContainerId, u64>),
    /// Of the disk: each Pod.
    Disk(HashMap<Uid, LocalUse>),
}

impl Driver {
    /// Sets the timer for the next look.
    pub(super) fn look_again(&mut self) {
        self.timers.set(&Timer::Look, Some(add(self.shared.clock.now(), INTERVAL)));
    }

    /// Measures.
    pub(super) fn look(&mut self) {
        let now = self.shared.clock.now();
        let due = self.looks.tidied.is_none_or(|last| add(last, SELDOM) <= now);
        if due {
            self.looks.tidied = Some(now);
        }
        let left = self.shared.supply.left();
        let short = short_of(&self.shared.shortage.eviction_hard.met(&left));
        let pods = self.evictable(|record| short.disk || !record.limits.is_empty());
        let pods: Vec<_> =
            pods.map(|(uid, record)| (uid.clone(), record.limits.clone(), record.local_files())).collect();
        let shared = self.shared.clone();
        self.spawn(Outcome::Looked(Box::default()), async move {
            if due {
                tidy(&shared).await;
            }
            Outcome::Looked(Box::new(measure(&shared, pods, left).await))
        });
    }

    /// Carries out what follows.
    pub(super) fn looked(&mut self, found: Found) {
        let now = self.shared.clock.now();
        self.tell_pressure(found.pressure, now);
        if let Some(message) = found.full.filter(|_| self.looks.complained.is_none_or(|last| add(last, SELDOM) <= now))
        {
            self.looks.complained = Some(now);
            self.shared.node_event(EventType::Warning, "FreeDiskSpaceFailed", message);
        }
        let outgrown = !found.outgrown.is_empty();
        for (uid, message) in found.outgrown {
            self.evict(&uid, message, false);
        }
        // What these give back may be enough.
        if let Some((met, used)) = found.short.filter(|_| !outgrown) {
            self.relieve(&met, &used);
        }
        self.look_again();
    }

    fn tell_pressure(&mut self, seen: Pressure, now: Timestamp) {
        let told = self.looks.observed.see(seen, now, self.shared.shortage.transition_period);
        let before = *self.shared.pressure.borrow();
        // Whoever is woken writes the Node, on its disk.
        self.shared.pressure.send_if_modified(|known| {
            let changed = *known != told;
            *known = told;
            changed
        });
        for event in told.events(before) {
            let text = format!("Node {} status is now: {event}", self.shared.node_name);
            self.shared.node_event(EventType::Normal, event, text);
        }
    }

    /// Ends the Pod whose turn it is, so that the node has more of what it is short of.
    fn relieve(&mut self, met: &Met, used: &Used) {
        let text = format!("Attempting to reclaim {}", met.resource.as_str());
        self.shared.node_event(EventType::Warning, "EvictionThresholdMet", text);
        if self.pods.values().any(Record::is_being_evicted) {
            return;
        }
        let candidates = self.evictable(|_| true).filter_map(|(uid, record)| match used {
            Used::Memory(used) => Candidate::by_memory(uid.clone(), &record.pod, &record.memory(used)?),
            Used::Disk(used) => Candidate::by_disk(uid.clone(), &record.pod, met.resource, used.get(uid)?),
        });
        match first(candidates.collect()) {
            Some(chosen) => {
                let message = chosen.message(met);
                self.evict(&chosen.into_key(), message, true);
            }
            None => {
                tracing::warn!(resource = met.resource.as_str(), "the node is short, and no Pod can be evicted for it")
            }
        }
    }

    /// Those of the `wanted` Pods that may have to go. A static one never has to: it would not come back. (What is wanted is asked first:
    /// of most Pods, that touches least.)
    fn evictable(&self, wanted: impl Fn(&Record) -> bool) -> impl Iterator<Item = (&Uid, &Record)> {
        self.pods.iter().filter(move |(uid, record)| wanted(record) && record.is_evictable() && !self.is_static(uid))
    }

    /// Ends a Pod for good. `disrupted`: for its node's sake.
    fn evict(&mut self, uid: &Uid, message: String, disrupted: bool) {
        let is_static = self.is_static(uid);
        let record = self.pods.get_mut(uid).filter(|record| record.is_evictable() && !is_static);
        let Some(record) = record else { return };
        self.shared.event(&record.pod, EventType::Warning, EVICTED, message.clone());
        record.state.verdict = Some(Verdict { grace: Some(GRACE), disrupted, ..Verdict::new(EVICTED, message) });
        self.reconcile(uid);
    }
}

/// Measures these Pods' files, makes room where the disk is too full, and finds what is still missing of what was `left`.
async fn measure(shared: &Arc<Shared>, pods: Vec<(Uid, LocalLimits, LocalFiles)>, mut left: Left) -> Found {
    let mut found = Found::default();
    let mut disk: HashMap<Uid, LocalUse> = HashMap::new();
    for (uid, limits, files) in pods {
        let used = files.measure().await;
        found.outgrown.extend(limits.exceeded(&used).map(|message| (uid.clone(), message)));
        disk.insert(uid, used);
    }
    let thresholds = &shared.shortage.eviction_hard;
    found.pressure = short_of(&thresholds.met(&left));
    found.full = make_room(shared, &mut left, found.pressure.disk).await;
    // Nobody is evicted for processes.
    let Some(met) = thresholds.met(&left).into_iter().find(|met| met.resource != Resource::Pids) else { return found };
    let used = if met.resource == Resource::Memory {
        let sample = shared.meter.sample_anew().await;
        let containers = sample.pods.iter().flat_map(|pod| &pod.containers);
        Used::Memory(containers.map(|one| (one.id.clone(), one.stats.memory.working_set)).collect())
    } else {
        Used::Disk(disk)
    };
    found.short = Some((met, used));
    found
}

/// Removes images where the disk is too full: all that can go where Pods would have to otherwise. What is told where that was
/// not enough.
async fn make_room(shared: &Arc<Shared>, left: &mut Left, short: bool) -> Option<String> {
    let disk = left.disk?;
    let wanted = shared.shortage.image_gc.wanted(disk);
    let bytes = if short { u64::MAX } else { wanted? };
    let freed = collect(shared, bytes).await;
    if freed > 0 {
        *left = shared.supply.left();
    }
    wanted.filter(|wanted| freed < *wanted).map(|_| ImageGc::failed(disk, freed))
}

impl Record {
    /// It runs, is not about to end anyway, and is not one that the cluster cannot be without.
    fn is_evictable(&self) -> bool {
        !self.ending() && !self.state.phase.is_terminal() && !is_critical(&self.pod)
    }

    /// It had to go for its node's sake, and is not gone yet.
    fn is_being_evicted(&self) -> bool {
        let going = self.state.is_live() || matches!(self.state.ground, Ground::Ready | Ground::Removing);
        going && self.state.verdict.as_ref().is_some_and(|verdict| verdict.disrupted)
    }

    /// What has to be measured of it on the disk.
    fn local_files(&self) -> LocalFiles {
        let volumes = self.pod.spec.iter().flat_map(disk_volumes).map(|volume| volume.name.clone());
        let containers = self.state.slots().map(|(slot, _)| {
            let live = self.runs.get(&slot).map(|run| (run.id.clone(), run.runtime.clone()));
            (lifecycle::name(&self.pod, slot).to_owned(), live)
        });
        LocalFiles { dir: self.dir.clone(), volumes: volumes.collect(), containers: containers.collect() }
    }

    /// The memory of each of its containers that run; none where that is not known of all of them.
    fn memory(&self, used: &HashMap<ContainerId, u64>) -> Option<Vec<(String, u64)>> {
        let slots = self.state.slots().filter_map(|(slot, _)| Some((slot, self.runs.get(&slot)?)));
        slots.map(|(slot, run)| Some((lifecycle::name(&self.pod, slot).to_owned(), *used.get(&run.id)?))).collect()
    }
}
