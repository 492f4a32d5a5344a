//! What the machine itself uses, as its kernel tells it.

use std::path::{Path, PathBuf};

use wherry_runtime::MemoryUse;

use crate::node::{Capacity, meminfo};
use crate::ports::{Amount, Left, Supply};

/// The kernel counts CPU time for user space in hundredths of a second, on every architecture.
const NANOS_PER_TICK: u64 = 10_000_000;

/// The machine that a node runs on.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) capacity: Capacity,
    /// The node has a part of it only: then what is used beside the node's Pods is no node's.
    pub(crate) shared: bool,
    pub(crate) data_dir: PathBuf,
}

/// A filesystem.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filesystem {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
}

impl Machine {
    pub(crate) fn new(capacity: Capacity, data_dir: &Path) -> Self {
        let shared = capacity.cpu_millis < Capacity::detect(data_dir).cpu_millis;
        Self { capacity, shared, data_dir: data_dir.to_owned() }
    }

    /// CPU time that all processes have used since the machine started, nanoseconds.
    pub(crate) fn cpu_nanos() -> u64 {
        cpu_nanos(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// Memory in use by anything.
    pub(crate) fn memory() -> MemoryUse {
        let of = |name: &str| meminfo(name).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
        let usage = of("MemTotal").saturating_sub(of("MemFree"));
        MemoryUse {
            usage,
            working_set: usage.saturating_sub(of("Inactive(file)")),
            rss: of("AnonPages"),
            cache: of("Cached"),
            swap: of("SwapTotal").saturating_sub(of("SwapFree")),
            ..MemoryUse::default()
        }
    }

    /// The filesystem of the node's data: Pods' files, logs and images.
    pub(crate) fn filesystem(&self) -> Option<Filesystem> {
        filesystem(&self.data_dir)
    }
}

/// The filesystem of a directory. Its capacity is what is used and what can still be had, as `df` counts it: of a filesystem's size much
/// may be reserved, or beyond a quota.
pub(crate) fn filesystem(dir: &Path) -> Option<Filesystem> {
    let fs = nix::sys::statvfs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(fs.fragment_size());
    let (used, available) = (bytes(fs.blocks().saturating_sub(fs.blocks_free())), bytes(fs.blocks_available()));
    Some(Filesystem {
        capacity: used + available,
        available,
        used,
        inodes: fs.files(),
        inodes_free: fs.files_available(),
    })
}

/// What the machine of a node has left, as its kernel tells.
pub(crate) struct MachineSupply {
    data_dir: PathBuf,
}

impl MachineSupply {
    /// The machine, with the filesystem of this directory.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }
}

impl Supply for MachineSupply {
    /// Of memory, what the kernel believes that new programs could have: caches can be given up.
    fn left(&self) -> Left {
        let bytes = |name: &str| meminfo(name).and_then(|bytes| u64::try_from(bytes).ok());
        let memory = bytes("MemAvailable").zip(bytes("MemTotal"));
        let fs = filesystem(&self.data_dir);
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let most = read("/proc/sys/kernel/pid_max").and_then(|text| text.trim().parse::<u64>().ok());
        let load = read("/proc/loadavg");
        let used = load.and_then(|text| text.split_whitespace().nth(3)?.split('/').nth(1)?.parse::<u64>().ok());
        let amount = |(available, capacity): (u64, u64)| (capacity > 0).then_some(Amount { available, capacity });
        Left {
            memory: memory.and_then(amount),
            disk: fs.map(|fs| (fs.available, fs.capacity)).and_then(amount),
            inodes: fs.map(|fs| (fs.inodes_free, fs.inodes)).and_then(amount),
            pids: most.zip(used).and_then(|(most, used)| amount((most.saturating_sub(used), most))),
        }
    }
}

/// From `/proc/stat`: user, nice, system, irq, softirq and steal; guests' time is in user's.
fn cpu_nanos(stat: &str) -> u64 {
    let Some(line) = stat.lines().find_map(|line| line.strip_prefix("cpu ")) else { return 0 };
    let ticks: Vec<u64> = line.split_whitespace().map(|ticks| ticks.parse().unwrap_or(0)).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|place| ticks.get(*place)).sum::<u64>() * NANOS_PER_TICK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_used_time() {
        assert_eq!(cpu_nanos("cpu  100 20 30 9999 8888 4 5 6 77 0\ncpu0 1 1 1 1\n"), 165 * NANOS_PER_TICK);
        assert_eq!(cpu_nanos(""), 0);
        assert!(Machine::cpu_nanos() > 0 && Machine::memory().working_set > 0);
    }

    #[test]
    fn the_machine_tells_what_it_has_left() {
        let Left { memory, disk, inodes, pids } = MachineSupply::new(Path::new("/")).left();
        for amount in [memory, disk, pids].into_iter().chain(inodes.map(Some)) {
            assert!(amount.is_some_and(|amount| (1..=amount.capacity).contains(&amount.available)), "{amount:?}");
        }
    }
}
