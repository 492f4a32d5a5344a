//! kill -9 at any moment: every acknowledged change is there after the restart, with its revision; deleted objects stay
//! deleted; a watch goes on where it was and misses, doubles and reorders nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wherry_test::{Cluster, PATIENCE};

use crate::ledger::{Seen, Writer, revision, token};

const WRITERS: usize = 8;
const OBJECTS: usize = 6;
const NAMESPACE: &str = "durability";
const MARKER: &str = "marker";

type Changes = std::pin::Pin<Box<dyn futures::Stream<Item = kube::Result<WatchEvent<ConfigMap>>> + Send>>;

/// All that a test saw of its namespace, oldest first.
struct History {
    told: Vec<Seen>,
    /// The newest revision that a watch told, by an event or a bookmark.
    newest: u64,
}

impl History {
    /// Takes in what a watch tells.
    fn take(&mut self, event: WatchEvent<ConfigMap>) -> anyhow::Result<()> {
        let seen = match event {
            WatchEvent::Bookmark(mark) => {
                let revision: u64 = mark.metadata.resource_version.parse()?;
                ensure!(revision >= self.newest, "a bookmark goes back from {} to {revision}", self.newest);
                self.newest = revision;
                return Ok(());
            }
            event => seen(event)?,
        };
        ensure!(seen.revision > self.newest, "after revision {} a watch told {seen:?}", self.newest);
        self.newest = seen.revision;
        self.told.push(seen);
        Ok(())
    }
}

fn seen(event: WatchEvent<ConfigMap>) -> anyhow::Result<Seen> {
    let (object, deleted) = match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
        WatchEvent::Deleted(object) => (object, true),
        WatchEvent::Bookmark(_) => bail!("a bookmark that was not asked for"),
        WatchEvent::Error(status) => return Err(kube::Error::Api(Box::new(*status)).into()),
    };
    Ok(Seen { revision: revision(&object)?, name: object.name_any(), outcome: (!deleted).then(|| token(&object)) })
}

async fn changes(api: &Api<ConfigMap>, from: u64, bookmarks: bool) -> anyhow::Result<Changes> {
    let parameters = WatchParams { bookmarks, ..WatchParams::default() };
    Ok(Box::pin(api.watch(&parameters, &from.to_string()).await?))
}

/// Whether an error says that the history no longer reaches back.
fn is_expired(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 410)
}

/// Watches from `from` until the change `marker`.
async fn until_marker(api: &Api<ConfigMap>, from: u64, marker: u64) -> anyhow::Result<Vec<Seen>> {
    let mut stream = changes(api, from, false).await?;
    let mut told = Vec::new();
    while told.last().is_none_or(|seen: &Seen| seen.revision < marker) {
        let next = timeout(PATIENCE, stream.next()).await.context("a resumed watch stands still")?;
        told.push(seen(next.context("a resumed watch ended")??)?);
    }
    Ok(told)
}

struct Test {
    cluster: Cluster,
    writers: Vec<Writer>,
    history: History,
    /// How much of the history was compared.
    compared: usize,
    random: StdRng,
    figures: Figures,
}

#[derive(Debug, Default)]
struct Figures {
    acknowledged: usize,
    made_without_answer: usize,
    kills_while_starting: usize,
    resumed: usize,
    expired: usize,
    slowest_start: Duration,
    all_starts: Duration,
}

impl Test {
    async fn api(&self) -> anyhow::Result<(Client, Api<ConfigMap>)> {
        let client = self.cluster.client().await?;
        Ok((client.clone(), Api::namespaced(client, NAMESPACE)))
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let started = crate::start_again(&mut self.cluster, &mut self.random)?;
        self.figures.kills_while_starting += usize::from(started.killed);
        self.figures.slowest_start = self.figures.slowest_start.max(started.took);
        self.figures.all_starts += started.took;
        Ok(())
    }

