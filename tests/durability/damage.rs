//! Damaged files of a stopped cluster: the next start has every acknowledged object, or refuses with a text that names the
//! file, the place and the remedy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use wherry_test::{Child, Cluster, PATIENCE};

use crate::ledger::{revision, token};

/// Large writes: enough for a log segment to fill up and a checkpoint to be written.
const LARGE_WRITES: usize = 90;
const LARGE: usize = 800 << 10;
/// Small writes: enough for the index to move twice.
const SMALL_WRITES: usize = 9000;
const SMALL_AT_ONCE: usize = 32;

type Objects = BTreeMap<String, (u64, String)>;

struct Bench {
    cluster: Cluster,
    good: PathBuf,
    expected: Objects,
    random: StdRng,
}

async fn api(cluster: &Cluster) -> anyhow::Result<Api<ConfigMap>> {
    Ok(Api::default_namespaced(cluster.client().await?))
}

async fn objects(cluster: &Cluster) -> anyhow::Result<Objects> {
    let list = api(cluster).await?.list(&ListParams::default()).await?;
    list.items.iter().map(|object| Ok((object.name_any(), (revision(object)?, token(object))))).collect()
}

async fn fill(cluster: &Cluster) -> anyhow::Result<()> {
    let api = api(cluster).await?;
    for number in 0..LARGE_WRITES {
        let name = format!("large-{}", number % 3);
        let data = json!({ "token": format!("{number}"), "pad": "x".repeat(LARGE) });
        put(&api, &name, number < 3, data).await?;
    }
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..SMALL_AT_ONCE {
        let api = api.clone();
        writers.spawn(async move {
            let name = format!("small-{writer}");
            for number in 0..SMALL_WRITES / SMALL_AT_ONCE {
                put(&api, &name, number == 0, json!({ "token": format!("{writer}-{number}") })).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

async fn put(api: &Api<ConfigMap>, name: &str, new: bool, data: serde_json::Value) -> anyhow::Result<()> {
    if new {
        let object = serde_json::from_value(json!({ "metadata": { "name": name }, "data": data }))?;
        api.create(&PostParams::default(), &object).await?;
    } else {
        api.patch(name, &PatchParams::default(), &Patch::Merge(json!({ "data": data }))).await?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copied.success(), "cp -a {} {}", from.display(), to.display());
    Ok(())
}

/// The files below a directory that are not empty, sorted.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(data) if data.is_dir() => found.extend(files(&entry.path())),
            Ok(data) if data.len() > 0 => found.push(entry.path()),
            _ => {}
        }
    }
    found.sort();
    found
}

fn newest(dir: &Path, extension: &str) -> anyhow::Result<PathBuf> {
    let found = files(dir).into_iter().rfind(|path| path.extension().is_some_and(|found| found == extension));
    found.with_context(|| format!("no {extension} file in {}", dir.display()))
}

impl Bench {
    async fn new() -> anyhow::Result<Self> {
        let mut cluster = Cluster::start(crate::options())?;
        fill(&cluster).await?;
        let expected = objects(&cluster).await?;
        cluster.stop()?;
        let good = cluster.scratch().join("good");
        copy(&cluster.data_dir().join("store"), &good)?;
        Ok(Self { cluster, good, expected, random: StdRng::seed_from_u64(crate::seed()) })
    }

    /// The store as it was when the cluster was stopped; its directory.
    fn renew(&self) -> anyhow::Result<PathBuf> {
        let store = self.cluster.data_dir().join("store");
        fs::remove_dir_all(&store)?;
        copy(&self.good, &store)?;
        Ok(store)
    }

    fn flip(&mut self, path: &Path, from: u64) -> anyhow::Result<()> {
        let file = File::options().read(true).write(true).open(path)?;
        let at = self.random.random_range(from..file.metadata()?.len());
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << self.random.random_range(0..8);
        Ok(file.write_all_at(&byte, at)?)
    }

    /// Cuts up to `most` bytes off.
    fn cut(&mut self, path: &Path, most: u64) -> anyhow::Result<()> {
        let file = File::options().write(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(file.set_len(length - self.random.random_range(1..=most.min(length - 1)))?)
    }

    /// Starts: every object must be there with its revision and content.
    async fn ensure_whole(&mut self, what: &str) -> anyhow::Result<()> {
        self.cluster.resume().with_context(|| what.to_owned())?;
        let found = objects(&self.cluster).await?;
        for (name, expected) in &self.expected {
            ensure!(
                found.get(name) == Some(expected),
                "{what}: {name} should be {expected:?} and is {:?}",
                found.get(name)
            );
        }
        self.cluster.stop()?;
        Ok(())
    }

    /// Forgets what is expected to be there after a revision.
    fn expect_until(&mut self, revision: u64) {
        self.expected.retain(|_, (changed, _)| *changed <= revision);
    }

    /// Starts: it must be refused, naming `file`; the text.
    fn ensure_refused(&self, what: &str, file: &Path) -> anyhow::Result<String> {
        let mut process = Child::start("wherry up", &mut self.cluster.up())?;
        let said = process.wait_for_line(PATIENCE, |line| line.starts_with("ready") || line.starts_with("error: "))?;
        ensure!(said.starts_with("error: "), "{what}: it started all the same");
        let status = process.wait()?;
        ensure!(status.code() == Some(1), "{what}: {status}");
        let clear = said.contains(&*file.file_name().unwrap_or_default().to_string_lossy())
            && said.contains("Restore the data directory from a backup");
        ensure!(clear, "{what}: {said}");
        println!("{what}: {said}");
        Ok(said)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_survived_or_refused_and_never_silent() -> anyhow::Result<()> {
    let mut bench = Bench::new().await?;
    ensure!(
        files(&bench.good.join("index")).iter().any(|path| path.metadata().is_ok_and(|data| data.len() > 4096)),
        "the index was never written"
    );

    let store = bench.renew()?;
    bench.ensure_whole("nothing damaged").await?;

    for round in 0..4 {
        let store = bench.renew()?;
        let index = files(&store.join("index"));
        let victim = index[bench.random.random_range(0..index.len())].clone();
        if round % 2 == 0 {
            bench.flip(&victim, 0)?
        } else {
            bench.cut(&victim, u64::MAX)?
        }
        bench.ensure_whole(&format!("sled's {} damaged", victim.display())).await?;
    }
    for round in 0..2 {
        // Without an index, the checkpoint is what a start reads.
        bench.renew()?;
        fs::remove_dir_all(store.join("index"))?;
        let victim = newest(&store.join("checkpoints"), "ckpt")?;
        if round == 0 {
            bench.flip(&victim, 0)?
        } else {
            bench.cut(&victim, u64::MAX)?
        }
        bench.ensure_whole("no index, the newest checkpoint damaged").await?;
    }
    bench.renew()?;
    fs::remove_file(store.join("log/head"))?;
    bench.ensure_whole("no head of the log").await?;

    bench.renew()?;
    let log = newest(&store.join("log"), "log")?;
    let end = fs::metadata(&log)?.len();
    File::options().write(true).open(&log)?.write_all_at(&[0x5a; 700], end)?;
    bench.ensure_whole("a batch that was never acknowledged at the log's end").await?;

    for _ in 0..3 {
        bench.renew()?;
        bench.flip(&log, 0)?;
        bench.ensure_refused("a bit flipped in the log", &log)?;
    }
    bench.renew()?;
    let middle = fs::metadata(&log)?.len() - 1;
    bench.cut(&log, middle)?;
    bench.ensure_refused("the log cut off", &log)?;
    bench.renew()?;
    fs::remove_file(&log)?;
    bench.ensure_refused("the newest segment of the log removed", &log)?;

    // The remedy that the text names, for an end that is cut off.
    bench.renew()?;
    bench.cut(&log, 3)?;
    let said = bench.ensure_refused("the log's last record cut off", &log)?;
    let offset = said.split("at offset ").nth(1).and_then(|rest| rest.split(':').next()).context("no offset")?;
    File::options().write(true).open(&log)?.set_len(offset.parse()?)?;
    fs::remove_file(store.join("log/head"))?;
    let last = said.split("after revision ").nth(1).and_then(|rest| rest.split(' ').next()).context("no revision")?;
    bench.expect_until(last.parse()?);
    bench.ensure_whole("after the remedy").await
}
