//! kill -9 amid rollouts, scaling, Jobs and drains: whatever the moment, everything becomes exactly as it was asked for, no budget
//! is broken, and nothing is left behind.
//!
//! ```text
//!  load (changes, one after the other) ──┐                     journal: one watch over all lives
//!  kill -9 at a random moment, start ────┤ PAUSE times, then    settled: every workload, Job and Pod exactly
//!  (now and then killed while it starts) ┘ nothing changes      footprint: no more of anything than at the first pause
//! ```
//!
//! `WHERRY_SERVER_KILLS`: how many kills.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use wherry_test::{Cluster, Options, PATIENCE, is_root};

use crate::footprint::{Footprint, no_more_than};
use crate::guard::{Changes, Journal};
use crate::load::{self, Load, NAMESPACE, NODES};
use crate::settled::State;

/// Kills between two pauses.
const PAUSE: usize = 10;
/// Until everything is as it was asked for, on a machine that others use.
const LONG: Duration = Duration::from_secs(180);

struct Test {
    cluster: Cluster,
    load: Load,
    journal: Journal,
    random: StdRng,
    /// What the cluster takes while nothing changes.
    footprint: Option<Footprint>,
    figures: Figures,
}

#[derive(Debug, Default)]
struct Figures {
    kills: usize,
    kills_while_starting: usize,
    jobs: usize,
    slowest_start: Duration,
    pauses: usize,
    slowest_pause: Duration,
    in_pauses: Duration,
}

impl Test {
    /// Changes things until a random moment, then kills.
    async fn live(&mut self) -> anyhow::Result<()> {
        let client = self.cluster.client().await?;
        let changes = self.journal.changes(&client).await?;
        let following = tokio::spawn(std::mem::take(&mut self.journal).follow(changes));
        let moment = Duration::from_millis(self.random.random_range(50..1500));
        let pace = Duration::from_millis(self.random.random_range(1..200));
        tokio::select! {
            acted = self.load.go_on(&self.cluster, &client, pace) => return acted,
            () = tokio::time::sleep(moment) => {}
        }
        self.cluster.kill()?;
        self.figures.kills += 1;
        self.journal = following.await??;
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let started = crate::start_again(&mut self.cluster, &mut self.random)?;
        self.figures.kills_while_starting += usize::from(started.killed);
        self.figures.slowest_start = self.figures.slowest_start.max(started.took);
        Ok(())
    }

    /// Nothing changes any more: all is as it was asked for, soon, and Jobs that ended leave nothing.
    async fn pause(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let client = self.cluster.client().await?;
        let changes: Changes = self.journal.changes(&client).await?;
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let following = tokio::spawn(std::mem::take(&mut self.journal).until(changes, stopped));
        self.load.settle(&client).await?;
        self.until_settled(&client).await?;
        self.forget_jobs(&client).await?;
        // What was seen of the Pods must not be lost with the connection.
        drop(stop);
        self.journal = following.await??;
        ensure!(!self.cluster.scratch().join("ledger/conflicts").exists(), "two Pods of one ordinal ran at once");
        self.agents_run_no_others(&client).await?;
        self.weigh()?;
        let took = begun.elapsed();
        self.figures.pauses += 1;
        self.figures.in_pauses += took;
        self.figures.slowest_pause = self.figures.slowest_pause.max(took);
        Ok(())
    }

    async fn until_settled(&self, client: &Client) -> anyhow::Result<()> {
        let end = Instant::now() + LONG;
        loop {
            let wrong = State::read(client).await?.wrong(&self.load.version(), &self.load.jobs);
            if wrong.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "after {LONG:?}:\n{}", wrong.join("\n"));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn forget_jobs(&mut self, client: &Client) -> anyhow::Result<()> {
        self.figures.jobs += self.load.jobs.len();
        self.load.jobs.clear();
        let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
        jobs.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        let end = Instant::now() + PATIENCE;
        loop {
            let left = pods.list(&ListParams::default().labels("batch.kubernetes.io/job-name")).await?.items;
            if left.is_empty() {
                return Ok(());
            }
            let names: Vec<String> = left.iter().map(ResourceExt::name_any).collect();
            ensure!(Instant::now() < end, "Pods without their Jobs: {names:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the agents measure is what the API tells.
    async fn agents_run_no_others(&self, client: &Client) -> anyhow::Result<()> {
        let state = State::read(client).await?;
        for node in NODES {
            let request = http::Request::get(format!("/api/v1/nodes/{node}/proxy/stats/summary")).body(Vec::new())?;
            let summary: Value = client.request(request).await?;
            let pods = summary["pods"].as_array().context("a summary without Pods")?;
            let ours = pods.iter().filter(|pod| pod["podRef"]["namespace"] == NAMESPACE);
            let uids = ours.filter_map(|pod| pod["podRef"]["uid"].as_str().map(str::to_owned)).collect();
            ensure!(state.running_on(node) == uids, "{node} runs {uids:?} instead of {:?}", state.running_on(node));
        }
        Ok(())
    }

    fn weigh(&mut self) -> anyhow::Result<()> {
        let uids: Vec<String> = self.journal.uids.iter().cloned().collect();
        match &self.footprint {
            Some(before) => no_more_than(before, || Footprint::outside(&self.cluster, &uids)),
            None => {
                self.footprint = Some(Footprint::outside(&self.cluster, &uids)?);
                Ok(())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_amid_changes_leave_everything_as_it_was_asked_for() -> anyhow::Result<()> {
    if !is_root("several nodes") {
        return Ok(());
    }
    let kills = std::env::var("WHERRY_SERVER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(PAUSE);
    let seed = crate::seed();
    let begun = Instant::now();
    let cluster = Cluster::start(Options { nodes: 2, ..crate::options() })?;
    load::images(&cluster)?;
    let ledger = cluster.scratch().join("ledger");
    std::fs::create_dir(&ledger)?;
    let mut test = Test {
        load: Load::new(StdRng::seed_from_u64(seed), &ledger),
        cluster,
        journal: Journal::default(),
        random: StdRng::seed_from_u64(!seed),
        footprint: None,
        figures: Figures::default(),
    };
    let client = test.cluster.client().await?;
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    test.load.guard(&client).await?;
    test.pause().await.context("before the first kill")?;
    while test.figures.kills < kills {
        let cycle = format!("after {} kills", test.figures.kills);
        test.live().await.with_context(|| cycle.clone())?;
        test.start().with_context(|| cycle.clone())?;
        if test.figures.kills.is_multiple_of(PAUSE) || test.figures.kills == kills {
            test.pause().await.with_context(|| format!("after {} kills", test.figures.kills))?;
            println!("{:.0?}: {:?}", begun.elapsed(), test.figures);
        }
    }
    let Load { actions, drains, .. } = test.load;
    println!(
        "{kills} kills in {:.0?}, {actions} changes, {drains} drains, {} evictions of guarded Pods, {} Pods in all: {:?}",
        begun.elapsed(),
        test.journal.evictions,
        test.journal.uids.len(),
        test.figures
    );
    Ok(())
}
