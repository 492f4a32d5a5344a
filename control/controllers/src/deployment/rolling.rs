//! The arithmetic of a rollout: how large each ReplicaSet may be now. Pure.
//!
//! Invariants, for every step, however late the ReplicaSets' controller acts and reports:
//! - there are never more than `replicas + surge` Pods because of us;
//! - a step never takes away so many Pods that fewer than `replicas - unavailable` stay available.
//!
//! Upstream counts what is asked for, and so passes both bounds for a moment when reports lag; here a Pod counts until its
//! set has reported that it is gone, and as available only while its set is meant to keep it.

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::util::intstr::IntOrString};

use crate::counts::portion;

/// What the Deployment wants, with percentages resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    pub(super) replicas: i32,
    pub(super) surge: i32,
    pub(super) unavailable: i32,
    pub(super) rolling: bool,
}

/// A ReplicaSet as far as sizes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) name: String,
    /// spec.replicas
    pub(super) replicas: i32,
    /// status.replicas
    pub(super) reported: i32,
    /// Whether the status was reported for the present size.
    pub(super) observed: bool,
    /// status.availableReplicas, of which at most `replicas` are going to stay.
    pub(super) available: i32,
    /// What the Deployment wanted when this set was last scaled.
    pub(super) desired: Option<i32>,
    /// The most Pods that the Deployment could have had then.
    pub(super) max: Option<i32>,
}

/// A new size for a ReplicaSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    pub(super) name: String,
    pub(super) to: i32,
}

impl Goal {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let spec = deployment.spec.as_ref();
        let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let strategy = spec.and_then(|spec| spec.strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        if !rolling {
            return Self { replicas, surge: 0, unavailable: 0, rolling };
        }
        let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".into());
        let surge = update.and_then(|update| update.max_surge.as_ref()).unwrap_or(&quarter);
        let unavailable = update.and_then(|update| update.max_unavailable.as_ref()).unwrap_or(&quarter);
        let (surge, unavailable) = fenceposts(surge, unavailable, replicas);
        Self { replicas, surge, unavailable: if replicas == 0 { 0 } else { unavailable.min(replicas) }, rolling }
    }

    pub(super) fn max(&self) -> i32 {
        self.replicas.saturating_add(self.surge)
    }

    pub(super) fn min_available(&self) -> i32 {
        self.replicas - self.unavailable
    }
}

/// Resolves both bounds: surge rounds up, unavailability down, and if both come to nothing one Pod may be unavailable,
/// since otherwise nothing could ever move.
fn fenceposts(surge: &IntOrString, unavailable: &IntOrString, replicas: i32) -> (i32, i32) {
    let surge = portion(surge, replicas, true);
    let unavailable = portion(unavailable, replicas, false);
    match (surge, unavailable) {
        (0, 0) => (0, 1),
        both => both,
    }
}

impl Set {
    /// As many Pods as it may have.
    fn pods(&self) -> i32 {
        self.replicas.max(self.reported)
    }

    /// Available Pods that stay so.
    fn staying(&self) -> i32 {
        self.available.min(self.replicas)
    }
}

fn total(sets: &[Set]) -> i32 {
    sets.iter().map(|set| set.replicas).sum()
}

/// The size of the new set, given that all sets together have `pods`.
pub(super) fn new_size(goal: &Goal, size: i32, pods: i32) -> i32 {
    if !goal.rolling || size >= goal.replicas {
        return goal.replicas;
    }
    let room = goal.max() - pods;
    if room <= 0 {
        return size;
    }
    size + room.min(goal.replicas - size)
}

/// The next step of a rolling update: first grow the new set; when there is no room, shrink the old ones (oldest first).
pub(super) fn roll(goal: &Goal, new: &Set, old: &[Set]) -> Vec<Scale> {
    let pods = old.iter().chain([new]).map(Set::pods).sum();
    let size = new_size(goal, new.replicas, pods);
    // What a set has is known once it has seen its present size; its report wakes the next pass.
    let known = old.iter().all(|set| set.observed);
    if size < new.replicas || (size > new.replicas && known) {
        return vec![Scale { name: new.name.clone(), to: size }];
    }
    if known && new.observed {
        return shrink_old(goal, new, old);
    }
    Vec::new()
}

