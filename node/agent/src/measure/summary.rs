//! `/stats/summary`, kubelet's `stats/v1alpha1` document.

use std::path::Path;
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use wherry_runtime::{DiskUse, MemoryUse, Traffic};

use super::machine::Filesystem;
use super::sample::Rated;
use super::usage::timestamp;
use super::{ContainerSample, Meter, PodSample};

/// The document. `only_cpu_and_memory`: without all that has to be walked.
pub(crate) async fn document(node: &str, meter: &Meter, rated: &Rated, only_cpu_and_memory: bool) -> Value {
    let sample = &rated.sample;
    let at = timestamp(sample.at);
    let filesystem = meter.machine.filesystem();
    let mut pods = Vec::with_capacity(sample.pods.len());
    for pod in &sample.pods {
        pods.push(pod_document(pod, rated, &at, filesystem, only_cpu_and_memory).await);
    }
    let mut of_node = json!({
        "nodeName": node,
        "startTime": start_of_machine(),
        "cpu": cpu(&at, sample.node.cpu_nanos, rated.node()),
        "memory": memory(&at, &sample.node.memory, available(meter, &sample.node.memory)),
    });
    if let Some(fs) = filesystem.filter(|_| !only_cpu_and_memory) {
        let document = node_filesystem(&at, &fs);
        of_node["runtime"] = json!({ "imageFs": document, "containerFs": document });
        of_node["fs"] = document;
    }
    json!({ "node": of_node, "pods": pods })
}

/// What of its memory a node could still give; its Pods' use is all there is of one that shares its machine.
fn available(meter: &Meter, used: &MemoryUse) -> Option<u64> {
    let capacity = u64::try_from(meter.machine.capacity.memory_bytes).ok()?;
    Some(capacity.saturating_sub(used.working_set))
}

fn start_of_machine() -> Value {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok()).unwrap_or(0);
    timestamp(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(boot)).into()
}

async fn pod_document(
    pod: &PodSample,
    rated: &Rated,
    at: &str,
    filesystem: Option<Filesystem>,
    only_cpu_and_memory: bool,
) -> Value {
    let mut containers = Vec::with_capacity(pod.containers.len());
    let mut whole = DiskUse::default();
    for container in &pod.containers {
        let mut document = container_document(container, rated, at);
        if let Some(fs) = filesystem.filter(|_| !only_cpu_and_memory) {
            let rootfs = container.runtime.disk(&container.id).await.unwrap_or_default();
            let logs = walk(pod.dir.join(&container.name)).await;
            document["rootfs"] = used_filesystem(at, &fs, rootfs);
            document["logs"] = used_filesystem(at, &fs, logs);
            whole += rootfs;
            whole += logs;
        }
        containers.push(document);
    }
    let rates: Option<Vec<u64>> = pod.containers.iter().map(|container| rated.container(container)).collect();
    let memory_use = pod.memory();
    let mut document = json!({
        "podRef": { "name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid() },
        "startTime": pod.pod.status.as_ref().and_then(|status| status.start_time.as_ref()),
        "containers": containers,
        "cpu": cpu(at, pod.cpu_nanos(), rates.map(|rates| rates.iter().sum())),
        "memory": memory(at, &memory_use, None),
    });
    if only_cpu_and_memory {
        return document;
    }
    if let Some(traffic) = &pod.traffic {
        document["network"] = network(at, traffic);
    }
    if let Some(fs) = filesystem {
        document["ephemeral-storage"] = used_filesystem(at, &fs, whole);
    }
    document
}

fn container_document(container: &ContainerSample, rated: &Rated, at: &str) -> Value {
    let stats = &container.stats;
    json!({
        "name": container.name,
        "startTime": stats.started_at.map(timestamp),
        "cpu": cpu(at, stats.cpu_nanos, rated.container(container)),
        "memory": memory(at, &stats.memory, None),
        "swap": { "time": at, "swapUsageBytes": stats.memory.swap },
    })
}

fn cpu(at: &str, nanos: u64, rate: Option<u64>) -> Value {
    let mut document = json!({ "time": at, "usageCoreNanoSeconds": nanos });
    if let Some(rate) = rate {
        document["usageNanoCores"] = rate.into();
    }
    document
}

fn memory(at: &str, used: &MemoryUse, available: Option<u64>) -> Value {
    let mut document = Map::new();
    document.insert("time".to_owned(), at.into());
    if let Some(available) = available {
        document.insert("availableBytes".to_owned(), available.into());
    }
    for (name, value) in [
        ("usageBytes", used.usage),
        ("workingSetBytes", used.working_set),
        ("rssBytes", used.rss),
        ("pageFaults", used.page_faults),
        ("majorPageFaults", used.major_page_faults),
    ] {
        document.insert(name.to_owned(), value.into());
    }
    document.into()
}

fn network(at: &str, traffic: &Traffic) -> Value {
    let counters = json!({
        "name": "eth0",
        "rxBytes": traffic.received.bytes, "rxErrors": traffic.received.errors,
        "txBytes": traffic.sent.bytes, "txErrors": traffic.sent.errors,
    });
    let mut document = counters.clone();
    document["time"] = at.into();
    document["interfaces"] = json!([counters]);
    document
}

fn node_filesystem(at: &str, fs: &Filesystem) -> Value {
    json!({
        "time": at, "availableBytes": fs.available, "capacityBytes": fs.capacity, "usedBytes": fs.used,
        "inodesFree": fs.inodes_free, "inodes": fs.inodes, "inodesUsed": fs.inodes.saturating_sub(fs.inodes_free),
    })
}

/// A part of a filesystem.
fn used_filesystem(at: &str, fs: &Filesystem, used: DiskUse) -> Value {
    json!({
        "time": at, "availableBytes": fs.available, "capacityBytes": fs.capacity, "usedBytes": used.bytes,
        "inodesFree": fs.inodes_free, "inodes": fs.inodes, "inodesUsed": used.inodes,
    })
}

/// What the files below `dir` take on the disk. Links are not followed.
pub(super) async fn walk(dir: impl AsRef<Path>) -> DiskUse {
    let dir = dir.as_ref().to_owned();
    tokio::task::spawn_blocking(move || {
        let mut used = DiskUse::default();
        let mut left = vec![dir];
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                use std::os::unix::fs::MetadataExt as _;
                let Ok(metadata) = entry.metadata() else { continue };
                used += DiskUse { bytes: metadata.blocks() * 512, inodes: 1 };
                if metadata.is_dir() {
                    left.push(entry.path());
                }
            }
        }
        used
    })
    .await
    .unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_walk_counts_what_lies_below_and_nothing_beyond() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/file"), vec![1; 10_000]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("sub/link")).unwrap();
        let used = walk(dir.path()).await;
        assert_eq!(used.inodes, 3);
        assert!((10_000..100_000).contains(&used.bytes), "{used:?}");
        assert_eq!(walk(dir.path().join("none")).await, DiskUse::default());
    }
}
