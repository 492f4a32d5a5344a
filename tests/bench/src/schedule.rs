//! How fast Pods with required anti-affinity and topology spread get nodes, beside kube-scheduler.
//!
//! The Pods belong to many applications: those of one keep off each other's nodes and spread evenly over the zones. It is counted from
//! the first POST to when a watch has told the last one's node. The nodes are objects alone and nothing runs, so that it is scheduling (and
//! the API below it) that is measured. That each constraint was kept is checked afterwards.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::Setup;
use crate::fake_nodes::{self, WORKERS, ZONES};
use crate::peer::Part;
use crate::report::{Column, Report};
use crate::side::Side;

/// Each application has this share of the nodes.
const SHARE: u32 = 2;
const LEAST: Duration = Duration::from_secs(60);
const EACH: Duration = Duration::from_millis(100);

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Column>> {
    let mut columns = vec![measure(setup, Side::ours(setup).await?).await?];
    if let Some(peer) = Side::peer(setup, &[Part::Scheduler]).await? {
        columns.push(measure(setup, peer).await?);
    }
    Ok(columns)
}

async fn measure(setup: &Setup, side: Side) -> anyhow::Result<Column> {
    let mut watch = fake_nodes::start(&side.client, setup.fake_nodes, false).await?;
    let count = setup.scheduled as usize;
    let (before, part_before) = (side.cpu_time()?, side.cpu_time_of(Part::Scheduler)?);
    let begun = Instant::now();
    let (created, seen) = tokio::try_join!(
        create(&side.client, setup),
        watch.wait(LEAST + EACH * setup.scheduled, |seen| seen.bound.len() == count)
    )?;
    let took = begun.elapsed();
    let cpu = side.cpu_time()?.saturating_sub(before);
    let part = side.cpu_time_of(Part::Scheduler)?.saturating_sub(part_before);
    check(&side.client, setup).await.with_context(|| side.name)?;
    let told = Api::<Event>::default_namespaced(side.client.clone()).list_metadata(&ListParams::default()).await?;
    let events = u32::try_from(told.items.len())?;

    let times = created.iter().map(|(name, at)| seen.bound.get(name).map(|bound| bound.duration_since(*at)));
    let times: Vec<Duration> = times.collect::<Option<_>>().context("a Pod was bound that was not created")?;
    let pods = f64::from(setup.scheduled);
    let last = created.values().max().context("no Pods")?.duration_since(begun);
    let what = format!("{} Pods on {} nodes", setup.scheduled, setup.fake_nodes);
    let spread = Report::times(what.clone(), times, cpu);
    let of = |name: &str| spread.figure(name).unwrap_or(f64::NAN);
    let figures = vec![
        ("Pods/s", pods / took.as_secs_f64()),
        ("POSTs/s", pods / last.as_secs_f64()),
        ("p50 ms", of("p50 ms")),
        ("p99 ms", of("p99 ms")),
        ("cpu ms/Pod", cpu.as_secs_f64() * 1e3 / pods),
        ("scheduler's", part.as_secs_f64() * 1e3 / pods),
        ("MiB", side.memory()?),
        // Both drop some under load.
        ("Events", f64::from(events)),
    ];
    Ok(Column { by: side.name, reports: vec![Report { what, figures }] })
}

/// Creates the Pods; when each was asked for, by name.
async fn create(client: &Client, setup: &Setup) -> anyhow::Result<HashMap<String, Instant>> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let apps = setup.scheduled.div_ceil((setup.fake_nodes / SHARE).max(1));
    stream::iter(0..setup.scheduled)
        .map(|number| {
            let (pods, pod) = (pods.clone(), pod(number, number % apps));
            async move {
                let asked = Instant::now();
                pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
                Ok((name(number), asked))
            }
        })
        .buffer_unordered(WORKERS)
        .try_collect()
        .await
}

fn name(number: u32) -> String {
    format!("scheduled-{number:05}")
}

fn pod(number: u32, app: u32) -> serde_json::Value {
    let app = format!("app-{app}");
    let own = json!({"matchLabels": {"app": app}});
    json!({
        "metadata": {"name": name(number), "labels": {"app": app}},
        "spec": {
            "automountServiceAccountToken": false,
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": own},
            ]}},
            "topologySpreadConstraints": [{
                "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": own,
            }],
            "containers": [{
                "name": "main", "image": "registry.example.com/team/app:1.2.3",
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            }],
        },
    })
}

/// No two Pods of an application share a node, and no zone has two of them more than another.
async fn check(client: &Client, setup: &Setup) -> anyhow::Result<()> {
    let pods = Api::<Pod>::default_namespaced(client.clone()).list(&ListParams::default()).await?;
    ensure!(pods.items.len() == setup.scheduled as usize, "{} Pods are there", pods.items.len());
    let (mut places, mut zones) = (HashSet::new(), HashMap::<String, HashMap<u32, u32>>::new());
    for pod in &pods.items {
        let app = pod.labels().get("app").cloned().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("a Pod is on no node")?;
        let number: u32 = node.rsplit('-').next().unwrap_or_default().parse().with_context(|| node.clone())?;
        *zones.entry(app.clone()).or_default().entry(number % ZONES).or_default() += 1;
        ensure!(places.insert((app, node.clone())), "{node} has two Pods of an application");
    }
    let all = setup.fake_nodes.min(ZONES);
    for (app, counts) in &zones {
        let of = |zone| counts.get(&zone).copied().unwrap_or(0);
        let (least, most) = ((0..all).map(of).min(), (0..all).map(of).max());
        ensure!(most <= least.map(|least| least + 1), "{app} is spread unevenly: {counts:?}");
    }
    Ok(())
}
