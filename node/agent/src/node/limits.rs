//! How many Pods a node can have: what of its machine runs out first.

use super::meminfo;

/// Files that are not Pods': connections, volumes, what guests open. A fifth of all, and this at the least.
const OTHER_FILES: u64 = 256;
/// What a Pod takes in agent and control plane together, by measurement (tests/bench, `density`), and what the kernel holds for it.
const MEMORY_OF_POD: u64 = 256 << 10;
/// A node's addresses: its share of the cluster's is a /18.
const ADDRESSES: u64 = (1 << 14) - 3;

/// How many Pods a node can have, and what they would run out of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodLimit {
    /// As the node's capacity `pods`.
    pub pods: i64,
    /// What bounds it: `open files`, `memory` or `addresses`.
    pub by: &'static str,
}

impl PodLimit {
    /// That of each of the `nodes` of this machine and process, where a Pod holds so many open files while nothing is asked of it.
    /// A figure that cannot be read bounds nothing.
    #[must_use]
    pub fn detect(nodes: u16, files_of_pod: u64) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let memory = meminfo("MemTotal").and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(u64::MAX);
        Self::of(nodes, files_of_pod, files, memory)
    }

    /// `files`: how many this process may have open. `memory`: the machine's, bytes.
    fn of(nodes: u16, files_of_pod: u64, files: u64, memory: u64) -> Self {
        let nodes = u64::from(nodes.max(1));
        let by_files = files.saturating_sub((files / 5).max(OTHER_FILES)).checked_div(files_of_pod).unwrap_or(u64::MAX);
        let by_memory = memory / 4 * 3 / MEMORY_OF_POD;
        let bounds = [("open files", by_files / nodes), ("memory", by_memory / nodes), ("addresses", ADDRESSES)];
        let (by, pods) = bounds.into_iter().min_by_key(|(_, pods)| *pods).unwrap_or(("addresses", ADDRESSES));
        Self { pods: i64::try_from(pods).unwrap_or(i64::MAX), by }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_out_first_bounds_the_pods() {
        assert_eq!(PodLimit::of(1, 1, 20_000, 24 << 30), PodLimit { pods: 16_000, by: "open files" });
        assert_eq!(PodLimit::of(1, 1, 1 << 20, 24 << 30), PodLimit { pods: 16_381, by: "addresses" });
        assert_eq!(PodLimit::of(1, 1, 1 << 20, 1 << 30), PodLimit { pods: 3072, by: "memory" });
        assert_eq!(PodLimit::of(1, 1, 1024, 1 << 30), PodLimit { pods: 768, by: "open files" });
        assert_eq!(PodLimit::of(1, 1, 100, 1 << 30).pods, 0);
    }

    #[test]
    fn nodes_share_the_machine_and_each_has_addresses_of_its_own() {
        assert_eq!(PodLimit::of(2, 1, 20_000, 24 << 30), PodLimit { pods: 8000, by: "open files" });
        assert_eq!(PodLimit::of(2, 0, 20_000, 24 << 30), PodLimit { pods: 16_381, by: "addresses" });
        assert_eq!(PodLimit::of(8, 0, 20_000, 24 << 30), PodLimit { pods: 9216, by: "memory" });
        assert_eq!(PodLimit::of(0, 0, 20_000, 24 << 30), PodLimit::of(1, 0, 20_000, 24 << 30));
    }
}
