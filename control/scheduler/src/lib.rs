//! The scheduler: gives each Pod that has none a node.
//!
//! ```text
//!  informers ──▶ Cluster (nodes, their Pods, what is left) ──┐
//!      │                                                     ▼
//!      └──▶ Queue (active, backoff, unschedulable) ──▶ decide: filters, then scores ──▶ assume ──▶ bind (async)
//!                 ▲                                          │ no node fits
//!                 └── moved by events of the cluster ◀───────┴──▶ preempt ──▶ Event, condition PodScheduled=False, victims
//! ```
//! - A decision ([`decide`]) is a pure function of the Pod and the [`Cluster`]. A filter says why a node cannot take the
//!   Pod, a score says how well it could.
//! - A decided Pod counts as placed at once (it is assumed), so the next decision does not wait for the server.
//! - A Pod that fits nowhere waits for an event that could change that; nothing is tried again by the clock alone.
//! - Pods of lower priority may have to leave for it (`preemption`, pure as well); until it has its node it is awaited there
//!   (`nominations`), and Pods of no higher priority leave it that room.

mod alike;
mod bind;
mod cluster;
mod decide;
mod filters;
mod matching;
mod nominations;
mod pod;
mod preemption;
mod queue;
mod scheduler;
mod scores;
mod storage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use cluster::Cluster;
pub use decide::{Decision, decide};
pub use pod::PodInfo;
pub use scheduler::{Config, ImageKinds, Kind, Scheduler};
