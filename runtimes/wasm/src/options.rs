//! What a node lets the Wasm runtime use.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

/// How a [`WasmRuntime`](crate::WasmRuntime) is set up. [`Options::new`] sizes everything from the machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// Compiled code is kept here (made with mode 0700), and so is the key that authenticates it.
    pub cache_dir: PathBuf,
    /// Copies of files that containers may only read are made here: in memory, where the node has a place for them there. In
    /// `cache_dir` where none.
    pub copies_dir: Option<PathBuf>,
    /// Threads that run guests, and as many that compile.
    pub threads: usize,
    /// Linear memory of all guests together, bytes.
    pub memory_bytes: u64,
    /// Instances alive at once (each a container's, or a request's).
    pub instances: u32,
    /// Requests that one served container works on at once; more wait.
    pub concurrent_requests: usize,
    /// Requests that wait for one served container; more are answered 503.
    pub queued_requests: usize,
    /// Connections that one served container holds; more wait in the kernel.
    pub connections: usize,
    /// Outgoing `wasi:http` requests that one container has at once; more fail.
    pub outgoing_requests: usize,
    /// Handles of one instance: sockets, streams, bodies, files.
    pub handles: usize,
    /// Files and directories that all instances of one container have open; more are refused.
    pub files: usize,
    /// Sockets that all instances of one container have; more are refused.
    pub sockets: usize,
    /// The largest module or component that is read, bytes.
    pub image_bytes: u64,
    /// Compiled code kept on disk, bytes; beyond, what was used least lately goes.
    pub cache_bytes: u64,
}

impl Options {
    /// Options for this machine.
    #[must_use]
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        let ram = ram_bytes();
        Self {
            cache_dir: cache_dir.into(),
            copies_dir: None,
            threads: available_parallelism().map_or(1, NonZeroUsize::get),
            memory_bytes: ram / 4 * 3,
            instances: instances(ram, max_map_count(), address_space()),
            concurrent_requests: 128,
            queued_requests: 1024,
            connections: 1024,
            outgoing_requests: 256,
            handles: share(open_files()),
            files: share(open_files()),
            sockets: share(open_files()),
            image_bytes: 128 << 20,
            cache_bytes: 4 << 30,
        }
    }
}

/// Each pooled instance takes up to four of the process's `map_count` mappings, and the addresses of a whole linear memory (4 GiB and what
/// guards it); a quarter is left to everything else.
fn instances(ram: u64, max_map_count: u64, address_space: u64) -> u32 {
    let by_memory = ram / (2 << 20);
    let by_mappings = max_map_count / 16 * 3;
    let by_addresses = address_space / 4 * 3 / ((4 << 30) + (64 << 20));
    u32::try_from(by_memory.min(by_mappings).min(by_addresses).clamp(64, 16_000)).unwrap_or(64)
}

/// What one container may have of the files that this process may have open: sockets are files, too.
fn share(open_files: u64) -> usize {
    usize::try_from((open_files / 16).clamp(256, 16 << 10)).unwrap_or(256)
}

/// Bytes of addresses that this process may use: of the 128 TiB that a process has.
fn address_space() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
    limit.unwrap_or(u64::MAX).min(1 << 47)
}

/// Files that this process may come to have open.
fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

fn ram_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or(1 << 30, |kib| kib << 10)
}

fn max_map_count() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    text.trim().parse().unwrap_or(65_530)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_fit_the_machine() {
        assert_eq!(instances(24 << 30, 65_530, 1 << 47), 12_285, "bounded by mappings");
        assert_eq!(instances(1 << 30, 65_530, 1 << 47), 512, "bounded by memory");
        assert_eq!(
            instances(64 << 30, 1 << 20, 1 << 47),
            16_000,
            "all of them have room in what a process can address"
        );
        assert_eq!(instances(24 << 30, 262_144, 1 << 40), 189, "bounded by addresses");
        assert_eq!(instances(0, 0, 0), 64);
    }

    #[test]
    fn no_guest_may_have_all_open_files() {
        assert_eq!((share(20_000), share(1 << 20), share(256)), (1250, 16 << 10, 256));
    }
}