    /// Goes on with the watch where it was, up to a change made now, and compares all that is known; gives the watch.
    async fn compare(&mut self, cycle: usize) -> anyhow::Result<Changes> {
        let (_, api) = self.api().await?;
        let newest = self.history.newest;
        let patch = Patch::Merge(json!({ "data": { "token": format!("cycle {cycle}") } }));
        let marker = revision(&api.patch(MARKER, &PatchParams::default(), &patch).await?)?;
        ensure!(marker > newest, "a new change has revision {marker}, but {newest} was seen before the kill");
        let mut stream = changes(&api, newest, true).await.context("the watch does not resume")?;
        while self.history.newest < marker {
            let next = timeout(PATIENCE, stream.next()).await.context("the resumed watch stands still")?;
            self.history.take(next.context("the resumed watch ended")??)?;
        }
        let list = api.list(&ListParams::default()).await?;
        let mut found = BTreeMap::new();
        for object in &list.items {
            found.insert(object.name_any(), (revision(object)?, token(object)));
        }
        for writer in &mut self.writers {
            self.figures.made_without_answer += writer.compare(&self.history.told[self.compared..], &found)?;
        }
        self.compared = self.history.told.len();
        self.resume_older(&api, marker).await?;
        Ok(stream)
    }

    /// A second watch from some older revision tells what the first one told.
    async fn resume_older(&mut self, api: &Api<ConfigMap>, marker: u64) -> anyhow::Result<()> {
        let known = &self.history.told;
        let at = self.random.random_range(known.len().saturating_sub(1500)..known.len());
        let expected: Vec<&Seen> = known[at + 1..].iter().collect();
        if expected.is_empty() {
            return Ok(());
        }
        match until_marker(api, known[at].revision, marker).await {
            Ok(told) => {
                ensure!(
                    told.iter().eq(expected.iter().copied()),
                    "resumed at {:?}: {told:?} instead of {expected:?}",
                    known[at]
                );
                self.figures.resumed += 1;
            }
            Err(error) if is_expired(&error) => self.figures.expired += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes and watches until a random number of changes is acknowledged, then kills.
    async fn load_and_kill(&mut self, mut stream: Changes) -> anyhow::Result<()> {
        let (_, api) = self.api().await?;
        let (acknowledged, mut count) = watch::channel(0);
        let acknowledged = Arc::new(acknowledged);
        let mut writers = JoinSet::new();
        for mut writer in self.writers.drain(..) {
            let (api, acknowledged) = (api.clone(), acknowledged.clone());
            writers.spawn(async move {
                let result = writer.run(&api, &acknowledged).await;
                (writer, result)
            });
        }
        let wanted = self.random.random_range(1..400);
        let mut history = std::mem::replace(&mut self.history, History { told: Vec::new(), newest: 0 });
        let watcher = tokio::spawn(async move {
            // It ends when the connection does.
            while let Some(Ok(event)) = stream.next().await {
                history.take(event)?;
            }
            anyhow::Ok(history)
        });
        timeout(PATIENCE, count.wait_for(|count| *count >= wanted)).await.context("writes stand still")??;
        self.cluster.kill()?;
        while let Some(ended) = writers.join_next().await {
            let (writer, result) = ended?;
            result?;
            self.writers.push(writer);
        }
        self.history = watcher.await??;
        self.figures.acknowledged += *count.borrow();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_kills_lose_nothing_acknowledged_and_watches_resume() -> anyhow::Result<()> {
    let kills = std::env::var("WHERRY_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let seed = crate::seed();
    let begun = Instant::now();
    let mut test = Test {
        cluster: Cluster::start(crate::options())?,
        writers: (0..WRITERS).map(|number| Writer::new(number, OBJECTS, seed)).collect(),
        history: History { told: Vec::new(), newest: 0 },
        compared: 0,
        random: StdRng::seed_from_u64(seed),
        figures: Figures::default(),
    };
    let (client, api) = test.api().await?;
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::all(client).create(&PostParams::default(), &namespace).await?;
    let marker: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": MARKER } }))?;
    test.history.newest = revision(&api.create(&PostParams::default(), &marker).await?)?;
    let mut stream = test.compare(0).await?;
    for cycle in 1..=kills {
        test.load_and_kill(stream).await.with_context(|| format!("cycle {cycle}"))?;
        test.start().with_context(|| format!("cycle {cycle}"))?;
        stream = test.compare(cycle).await.with_context(|| format!("cycle {cycle}"))?;
    }
    let mean = test.figures.all_starts.checked_div(kills.try_into()?).unwrap_or_default();
    println!("{kills} kills in {:?}, start to ready {mean:?} in the mean: {:?}", begun.elapsed(), test.figures);
    Ok(())
}
