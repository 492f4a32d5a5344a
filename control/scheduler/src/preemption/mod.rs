//! Preemption: whether Pods of lower priority could leave a node for a Pod that fits nowhere, and which ones.
//!
//! ```text
//!  the nodes whose Pods are in the way ──▶ on each: who must leave (victims) ──▶ the node where that costs the least
//! ```
//! Guarantees
//! - Nobody leaves for a Pod of the same or a lower priority.
//! - With the victims gone the Pod fits, and with any one of them back it would not.
//! - A disruption budget is broken only where every other node would break one too.
//!
//! Pure. Upstream: the plugin DefaultPreemption, with its order and its texts; other than there, a budget with an empty
//! selector covers all Pods of its namespace, as `policy/v1` documents it.

mod budgets;
mod victims;

use std::{cmp::Reverse, sync::Arc};

use k8s_openapi::{api::policy::v1::PodDisruptionBudget, jiff::Timestamp};

use crate::{
    cluster::Cluster,
    decide::Reasons,
    filters::{Cycle, Rejection},
    pod::PodInfo,
};
use budgets::Budget;

/// Of so many candidates the best is chosen, or of a tenth of the nodes if that is more.
const ENOUGH: usize = 100;

/// A node, and who must leave it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node: String,
    /// The most important one first.
    pub(crate) victims: Vec<Arc<PodInfo>>,
    /// How many of the victims break a disruption budget.
    pub(crate) violations: usize,
}

/// What becomes of the node on which the Pod is awaited.
#[derive(Debug, Clone)]
pub(crate) enum Nomination {
    /// Nothing: room is being made already, or none may be made.
    Keep,
    /// Room cannot be made: it is awaited nowhere.
    Clear,
    /// Room is to be made there.
    On(Candidate),
}

/// What was found.
#[derive(Debug, Clone)]
pub(crate) struct Preemption {
    /// Why nobody leaves, as `kubectl describe` shows it.
    pub(crate) message: Option<String>,
    pub(crate) nomination: Nomination,
}

/// Finds out who could leave for a Pod that fits nowhere. `resolvable` are the nodes whose Pods are in the way; `turn` says
/// where to begin among them.
pub(crate) fn preempt(
    cluster: &Cluster,
    pod: &PodInfo,
    resolvable: &[String],
    budgets: &[Arc<PodDisruptionBudget>],
    turn: u64,
) -> Preemption {
    let nodes = cluster.known().count();
    if nodes == 0 {
        return Preemption { message: None, nomination: Nomination::Clear };
    }
    if let Some(why) = ineligible(cluster, pod, resolvable) {
        return Preemption { message: Some(format!("preemption: {why}")), nomination: Nomination::Keep };
    }
    let (candidates, mut reasons) = candidates(cluster, pod, resolvable, budgets, turn);
    if let Some(best) = candidates.into_iter().min_by_key(cost) {
        return Preemption { message: None, nomination: Nomination::On(best) };
    }
    let helpless = nodes.saturating_sub(resolvable.len());
    if helpless > 0 {
        reasons.add(vec!["Preemption is not helpful for scheduling".to_owned()], helpless);
    }
    let message = format!("preemption: {}", reasons.message(nodes));
    Preemption { message: Some(message), nomination: Nomination::Clear }
}

/// Why nobody may be asked to leave for the Pod now.
fn ineligible(cluster: &Cluster, pod: &PodInfo, resolvable: &[String]) -> Option<&'static str> {
    if !pod.preempts {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let awaited = cluster.nominations.of(&pod.uid)?;
    // Where the node itself came to be in the way, another is looked for.
    if !resolvable.iter().any(|node| node == awaited) {
        return None;
    }
    let mut pods = cluster.nodes.get(awaited)?.pods.values();
    pods.any(|other| other.priority < pod.priority && cluster.is_preempted(other))
        .then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The nodes where room can be made, and why it cannot on the others; those first that break no budget.
fn candidates(
    cluster: &Cluster,
    pod: &PodInfo,
    resolvable: &[String],
    budgets: &[Arc<PodDisruptionBudget>],
    turn: u64,
) -> (Vec<Candidate>, Reasons) {
    let mut reasons = Reasons::default();
    let Some(start) = turn.checked_rem(resolvable.len() as u64) else {
        return (Vec::new(), reasons);
    };
    let start = usize::try_from(start).unwrap_or_default();
    let enough = (resolvable.len() / 10).max(ENOUGH);
    let budgets: Vec<Budget> = budgets.iter().map(|budget| Budget::new(budget)).collect();
    let cycle = Cycle::new(cluster, pod);
    let (mut harmless, mut harmful) = (Vec::new(), Vec::new());
    let names = resolvable[start..].iter().chain(&resolvable[..start]);
    for node in names.filter_map(|name| cluster.nodes.get(name)) {
        match victims::on(&cycle, node, &budgets) {
            Ok(candidate) if candidate.violations == 0 => harmless.push(candidate),
            Ok(candidate) => harmful.push(candidate),
            Err(Rejection { reasons: why, .. }) => reasons.add(why, 1),
        }
        if !harmless.is_empty() && harmless.len() + harmful.len() >= enough {
            break;
        }
    }
    harmless.append(&mut harmful);
    (harmless, reasons)
}

/// What is compared of candidates, in upstream's order: budgets broken, the highest priority of a victim, the sum of their
/// priorities, their number, and how long the most important of them have run.
fn cost(candidate: &Candidate) -> (usize, Option<i32>, i64, usize, Reverse<Timestamp>) {
    let victims = &candidate.victims;
    let highest = victims.iter().map(|victim| victim.priority).max();
    // All addends are positive, so that few victims of a negative priority cost less than many.
    let sum = victims.iter().map(|victim| i64::from(victim.priority) + (1 << 31)).sum();
    let first = victims.iter().filter(|victim| Some(victim.priority) == highest).map(|victim| since(victim)).min();
    (candidate.violations, highest, sum, victims.len(), Reverse(first.unwrap_or(Timestamp::MAX)))
}

/// Since when a Pod runs; one that has not begun is the youngest.
fn since(pod: &PodInfo) -> Timestamp {
    pod.started.unwrap_or(Timestamp::MAX)
}
