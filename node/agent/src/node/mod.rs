//! The Node object: registration ([`register`]), heartbeat and lease ([`heartbeat`]), what the machine has ([`Capacity`]) and what
//! others say it has ([`extended`]), how many Pods that is enough for ([`limits`]), for which Services its connections wait
//! ([`waking`]).

pub(crate) mod extended;
pub(crate) mod feed;
pub(crate) mod heartbeat;
pub(crate) mod limits;
pub(crate) mod local_path;
pub(crate) mod register;
pub(crate) mod waking;

use std::path::Path;

use crate::measure::filesystem;
use limits::PodLimit;

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_millis: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes of the filesystem that holds the data directory.
    pub storage_bytes: i64,
    /// How many Pods it takes.
    pub pods: i64,
}

impl Capacity {
    /// What this machine has; as many Pods as it takes where each holds an open file.
    #[must_use]
    pub fn detect(data_dir: &Path) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let storage = filesystem(data_dir).map_or(0, |fs| fs.capacity);
        Self {
            cpu_millis: i64::try_from(cores).unwrap_or(1) * 1000,
            memory_bytes: meminfo("MemTotal").unwrap_or(0),
            storage_bytes: i64::try_from(storage).unwrap_or(i64::MAX),
            pods: PodLimit::detect(1, 1).pods,
        }
    }

    /// An equal share, where several nodes are one machine.
    #[must_use]
    pub fn share(&self, nodes: u16) -> Self {
        let nodes = i64::from(nodes.max(1));
        Self {
            cpu_millis: self.cpu_millis / nodes,
            memory_bytes: self.memory_bytes / nodes,
            storage_bytes: self.storage_bytes / nodes,
            pods: self.pods / nodes,
        }
    }
}

/// A figure of `/proc/meminfo`, in bytes.
pub(crate) fn meminfo(name: &str) -> Option<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}
