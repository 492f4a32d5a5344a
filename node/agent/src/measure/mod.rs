//! What the node, its Pods and their containers use: sampled when somebody asks, the same for both kinds. What a Pod has on the disk
//! is walked ([`LocalFiles`]).
//!
//! ```text
//!  GET /metrics, /metrics/resource, /metrics/cadvisor, /stats/summary, /usage
//!        └► Meter ─► Runtime::stats of every live run, the kernel's counters of the Pods' links, /proc
//!  GET /connections
//!        └► Connections ─► the kernel's counters of Services
//! ```
//!
//! # Guarantees
//! - Nothing is measured while nobody asks: no timer, no task. (The driver asks when a node is short.)
//! - Figures are at most half a second old; those who ask at once share one measurement.
//! - A rate is over ten seconds or more where somebody asked within the last two minutes, else over the second that the first
//!   asker waits.

mod cadvisor;
mod connections;
mod kubelet;
mod local;
mod machine;
mod points;
mod resource;
mod sample;
mod summary;
mod usage;

pub(crate) use cadvisor::write as cadvisor;
pub(crate) use connections::Connections;
pub(crate) use kubelet::write as kubelet;
pub(crate) use local::LocalFiles;
pub(crate) use machine::{Machine, MachineSupply, filesystem};
pub(crate) use resource::write as resource;
pub(crate) use sample::{ContainerSample, Meter, PodSample, Sample};
pub(crate) use summary::document as summary;
pub(crate) use usage::document as usage;

/// Nanoseconds as seconds.
#[allow(clippy::cast_precision_loss, reason = "a century of nanoseconds is told to the microsecond")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// A count for a metric.
#[allow(clippy::cast_precision_loss, reason = "counts beyond 2^53 are told to the nearest that a float can say")]
fn float(count: u64) -> f64 {
    count as f64
}
