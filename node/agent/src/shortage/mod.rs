//! When a node or a Pod has used up what it may have: the decisions, as pure functions. What they are made of is measured by
//! [`measure`](crate::measure), the driver carries them out.
//!
//! ```text
//!  local files of a Pod ─► limits: has it outgrown one?          ─► eviction of that Pod
//!  the disk             ─► images: is it too full?               ─► images that nobody uses go
//!  what is left         ─► threshold: is it too little?          ─► pressure: conditions, who is still taken
//!  what Pods use        ─► rank: who goes first, and why         ─► eviction of one Pod
//! ```
//!
//! # Guarantees
//! - Nobody is chosen of whom is not known what it uses, or who gives nothing back.
//! - A Pod that the cluster itself is made of ([`is_critical`]) is never chosen.

mod images;
mod limits;
mod pressure;
mod rank;
mod threshold;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

pub use images::ImageGc;
pub(crate) use limits::{LocalLimits, LocalUse, disk_volumes};
pub(crate) use pressure::{Observed, Pressure};
pub(crate) use rank::{Candidate, first};
pub(crate) use threshold::{Met, Resource, short_of};
pub use threshold::{ThresholdError, Thresholds};

/// What a node does when it runs short.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortageOptions {
    /// How much of what has to be left.
    pub eviction_hard: Thresholds,
    /// How long a node is told to be short after it was.
    pub transition_period: Duration,
    /// When images are collected.
    pub image_gc: ImageGc,
}

impl Default for ShortageOptions {
    fn default() -> Self {
        Self {
            eviction_hard: Thresholds::default(),
            transition_period: Duration::from_secs(300),
            image_gc: ImageGc::default(),
        }
    }
}

/// The `status.reason` of a Pod that had to go, and of the Event that tells it.
pub(crate) const EVICTED: &str = "Evicted";

/// From this priority on a Pod is one of those that the cluster itself is made of; users' are below.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// Whether a Pod stays whatever its node is short of.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.priority).is_some_and(|priority| priority >= SYSTEM_CRITICAL)
}
