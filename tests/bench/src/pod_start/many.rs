//! Many Pods at once: how long until all are Ready, and what a first request to one of them takes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::Value;
use wherry_test::{Cluster, PATIENCE, is_root};

use super::{Subject, pod};
use crate::Setup;
use crate::fake_nodes::WORKERS;
use crate::inside::inside;
use crate::load;
use crate::report::{Report, cpu_time};
use crate::seen::Watch;

/// How often a burst is repeated.
const ROUNDS: usize = 5;

/// All that are started at once, some and many.
pub(super) async fn run(subject: &Subject<'_>, setup: &Setup) -> anyhow::Result<Vec<Report>> {
    let mut reports = bursts(subject, setup).await?;
    let (pods, mut watch) = (Api::default_namespaced(subject.client.clone()), Watch::start(&subject.client, None));
    let before = (subject.cpu)()?;
    let took = start(&pods, &mut watch, subject.image, setup.sustained).await?;
    let cpu = (subject.cpu)()?.saturating_sub(before);
    #[allow(clippy::cast_precision_loss, reason = "a number of Pods is small")]
    let count = setup.sustained as f64;
    reports.push(Report {
        what: format!("{} in a row, all Ready", setup.sustained),
        figures: vec![
            ("seconds", took.as_secs_f64()),
            ("Pods/s", count / took.as_secs_f64()),
            ("cpu ms/op", cpu.as_secs_f64() * 1e3 / count),
        ],
    });
    Ok(reports)
}

/// Some at once, again and again; all are gone in between and at the end.
pub(super) async fn bursts(subject: &Subject<'_>, setup: &Setup) -> anyhow::Result<Vec<Report>> {
    let (pods, mut watch) = (Api::default_namespaced(subject.client.clone()), Watch::start(&subject.client, None));
    let (mut times, before) = (Vec::new(), (subject.cpu)()?);
    for _ in 0..ROUNDS {
        times.push(start(&pods, &mut watch, subject.image, setup.burst).await?);
        clear(&pods, &mut watch).await?;
    }
    Ok(vec![Report::times(
        format!("{} at once, all Ready", setup.burst),
        times,
        (subject.cpu)()?.saturating_sub(before),
    )])
}

/// The first request that each of the Pods of a cluster has, which are then deleted.
pub(super) async fn first_requests(cluster: &Cluster) -> anyhow::Result<Vec<Report>> {
    let client = cluster.client().await?;
    let (pods, mut watch): (Api<Pod>, _) = (Api::default_namespaced(client.clone()), Watch::start(&client, None));
    let mut reports = Vec::new();
    if is_root("entering the node's network") {
        let all = pods.list(&ListParams::default()).await?;
        let ips = all.items.into_iter().filter_map(|pod| pod.status?.pod_ip);
        let addresses = ips.map(|ip| Ok(SocketAddr::new(ip.parse()?, 8080))).collect::<anyhow::Result<Vec<_>>>()?;
        let before = cpu_time(cluster)?;
        let times = inside(cluster, move || load::one_by_one(&addresses)).await?;
        reports.push(Report::times("the first request to each", times, cpu_time(cluster)?.saturating_sub(before)));
    }
    clear(&pods, &mut watch).await?;
    Ok(reports)
}

/// Creates so many Pods; how long until the last of them is Ready.
async fn start(pods: &Api<Pod>, watch: &mut Watch, image: &str, count: usize) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let create = stream::iter(0..count).map(Ok).try_for_each_concurrent(WORKERS, |number| async move {
        let pod = serde_json::from_value(pod(&format!("many-{number}"), image, &Value::Null))?;
        pods.create(&PostParams::default(), &pod).await?;
        anyhow::Ok(())
    });
    let limit = PATIENCE + Duration::from_millis(100) * u32::try_from(count)?;
    let (_, seen) = tokio::try_join!(create, watch.wait(limit, |seen| seen.ready.len() == count))?;
    Ok(seen.ready.values().max().context("no Pods")?.duration_since(begun))
}

/// Deletes all Pods and waits until they are gone.
async fn clear(pods: &Api<Pod>, watch: &mut Watch) -> anyhow::Result<()> {
    pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    watch.wait(PATIENCE * 3, |seen| seen.bound.is_empty()).await?;
    Ok(())
}