fn shrink_old(goal: &Goal, new: &Set, old: &[Set]) -> Vec<Scale> {
    let pods = total(old) + new.replicas;
    // What the new set has not made available yet must not be counted as a reason to remove what works.
    let new_unavailable = new.replicas - new.staying();
    let most = pods - goal.min_available() - new_unavailable;
    if most <= 0 || total(old) == 0 {
        return Vec::new();
    }
    let mut sizes: Vec<Set> = old.to_vec();

    // Unhealthy replicas first: they serve nobody, and would block the rollout.
    let mut left = most;
    for set in &mut sizes {
        let unhealthy = (set.replicas - set.staying()).clamp(0, left);
        set.replicas -= unhealthy;
        left -= unhealthy;
    }

    // Then as many healthy ones as availability allows.
    let available: i32 = sizes.iter().chain([new]).map(Set::staying).sum();
    let mut spare = available - goal.min_available();
    for set in &mut sizes {
        let less = set.replicas.clamp(0, spare.max(0));
        set.replicas -= less;
        spare -= less;
    }
    changes(old, &sizes)
}

fn changes(before: &[Set], after: &[Set]) -> Vec<Scale> {
    before
        .iter()
        .zip(after)
        .filter(|(before, after)| before.replicas != after.replicas)
        .map(|(_, after)| Scale { name: after.name.clone(), to: after.replicas })
        .collect()
}

/// Whether the new set has everything that the Deployment wants.
fn is_saturated(goal: &Goal, new: &Set) -> bool {
    new.replicas == goal.replicas && new.desired == Some(goal.replicas) && new.available == goal.replicas
}

/// Whether the Deployment's size changed since its sets were last scaled. Where it recreates and several sets have Pods there is nothing to
/// scale in proportion: all but the new one end first. (Upstream calls that scaling, does nothing, and does so for ever.)
pub(super) fn is_scaling(goal: &Goal, sets: &[Set]) -> bool {
    let active: Vec<&Set> = sets.iter().filter(|set| set.replicas > 0).collect();
    (goal.rolling || active.len() <= 1)
        && active.iter().any(|set| set.desired.is_some_and(|desired| desired != goal.replicas))
}

/// What scaling does to the sets, new and old (oldest first): in the middle of a rollout, or while it is paused, each
/// grows or shrinks in proportion, so that a bad template does not gain ground by scaling.
///
/// The answer holds every set that must carry the new size in its annotations, even where its own size stays.
pub(super) fn scale(goal: &Goal, new: Option<&Set>, old: &[Set], current: i32) -> Vec<Scale> {
    let to = |set: &Set, to: i32| Scale { name: set.name.clone(), to };
    let mut active: Vec<&Set> = old.iter().chain(new).filter(|set| set.replicas > 0).collect();
    if active.len() <= 1 {
        let only = active.first().copied().or(new).or(old.last());
        return only.map(|set| to(set, goal.replicas)).into_iter().collect();
    }
    if new.is_some_and(|new| is_saturated(goal, new)) {
        return old.iter().filter(|set| set.replicas > 0).map(|set| to(set, 0)).collect();
    }
    if !goal.rolling {
        return Vec::new();
    }
    let allowed = if goal.replicas > 0 { goal.max() } else { 0 };
    let add = allowed - active.iter().map(|set| set.replicas).sum::<i32>();
    // The largest first. Of equals the newest grows first and the oldest shrinks first; the input is oldest first.
    if add > 0 {
        active.reverse();
    }
    active.sort_by_key(|set| std::cmp::Reverse(set.replicas));

    let mut added = 0;
    let mut sizes: Vec<Scale> = active
        .iter()
        .map(|set| {
            let share = share(goal, set, current, add, added);
            added += share;
            to(set, set.replicas + share)
        })
        .collect();
    if let Some(largest) = sizes.first_mut() {
        largest.to = (largest.to + add - added).max(0);
    }
    sizes
}

/// A set's part of the `add` replicas that are to be added (or removed), of which `added` are given away.
fn share(goal: &Goal, set: &Set, current: i32, add: i32, added: i32) -> i32 {
    let left = add - added;
    if left == 0 {
        return 0;
    }
    let fraction = if goal.replicas == 0 {
        -set.replicas
    } else {
        match set.max.filter(|max| *max > 0).unwrap_or(current) {
            0 => 0,
            before => {
                let size = f64::from(set.replicas) * f64::from(goal.max()) / f64::from(before);
                size.round() as i32 - set.replicas
            }
        }
    };
    if add > 0 { fraction.min(left).max(0) } else { fraction.max(left).min(0) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
