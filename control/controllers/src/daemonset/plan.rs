//! What a DaemonSet lacks on which node, and what is too much there. Pure.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use super::template::Fit;
use crate::pods;

/// A node with the DaemonSet's Pods on it, or meant for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) fit: Fit,
    pub(super) pods: Vec<Arc<Pod>>,
    /// The node exists.
    pub(super) exists: bool,
}

/// All nodes and Pods, by the nodes' names.
pub(super) type Places = BTreeMap<String, Place>;

/// How the DaemonSet is brought up to date.
pub(super) struct Rules<'a> {
    /// How many Pods may be unavailable during an update, and how many nodes may have a second one; none for OnDelete.
    pub(super) rolling: Option<Bounds>,
    pub(super) min_ready_seconds: i32,
    pub(super) now: Timestamp,
    /// Whether a Pod is of the present template.
    pub(super) is_updated: &'a (dyn Fn(&Pod) -> bool + Sync),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) unavailable: usize,
    pub(super) surge: usize,
}

impl Rules<'_> {
    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready_seconds, self.now)
    }

    fn surges(&self) -> bool {
        self.rolling.is_some_and(|bounds| bounds.surge > 0)
    }
}

/// The steps of a pass.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that get a Pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods that ended and make room for another, with the name of their node; the caller may put that off.
    pub(super) ended: Vec<(String, Arc<Pod>)>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty() && self.ended.is_empty()
    }
}

/// Decides what to do. An update goes on only where nothing else is to be done.
pub(super) fn plan(places: &Places, rules: &Rules<'_>) -> Plan {
    let mut plan = Plan::default();
    for (name, place) in places {
        manage(name, place, rules, &mut plan);
    }
    match rules.rolling {
        Some(bounds) if plan.is_empty() && bounds.surge > 0 => surge(places, bounds.surge, rules),
        Some(bounds) if plan.is_empty() => replace(places, bounds.unavailable, rules),
        _ => plan,
    }
}

/// One Pod on each node that is for it.
fn manage(name: &str, place: &Place, rules: &Rules<'_>, plan: &mut Plan) {
    if !place.exists {
        // Those that were bound are for the garbage collector, which makes sure that the node is gone.
        plan.delete
            .extend(place.pods.iter().filter(|pod| pods::node_of(pod).is_none() && !pods::is_deleting(pod)).cloned());
        return;
    }
    if place.fit.run && place.pods.is_empty() {
        plan.create.push(name.to_owned());
        return;
    }
    let mut staying = place.pods.iter().filter(|pod| !pods::is_deleting(pod));
    if !place.fit.stay {
        plan.delete.extend(staying.cloned());
        return;
    }
    let mut running = Vec::new();
    for pod in staying.by_ref() {
        if pods::is_terminal(pod) {
            plan.ended.push((name.to_owned(), pod.clone()));
        } else {
            running.push(pod);
        }
    }
    running.sort_by(|a, b| rank(a).cmp(&rank(b)));
    if rules.surges() {
        // One of the present template and an older one beside it, for as long as the new one is not available.
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| (rules.is_updated)(pod));
        plan.delete.extend(new.iter().skip(1).chain(old.iter().skip(1)).map(|pod| Arc::clone(pod)));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pods::is_ready(old) || rules.is_available(new))
        {
            plan.delete.push(Arc::clone(old));
        }
    } else {
        plan.delete.extend(running.into_iter().skip(1).cloned());
    }
}

/// The one to keep comes first: one that has its node, then the oldest.
pub(super) fn rank(pod: &Pod) -> (bool, Option<Timestamp>, &str) {
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (pods::node_of(pod).is_none(), created, pod.metadata.name.as_deref().unwrap_or_default())
}

/// A node in the eyes of an update.
enum Stage<'a> {
    /// Something is under way, or is for [`manage`].
    Busy,
    New(&'a Arc<Pod>),
    Old(&'a Arc<Pod>),
    Both {
        new: &'a Arc<Pod>,
        old: &'a Arc<Pod>,
    },
}

fn stage<'a>(place: &'a Place, rules: &Rules<'_>) -> Stage<'a> {
    if place.pods.iter().any(|pod| pods::is_deleting(pod)) {
        return Stage::Busy;
    }
    let (new, old): (Vec<_>, Vec<_>) = place.pods.iter().partition(|pod| (rules.is_updated)(pod));
    match (new.as_slice(), old.as_slice()) {
        ([new], []) => Stage::New(new),
        ([], [old]) => Stage::Old(old),
        ([new], [old]) => Stage::Both { new, old },
        _ => Stage::Busy,
    }
}

/// Deletes old Pods, as many as may be unavailable; those that are unavailable anyhow go first.
fn replace(places: &Places, most: usize, rules: &Rules<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut unavailable = 0;
    let mut candidates = Vec::new();
    for place in places.values().filter(|place| place.fit.run || !place.pods.is_empty()) {
        match stage(place, rules) {
            Stage::Busy | Stage::Both { .. } => unavailable += 1,
            Stage::New(pod) => unavailable += usize::from(!rules.is_available(pod)),
            Stage::Old(pod) if rules.is_available(pod) => candidates.push(pod),
            Stage::Old(pod) => plan.delete.push(pod.clone()),
        }
    }
    let left = most.saturating_sub(unavailable);
    plan.delete.extend(candidates.into_iter().take(left).cloned());
    plan
}

/// Creates new Pods beside old ones, and deletes these once the new ones are available.
fn surge(places: &Places, most: usize, rules: &Rules<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut surging = 0;
    let mut candidates = Vec::new();
    for (name, place) in places {
        match stage(place, rules) {
            Stage::Busy if place.pods.is_empty() => {}
            Stage::Busy => surging += 1,
            Stage::New(_) => {}
            // Where a daemon may stay but not come, there is no room for a second one.
            Stage::Old(old) if !place.fit.run => {
                if !rules.is_available(old) {
                    plan.delete.push(old.clone());
                }
            }
            Stage::Old(old) if rules.is_available(old) => candidates.push(name),
            Stage::Old(_) => plan.create.push(name.clone()),
            Stage::Both { new, old } => {
                if rules.is_available(old) && !rules.is_available(new) {
                    surging += 1;
                } else {
                    plan.delete.push(old.clone());
                }
            }
        }
    }
    plan.create.extend(candidates.into_iter().take(most.saturating_sub(surging)).cloned());
    plan
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
