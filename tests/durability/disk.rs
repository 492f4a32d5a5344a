//! A full disk fails writes and nothing else; an idle cluster writes little.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, PostParams};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use wherry_test::{Cluster, is_root};

/// A small file system; it must outlive the cluster on it.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(megabytes: usize) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("wh").tempdir()?;
        let size = format!("size={megabytes}m");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))?;
        Ok(Self(dir))
    }

    /// Takes all room that is left.
    fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::options().create(true).append(true).open(self.0.path().join("filler"))?;
        for size in [1 << 20, 4096, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    fn free(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.0.path().join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.0.path(), MntFlags::MNT_DETACH) {
            eprintln!("umount {}: {error}", self.0.path().display());
        }
    }
}

async fn api(cluster: &Cluster) -> anyhow::Result<Api<ConfigMap>> {
    Ok(Api::default_namespaced(cluster.client().await?))
}

async fn names(api: &Api<ConfigMap>) -> anyhow::Result<Vec<String>> {
    let list = api.list(&ListParams::default().labels("durability")).await?;
    Ok(list.items.into_iter().filter_map(|object| object.metadata.name).collect())
}

fn object(name: &str, bytes: usize) -> anyhow::Result<ConfigMap> {
    let metadata = json!({ "name": name, "labels": { "durability": "" } });
    Ok(serde_json::from_value(json!({ "metadata": metadata, "data": { "pad": "x".repeat(bytes) } }))?)
}

/// Writes until one is refused; how that is said.
async fn refused(api: &Api<ConfigMap>, acknowledged: &mut Vec<String>, prefix: &str) -> anyhow::Result<()> {
    for number in 0..200 {
        let name = format!("{prefix}-{number:03}");
        match api.create(&PostParams::default(), &object(&name, 8 << 10)?).await {
            Ok(_) => acknowledged.push(name),
            Err(kube::Error::Api(status)) => {
                ensure!(status.code == 500 && status.message.contains("No space left on device"), "{status:?}");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("a full disk took 200 writes")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_writes_and_nothing_else() -> anyhow::Result<()> {
    if !is_root("a file system of its own") {
        return Ok(());
    }
    let disk = SmallDisk::new(64)?;
    let mut options = crate::options();
    let dir = disk.0.path().join("d");
    options.environment.push(("WHERRY_DATA_DIR".into(), dir.to_string_lossy().into_owned()));
    let mut cluster = Cluster::start(options)?;
    let reading = api(&cluster).await?;
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        let name = format!("before-{number:03}");
        reading.create(&PostParams::default(), &object(&name, 1 << 10)?).await?;
        acknowledged.push(name);
    }
    disk.fill()?;
    refused(&reading, &mut acknowledged, "full").await?;
    acknowledged.sort();
    ensure!(names(&reading).await? == acknowledged, "reads are not what was acknowledged");

    // While it is full: a start reads all.
    for end in ["kill", "stop"] {
        if end == "kill" {
            cluster.kill()?
        } else {
            drop(cluster.stop()?)
        }
        disk.fill()?;
        cluster.resume().with_context(|| format!("start on a full disk after a {end}"))?;
        let reading = api(&cluster).await?;
        refused(&reading, &mut acknowledged, end).await?;
        acknowledged.sort();
        ensure!(names(&reading).await? == acknowledged, "reads after the restart are not what was acknowledged");
    }
    // With room again, writes are taken without a restart.
    disk.free()?;
    let writing = api(&cluster).await?;
    writing.create(&PostParams::default(), &object("room", 1 << 10)?).await?;
    cluster.kill()?;
    cluster.resume()?;
    acknowledged.push("room".into());
    acknowledged.sort();
    ensure!(names(&api(&cluster).await?).await? == acknowledged, "something was lost");
    cluster.stop()?;
    Ok(())
}

fn written(pid: u32) -> anyhow::Result<u64> {
    let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes")?;
    Ok(line.parse()?)
}

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |data| data.len()) }
            },
        )
        .sum()
}

/// A figure, not a promise: what an idle cluster writes.
#[test]
fn idle_writes() -> anyhow::Result<()> {
    const SPAN: Duration = Duration::from_secs(20);
    let cluster = Cluster::start(crate::options())?;
    let pid = cluster.process().context("it does not run")?.id();
    // The first moments are not idle: controllers and agent make their first objects.
    std::thread::sleep(SPAN / 4);
    let before = (written(pid)?, size(&cluster.data_dir().join("store/log")));
    std::thread::sleep(SPAN);
    let after = (written(pid)?, size(&cluster.data_dir().join("store/log")));
    println!(
        "idle for {SPAN:?}: {} bytes to the disk, the log grew by {} bytes",
        after.0 - before.0,
        after.1 - before.1
    );
    Ok(())
}
