//! What a cluster leaves on the machine: processes, mounts, control groups, rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Processes whose command line names `needle`, or whose control group does.
pub(crate) fn processes(needle: &str) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let group = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if line.contains(needle) || group.contains(needle) {
            found.push((pid, line));
        }
    }
    found.sort();
    found
}

/// Mount points below `dir`.
pub(crate) fn mounts(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect()
}

/// Where the cluster's place in memory is mounted, whose source names its data directory.
pub(crate) fn memory(data_dir: &Path) -> Option<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_cluster = |line: &&str| {
        let source = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(1));
        line.contains(" /run/wherry/memory-") && source.is_some_and(|source| Path::new(source) == data_dir)
    };
    table.lines().find(of_cluster)?.split(' ').nth(4).map(PathBuf::from)
}

/// Control groups with one of `names` in their path.
pub(crate) fn cgroups(names: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let name = entry.file_name();
            if names.iter().any(|wanted| name.to_string_lossy().contains(wanted.as_str())) {
                found.push(entry.path());
            } else {
                open.push(entry.path());
            }
        }
    }
    found
}

/// The packet rules of the namespace that the test runs in, and its links.
pub(crate) fn rules() -> (String, BTreeSet<String>) {
    let rules = Command::new("nft").args(["list", "ruleset"]).output();
    let rules = rules.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    (rules, links.map(|link| link.file_name().to_string_lossy().into_owned()).collect())
}
