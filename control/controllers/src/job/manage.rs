//! How many Pods a Job lacks, of which indexes, and which it can do without. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};

use super::{
    account::Account,
    backoff,
    policies::Verdict,
    view::{Pods, Settings, earlier_failures, ended, index, is_tracked},
};
use crate::{
    counts::{count, saturate},
    hand::BURST,
    pods,
    replicaset::least_missed,
};

/// A Pod to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) index: Option<i32>,
    /// How often its index has failed before: counted, ignored. None where the Job does not count by index.
    pub(super) failures: Option<(i32, i32)>,
}

/// The steps that bring the Job to its size.
#[derive(Debug, Default)]
pub(super) struct Steps {
    pub(super) create: Vec<Slot>,
    /// Pods that are not wanted any more; that they end says nothing about the Job.
    pub(super) dismiss: Vec<Arc<Pod>>,
    /// When backoff allows more.
    pub(super) again: Option<Duration>,
}

/// Decides for a Job that is not finished.
pub(super) fn manage(settings: &Settings<'_>, pods: &Pods, account: &Account, now: Timestamp) -> Steps {
    if settings.suspended {
        return Steps { dismiss: pods.active.iter().take(BURST).cloned().collect(), ..Steps::default() };
    }
    let active = saturate(pods.active.len());
    let succeeded = account.succeeded(settings);
    let wanted = match settings.completions {
        Some(completions) => (completions - succeeded).clamp(0, settings.parallelism),
        // Any success says that the work is done: who is at it may finish.
        None if succeeded > 0 => active.min(settings.parallelism),
        None => settings.parallelism,
    };
    let surplus = surplus(settings, &pods.active, count(active - wanted), now);
    if !surplus.is_empty() {
        return Steps { dismiss: surplus.into_iter().take(BURST).collect(), ..Steps::default() };
    }
    let ending = if settings.patient { saturate(pods.terminating.len()) } else { 0 };
    let lacking = count(wanted - active - ending).min(BURST);
    if lacking == 0 {
        return Steps::default();
    }
    if settings.per_index.is_none()
        && let Some(left) = backoff::of_job(&pods.all, now)
    {
        return Steps { again: Some(left), ..Steps::default() };
    }
    match settings.completions.filter(|_| settings.indexed) {
        None => Steps { create: vec![Slot::default(); lacking], ..Steps::default() },
        Some(completions) => fill(settings, pods, account, completions, lacking, now),
    }
}

/// The first pending indexes, as many as there is room for.
fn fill(
    settings: &Settings<'_>,
    pods: &Pods,
    account: &Account,
    completions: i32,
    lacking: usize,
    now: Timestamp,
) -> Steps {
    let ending = pods.terminating.iter().filter(|_| settings.patient);
    let taken: BTreeSet<i32> = pods.active.iter().chain(ending).filter_map(|pod| index(pod)).collect();
    let last = last_failures(settings, pods);
    let mut steps = Steps::default();
    let pending = (0..completions)
        .filter(|n| !taken.contains(n) && !account.completed.contains(n) && !account.given_up.contains(n));
    for n in pending {
        if steps.create.len() == lacking {
            break;
        }
        let mut slot = Slot { index: Some(n), failures: settings.per_index.map(|_| (0, 0)) };
        if let Some(pod) = last.get(&n) {
            let (mut counted, mut ignored) = earlier_failures(pod);
            if settings.verdict(pod) == Verdict::Ignore {
                ignored += 1
            } else {
                counted += 1
            }
            slot.failures = Some((counted, ignored));
            let failures = u32::try_from(counted + ignored).unwrap_or(0);
            if let Some(left) = backoff::left(failures, ended(pod).unwrap_or(now), now) {
                steps.again = Some(steps.again.map_or(left, |again| again.min(left)));
                continue;
            }
        }
        steps.create.push(slot);
    }
    steps
}

/// The last Pod of each index that failed, where failures are counted by index. It is tracked until the next one carries its
/// count on; one that was dismissed is not, and did not fail.
pub(super) fn last_failures(settings: &Settings<'_>, pods: &Pods) -> BTreeMap<i32, Arc<Pod>> {
    let mut last: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
    if settings.per_index.is_none() {
        return last;
    }
    let total = |pod: &Pod| {
        let (counted, ignored) = earlier_failures(pod);
        (counted + ignored, pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
    };
    for pod in pods.all.iter().filter(|pod| is_tracked(pod) && settings.has_failed(pod)) {
        if let Some(n) = settings.valid_index(pod)
            && last.get(&n).is_none_or(|known| total(known) < total(pod))
        {
            last.insert(n, pod.clone());
        }
    }
    last
}

/// At least `least` Pods that should go: first those of indexes that are not wanted, or have another Pod; then those that are
/// missed least.
fn surplus(settings: &Settings<'_>, active: &[Arc<Pod>], least: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let ranked = least_missed(active, &[], now);
    let mut going = Vec::new();
    let mut staying = Vec::new();
    if settings.indexed {
        let mut seen = BTreeSet::new();
        // From behind: of two with an index, the one that is missed more stays.
        for pod in ranked.into_iter().rev() {
            match settings.valid_index(&pod) {
                Some(n) if seen.insert(n) => staying.push(pod),
                _ => going.push(pod),
            }
        }
        staying.reverse();
    } else {
        staying = ranked;
    }
    let more = least.saturating_sub(going.len());
    going.extend(staying.into_iter().take(more));
    going
}

/// How often the containers of Pods that still live were restarted: failures that count where Pods restart in place.
pub(super) fn restarts(active: &[Arc<Pod>]) -> i32 {
    let running = active.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let statuses = running.flat_map(|pod| pod.status.iter()).flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    });
    statuses.map(|container| container.restart_count).sum()
}
