//! How fast a Deployment of many replicas is made and rolled over, beside kube-controller-manager and kube-scheduler.
//!
//! Nodes are objects alone; the client that plays them says that a Pod runs as soon as it is bound, and lets go what is deleted. It is
//! counted from the request to when the Deployment's own status says that all replicas are updated and available, with none left over.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::Setup;
use crate::fake_nodes;
use crate::peer::Part;
use crate::report::{Column, Report};
use crate::side::Side;

const NAME: &str = "rolled";
const LEAST: Duration = Duration::from_secs(60);
const EACH: Duration = Duration::from_millis(200);

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Column>> {
    let mut columns = vec![measure(setup, Side::ours(setup).await?).await?];
    if let Some(peer) = Side::peer(setup, &[Part::ControllerManager, Part::Scheduler]).await? {
        columns.push(measure(setup, peer).await?);
    }
    Ok(columns)
}

async fn measure(setup: &Setup, side: Side) -> anyhow::Result<Column> {
    let mut watch = fake_nodes::start(&side.client, setup.fake_nodes, true).await?;
    let deployments: Api<Deployment> = Api::default_namespaced(side.client.clone());
    let (limit, pods) = (LEAST + EACH * setup.rolled, f64::from(setup.rolled));
    let mut reports = Vec::new();
    for (what, change) in [("create", None), ("roll over", Some("second"))] {
        let (before, part_before) = (side.cpu_time()?, side.cpu_time_of(Part::ControllerManager)?);
        // The fake nodes' tasks are looked at meanwhile.
        let took = tokio::select! {
            took = roll(&deployments, setup.rolled, change) => took?,
            failed = watch.wait(limit, |_| false) => bail!("{what}: {failed:?}"),
        };
        let cpu = side.cpu_time()?.saturating_sub(before);
        let part = side.cpu_time_of(Part::ControllerManager)?.saturating_sub(part_before);
        let figures = vec![
            ("seconds", took.as_secs_f64()),
            ("Pods/s", pods / took.as_secs_f64()),
            ("cpu ms/Pod", cpu.as_secs_f64() * 1e3 / pods),
            ("controllers'", part.as_secs_f64() * 1e3 / pods),
            ("MiB", side.memory()?),
        ];
        reports.push(Report { what: format!("{what} {} replicas", setup.rolled), figures });
    }
    check(&side.client, setup).await.with_context(|| side.name)?;
    Ok(Column { by: side.name, reports })
}

/// Makes the Deployment or changes its template; how long until it is complete.
async fn roll(deployments: &Api<Deployment>, replicas: u32, change: Option<&str>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let asked = match change {
        None => deployments.create(&PostParams::default(), &serde_json::from_value(deployment(replicas))?).await?,
        Some(value) => {
            let template = json!({"spec": {"template": {"metadata": {"annotations": {"example.com/change": value}}}}});
            deployments.patch(NAME, &PatchParams::default(), &Patch::Merge(template)).await?
        }
    };
    let generation = asked.metadata.generation.context("no generation")?;
    let mut version = asked.resource_version().context("no resourceVersion")?;
    loop {
        let params = WatchParams::default().fields(&format!("metadata.name={NAME}"));
        let mut changes = deployments.watch(&params, &version).await?.boxed();
        while let Some(change) = changes.try_next().await? {
            let (WatchEvent::Added(now) | WatchEvent::Modified(now)) = change else { continue };
            if is_complete(&now, generation, i32::try_from(replicas)?) {
                return Ok(begun.elapsed());
            }
            version = now.resource_version().context("no resourceVersion")?;
        }
    }
}

fn is_complete(deployment: &Deployment, generation: i64, wanted: i32) -> bool {
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation >= Some(generation)
            && [status.replicas, status.updated_replicas, status.available_replicas] == [Some(wanted); 3]
    })
}

fn deployment(replicas: u32) -> serde_json::Value {
    json!({
        "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": 3600,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "automountServiceAccountToken": false,
                    "containers": [{
                        "name": "main", "image": "registry.example.com/team/app:1.2.3",
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                    }],
                },
            },
        },
    })
}

/// One ReplicaSet has all replicas, the other none; nothing else is there.
async fn check(client: &Client, setup: &Setup) -> anyhow::Result<()> {
    let sets = Api::<ReplicaSet>::default_namespaced(client.clone()).list(&ListParams::default()).await?;
    let mut sizes: Vec<_> =
        sets.items.iter().map(|set| set.status.as_ref().map_or(0, |status| status.replicas)).collect();
    sizes.sort_unstable();
    ensure!(sizes == [0, i32::try_from(setup.rolled)?], "the ReplicaSets have {sizes:?}");
    // Old ones may still be on their way out.
    let pods = Api::<Pod>::default_namespaced(client.clone()).list(&ListParams::default()).await?;
    let left = pods.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let changed = left.filter(|pod| pod.annotations().contains_key("example.com/change")).count();
    ensure!(changed == setup.rolled as usize, "{changed} Pods are of the new template");
    Ok(())
}
