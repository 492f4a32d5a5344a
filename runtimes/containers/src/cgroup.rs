//! What a container has used, read from its control group (either version), and what became of it there.

use std::fs;
use std::path::{Path, PathBuf};

use wherry_runtime::{MemoryUse, Stats, Throttling};

const ROOT: &str = "/sys/fs/cgroup";

/// Where the control groups of this machine are.
#[derive(Clone, Debug)]
pub(crate) enum Cgroups {
    /// One tree with all controllers.
    V2(PathBuf),
    /// A tree a controller (several controllers may share one), perhaps with an empty one of version 2 beside them.
    V1 {
        /// The trees that matter here, each once.
        memory: Option<PathBuf>,
        cpuacct: Option<PathBuf>,
        cpu: Option<PathBuf>,
        all: Vec<PathBuf>,
    },
}

impl Cgroups {
    pub(crate) fn detect() -> Self {
        if Path::new(ROOT).join("cgroup.controllers").exists() {
            return Self::V2(ROOT.into());
        }
        Self::v1(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    }

    fn v1(mountinfo: &str) -> Self {
        let mounts: Vec<(PathBuf, &str, &str)> = mountinfo
            .lines()
            .filter_map(|line| {
                let (left, right) = line.split_once(" - ")?;
                let mut right = right.split(' ');
                let (kind, _source, options) = (right.next()?, right.next()?, right.next()?);
                let place = left.split(' ').nth(4)?;
                // Beside the trees of version 1 there may be one of version 2, without controllers; runc makes groups in it, too.
                matches!(kind, "cgroup" | "cgroup2").then(|| (PathBuf::from(place), kind, options))
            })
            .collect();
        let has = |kind: &str, options: &str, controller: &str| {
            kind == "cgroup" && options.split(',').any(|o| o == controller)
        };
        let of = |controller: &str| {
            mounts.iter().find(|(_, kind, options)| has(kind, options, controller)).map(|(path, ..)| path.clone())
        };
        Self::V1 {
            memory: of("memory"),
            cpuacct: of("cpuacct"),
            cpu: of("cpu"),
            all: mounts.iter().map(|(path, ..)| path.clone()).collect(),
        }
    }

    pub(crate) fn is_v2(&self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// Whether the kernel counts swap, so that it can be limited.
    pub(crate) fn limits_swap(&self) -> bool {
        match self {
            // runc writes memory.swap.max only where it is there.
            Self::V2(_) => true,
            Self::V1 { memory, .. } => {
                memory.as_ref().is_some_and(|root| root.join("memory.memsw.limit_in_bytes").exists())
            }
        }
    }

    /// What the group at `path` (`/parent/id`) has used. None where it is gone.
    pub(crate) fn stats(&self, path: &str) -> Option<Stats> {
        match self {
            Self::V2(root) => {
                let dir = join(root, path);
                let cpu = read(&dir, "cpu.stat")?;
                Some(Stats {
                    cpu_nanos: field(&cpu, "usage_usec")? * 1000,
                    throttling: throttling(&cpu, |text| field(text, "throttled_usec").map(|micros| micros * 1000)),
                    memory: memory_v2(&dir),
                    ..Stats::default()
                })
            }
            Self::V1 { memory, cpuacct, cpu, .. } => {
                let used = read(&join(cpuacct.as_ref()?, path), "cpuacct.usage")?;
                let cpu = cpu.as_ref().and_then(|root| read(&join(root, path), "cpu.stat")).unwrap_or_default();
                Some(Stats {
                    cpu_nanos: used.trim().parse().ok()?,
                    throttling: throttling(&cpu, |text| field(text, "throttled_time")),
                    memory: memory.as_ref().map(|root| memory_v1(&join(root, path))).unwrap_or_default(),
                    ..Stats::default()
                })
            }
        }
    }

    /// Whether the kernel has killed something in the group for its memory limit. The group outlives its processes until
    /// the task is deleted.
    pub(crate) fn oom_killed(&self, path: &str) -> bool {
        let (root, file) = match self {
            Self::V2(root) => (root, "memory.events"),
            Self::V1 { memory: Some(root), .. } => (root, "memory.oom_control"),
            Self::V1 { memory: None, .. } => return false,
        };
        read(&join(root, path), file).and_then(|text| field(&text, "oom_kill")).is_some_and(|count| count > 0)
    }

    /// Removes an empty group. One that is in use stays.
    pub(crate) fn remove_if_empty(&self, path: &str) {
        let roots = match self {
            Self::V2(root) => std::slice::from_ref(root),
            Self::V1 { all, .. } => all.as_slice(),
        };
        for root in roots {
            let _ = fs::remove_dir(join(root, path));
        }
    }
}

fn join(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn read(dir: &Path, file: &str) -> Option<String> {
    fs::read_to_string(dir.join(file)).ok()
}

/// The number behind `name` in a file of `name number` lines.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// None where the group has no limit: then the kernel counts no periods.
fn throttling(text: &str, nanos: impl Fn(&str) -> Option<u64>) -> Option<Throttling> {
    let periods = field(text, "nr_periods").filter(|periods| *periods > 0)?;
    Some(Throttling {
        periods,
        throttled_periods: field(text, "nr_throttled").unwrap_or(0),
        throttled_nanos: nanos(text).unwrap_or(0),
    })
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    read(dir, file)?.trim().parse().ok()
}

fn memory_v2(dir: &Path) -> MemoryUse {
    let stat = read(dir, "memory.stat").unwrap_or_default();
    let of = |name: &str| field(&stat, name).unwrap_or(0);
    let usage = number(dir, "memory.current").unwrap_or(0);
    MemoryUse {
        usage,
        working_set: usage.saturating_sub(of("inactive_file")),
        rss: of("anon"),
        cache: of("file"),
        swap: number(dir, "memory.swap.current").unwrap_or(0),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
    }
}

fn memory_v1(dir: &Path) -> MemoryUse {
    let stat = read(dir, "memory.stat").unwrap_or_default();
    let of = |name: &str| field(&stat, name).unwrap_or(0);
    let usage = number(dir, "memory.usage_in_bytes").unwrap_or(0);
    MemoryUse {
        usage,
        working_set: usage.saturating_sub(of("total_inactive_file")),
        rss: of("total_rss"),
        cache: of("total_cache"),
        swap: of("total_swap"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_wherever_they_are_mounted() {
        let info = "30 20 0:5 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                    31 20 0:6 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    32 20 0:7 / /proc rw - proc proc rw\n\
                    33 20 0:8 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let Cgroups::V1 { memory, cpuacct, cpu, all } = Cgroups::v1(info) else { panic!("not v1") };
        assert_eq!(memory.unwrap(), Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(cpuacct.unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(cpu.unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn both_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("wherry/pod1/c");
        fs::create_dir_all(&group).unwrap();
        let write = |name: &str, text: &str| fs::write(group.join(name), text).unwrap();
        write("cpu.stat", "usage_usec 1500\nuser_usec 1000\nnr_periods 4\nnr_throttled 1\nthrottled_usec 2\n");
        write("memory.current", "1000\n");
        write(
            "memory.stat",
            "anon 500\nfile 400\npgfault 9\ninactive_file 300\ntotal_inactive_file 400\ntotal_rss 450\ntotal_cache 440\n",
        );
        write("memory.events", "oom 1\noom_kill 2\n");
        let v2 = Cgroups::V2(dir.path().into());
        let throttling = Throttling { periods: 4, throttled_periods: 1, throttled_nanos: 2000 };
        let memory =
            MemoryUse { usage: 1000, working_set: 700, rss: 500, cache: 400, page_faults: 9, ..MemoryUse::default() };
        let expected = Stats { cpu_nanos: 1_500_000, throttling: Some(throttling), memory, ..Stats::default() };
        assert_eq!(v2.stats("/wherry/pod1/c").unwrap(), expected);
        assert!(v2.oom_killed("/wherry/pod1/c"));

        write("cpuacct.usage", "77\n");
        write("cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n");
        write("memory.usage_in_bytes", "1000\n");
        write("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n");
        let root = || Some(dir.path().into());
        let v1 = Cgroups::V1 { memory: root(), cpuacct: root(), cpu: root(), all: vec![] };
        let memory = MemoryUse { usage: 1000, working_set: 600, rss: 450, cache: 440, ..MemoryUse::default() };
        assert_eq!(v1.stats("/wherry/pod1/c").unwrap(), Stats { cpu_nanos: 77, memory, ..Stats::default() });
        assert!(!v1.oom_killed("/wherry/pod1/c") && v1.stats("/wherry/pod2/c").is_none());
    }
}
