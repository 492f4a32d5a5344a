//! What containers use.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Use of resources by one container, its own: never its runtime's or its agent's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// When it started; none where that is not known.
    pub started_at: Option<SystemTime>,
    /// CPU time used, nanoseconds.
    pub cpu_nanos: u64,
    /// How `limits.cpu` held it back; none without a limit.
    pub throttling: Option<Throttling>,
    /// Memory.
    pub memory: MemoryUse,
    /// What its sockets have carried, where the runtime makes them itself. A container in a network namespace is counted there.
    pub traffic: Option<Traffic>,
    /// HTTP requests that came to it since it started, but for those of probes; none where the runtime does not see requests.
    pub requests: Option<u64>,
}

/// Memory held by one container, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// All that is charged to it, caches of files included.
    pub usage: u64,
    /// What cannot be reclaimed at once: usage without inactive file pages.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Pages of files.
    pub cache: u64,
    /// Swapped out.
    pub swap: u64,
    /// Page faults so far.
    pub page_faults: u64,
    /// Page faults so far that had to read.
    pub major_page_faults: u64,
}

/// How often a container had used up its CPU time, since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    /// Periods in which it ran.
    pub periods: u64,
    /// Periods in which it had to wait.
    pub throttled_periods: u64,
    /// How long it has waited, nanoseconds.
    pub throttled_nanos: u64,
}

/// What a network has carried, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Received.
    pub received: Carried,
    /// Sent.
    pub sent: Carried,
}

/// What was carried in one direction. Sockets count bytes alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets in error.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// Use of a filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskUse {
    /// Bytes.
    pub bytes: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.sent += other.sent;
    }
}

impl std::ops::AddAssign for Carried {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.packets += other.packets;
        self.errors += other.errors;
        self.dropped += other.dropped;
    }
}

impl std::ops::AddAssign for DiskUse {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}
