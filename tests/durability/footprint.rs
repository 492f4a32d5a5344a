//! What a cluster takes of its machine, counted: files, mounts, namespaces and what is in them, control groups, snapshots,
//! processes; and of its own process descriptors, threads and memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use wherry_test::{Child, Cluster, PATIENCE};

use crate::traces;

/// How many there are of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footprint(BTreeMap<&'static str, usize>);

impl Footprint {
    /// What belongs to the cluster, whatever process runs it. `uids`: of all Pods that there have been.
    pub(crate) fn outside(cluster: &Cluster, uids: &[String]) -> anyhow::Result<Self> {
        let dir = cluster.data_dir().canonicalize()?;
        let count = |path: &Path| fs::read_dir(path).map(Iterator::count).unwrap_or_default();
        let network = dir.join("network");
        let nodes: Vec<_> = fs::read_dir(dir.join("nodes"))?.flatten().map(|node| node.file_name()).collect();
        let of_nodes = |path: &str| nodes.iter().map(|node| count(&dir.join("nodes").join(node).join(path))).sum();
        let in_nodes = |command: &[&str]| -> anyhow::Result<usize> {
            nodes.iter().map(|node| inside(&network.join("nodes").join(node), command)).sum()
        };
        let memory = traces::memory(&dir);
        let in_memory = |what: &str, node: &std::ffi::OsStr| {
            memory.as_deref().map_or(0, |memory| count(&memory.join(what).join(node)))
        };
        let pins = traces::mounts(Path::new("/run/wherry"));
        let pins = pins.into_iter().filter(|mount| mount.starts_with("/run/wherry/subpaths-"));
        Ok(Self(BTreeMap::from([
            ("mounts", traces::mounts(&dir).len()),
            ("pinned subPaths", pins.count()),
            ("places in memory", usize::from(memory.is_some())),
            ("Pods with volumes in memory", nodes.iter().map(|node| in_memory("nodes", node)).sum()),
            ("staged copies in memory", memory.as_deref().map_or(0, |memory| files(&memory.join("wasm")))),
            ("links of the machine", traces::rules().1.len()),
            ("links of the fabric", inside(&network.join("fabric"), &["ip", "-o", "link"])?),
            ("links of the nodes", in_nodes(&["ip", "-o", "link"])?),
            // Of IPv4: the kernel adds an interface's own of IPv6 once it has made sure of the address, a moment later.
            ("routes of the nodes", in_nodes(&["ip", "-4", "-o", "route", "show", "table", "all"])?),
            ("packet rules of the nodes", in_nodes(&["nft", "list", "ruleset"])?),
            ("control groups", traces::cgroups(uids).len()),
            ("processes", traces::processes(&dir.to_string_lossy()).len()),
            ("snapshots", count(&cluster.snapshots())),
            ("directories of containers", of_nodes("containers")),
            ("directories of Pods", of_nodes("pods")),
            ("files of the network", files(&network)),
            ("staged files of modules", files(&dir.join("wasm/mounts"))),
        ])))
    }

    /// All of it.
    pub(crate) fn whole(cluster: &Cluster, uids: &[String]) -> anyhow::Result<Self> {
        let mut found = Self::outside(cluster, uids)?;
        let id = cluster.process().map(Child::id).context("the cluster does not run")?;
        let descriptors = fs::read_dir(format!("/proc/{id}/fd"))?.flatten();
        let named = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        let (sockets, others): (Vec<_>, Vec<_>) = named.partition(|name| name.to_string_lossy().starts_with("socket:"));
        found.0.extend([("open sockets", sockets.len()), ("other open files", others.len())]);
        Ok(found)
    }

    /// What there is more of than in `before`.
    fn beyond(&self, before: &Self) -> Vec<String> {
        let counts = self.0.iter().map(|(what, count)| (what, *count, before.0.get(what).copied().unwrap_or_default()));
        let more = counts.filter(|(_, count, before)| count > before);
        more.map(|(what, count, before)| format!("{what}: {count} instead of {before}")).collect()
    }
}

/// Waits until there is no more of anything than there was: what ends does so a moment after it was told.
pub(crate) fn no_more_than(
    before: &Footprint,
    mut now: impl FnMut() -> anyhow::Result<Footprint>,
) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let beyond = now()?.beyond(before);
        if beyond.is_empty() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("left behind: {}", beyond.join(", "));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// KiB of memory that are the cluster's process's own.
pub(crate) fn memory(cluster: &Cluster) -> anyhow::Result<u64> {
    let id = cluster.process().map(Child::id).context("the cluster does not run")?;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// How many lines a program prints in a network namespace.
fn inside(netns: &Path, command: &[&str]) -> anyhow::Result<usize> {
    let output = Command::new("nsenter").arg(format!("--net={}", netns.display())).args(command).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).lines().count())
}

/// How many files and directories lie below one.
fn files(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| 1 + if entry.path().is_dir() { files(&entry.path()) } else { 0 }).sum()
}
