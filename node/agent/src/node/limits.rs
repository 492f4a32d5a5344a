//! How many Pods a machine can have: what of it runs out first.

use super::meminfo;

/// A Pod of WebAssembly holds a listener and little else.
const FILES_OF_POD: u64 = 1;
/// Files that are not Pods': connections, volumes, what guests open. A fifth of all, and this at the least.
const OTHER_FILES: u64 = 256;
/// What a Pod takes in agent and control plane together, by measurement (tests/bench, `density`), and what the kernel holds for it.
const MEMORY_OF_POD: u64 = 256 << 10;
/// A node's addresses: its share of the cluster's is a /18.
const ADDRESSES: u64 = (1 << 14) - 3;

/// How many Pods a machine can have, and what they would run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodLimit {
    /// As the capacity `pods` of a node that has the machine for itself.
    pub pods: i64,
    /// What bounds it: `open files`, `memory` or `addresses`.
    pub by: &'static str,
}

impl PodLimit {
    /// That of this machine and process. A figure that cannot be read bounds nothing.
    #[must_use]
    pub fn detect() -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let memory = meminfo("MemTotal").and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(u64::MAX);
        Self::of(files, memory)
    }

    /// `files`: how many this process may have open. `memory`: the machine's, bytes.
    fn of(files: u64, memory: u64) -> Self {
        let by_files = files.saturating_sub((files / 5).max(OTHER_FILES)) / FILES_OF_POD;
        let by_memory = memory / 4 * 3 / MEMORY_OF_POD;
        let bounds = [("open files", by_files), ("memory", by_memory), ("addresses", ADDRESSES)];
        let (by, pods) = bounds.into_iter().min_by_key(|(_, pods)| *pods).unwrap_or(("addresses", ADDRESSES));
        Self { pods: i64::try_from(pods).unwrap_or(i64::MAX), by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_out_first_bounds_the_pods() {
        assert_eq!(PodLimit::of(20_000, 24 << 30), PodLimit { pods: 16_000, by: "open files" });
        assert_eq!(PodLimit::of(1 << 20, 24 << 30), PodLimit { pods: 16_381, by: "addresses" });
        assert_eq!(PodLimit::of(1 << 20, 1 << 30), PodLimit { pods: 3072, by: "memory" });
        assert_eq!(PodLimit::of(1024, 1 << 30), PodLimit { pods: 768, by: "open files" });
        assert_eq!(PodLimit::of(100, 1 << 30).pods, 0);
    }
}
