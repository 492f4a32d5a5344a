//! One Deployment of many replicas of a `wasi:http` component, each with an address, a readiness probe and limits: how long it takes
//! until all are Ready, what they take while nobody asks, how fast the API answers then, whether each answers, what long-running
//! commands beside them take, and how long until they are gone. On one node, and three times as many on three.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use wherry_test::{Cluster, is_root, sample, wasm_layout};

use crate::Setup;
use crate::commands;
use crate::inside::inside;
use crate::report::{Report, cpu_time, memory};
use crate::requests::{address, measure};

const IMAGE: &str = "samples.wherry.dev/hello:1";
const PORT: u16 = 8080;
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: many}\nspec: {selector: {app: many}, ports: [{port: 80, targetPort: 8080}]}\n";
/// Beyond this and its share for each replica, a benchmark is given up.
const LEAST: Duration = Duration::from_secs(60);
const EACH: Duration = Duration::from_millis(60);

/// How many requests the API is asked of each kind.
const ASKED: usize = 500;

/// How many nodes there are where there is not one.
const NODES: u16 = 3;

/// One node.
pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Report>> {
    on(setup, 1).await
}

/// Three nodes, with as many Pods on each.
pub(crate) async fn on_nodes(setup: &Setup) -> anyhow::Result<Vec<Report>> {
    on(setup, NODES).await
}

async fn on(setup: &Setup, nodes: u16) -> anyhow::Result<Vec<Report>> {
    if !is_root("entering the node's network") {
        return Ok(Vec::new());
    }
    let cluster = setup.cluster_of(nodes)?;
    cluster.load(&sample("hello"), IMAGE)?;
    cluster.kubectl().apply(SERVICE)?;
    let client = cluster.client().await?;
    let (deployments, pods) = (Api::default_namespaced(client.clone()), Api::<Pod>::default_namespaced(client));
    let replicas = setup.replicas * u32::from(nodes);
    let limit = LEAST + EACH * replicas;
    let count = f64::from(replicas);

    let what = format!("{replicas} Pods, apply to Ready");
    let mut reports = vec![started(&cluster, what, start(&deployments, served(replicas)), replicas, limit).await?];
    reports.push(idle(&cluster, "idle", setup.seconds).await?);
    reports.extend(ask_api(&cluster, &pods).await?);

    let addresses = addresses(&pods).await?;
    ensure!(addresses.len() == replicas as usize, "{} of {count} Pods have addresses", addresses.len());
    let before = cpu_time(&cluster)?;
    let times = inside(&cluster, move || ask_each(&addresses)).await?;
    let cpu = cpu_time(&cluster)?.saturating_sub(before);
    reports.push(Report::times("each asked once, by its address", times, cpu));
    let ip = address(&cluster, "many")?;
    reports.push(measure(&cluster, "all, by their Service", &ip, setup.seconds).await?);

    let file = cluster.scratch().join("command.tar");
    wasm_layout(&file, &wat::parse_str(commands::PROGRAM)?)?;
    cluster.load(&file, commands::IMAGE)?;
    for (name, pages) in commands::SIZES {
        let what = format!("and {} commands of {} KiB", setup.commands, pages * 64);
        let start = start(&deployments, commands::deployment(name, setup.commands, pages));
        reports.push(started(&cluster, what, start, setup.commands, limit).await?);
    }
    reports.push(idle(&cluster, "idle, with these", setup.seconds).await?);
    reports.push(measure(&cluster, "all served, beside these", &ip, setup.seconds).await?);

    let before = cpu_time(&cluster)?;
    let took = tokio::time::timeout(limit, delete(&deployments, &pods)).await.context("not all are gone")??;
    let cpu = cpu_time(&cluster)?.saturating_sub(before);
    reports.push(Report {
        what: "delete to none left".into(),
        figures: vec![
            ("seconds", took.as_secs_f64()),
            ("Pods/s", count / took.as_secs_f64()),
            ("cpu ms/Pod", cpu.as_secs_f64() * 1e3 / count),
            ("MiB in all", memory(&cluster)? / 1048576.0),
        ],
    });
    Ok(reports)
}

/// What many Pods take from being asked for until all are Ready.
async fn started(
    cluster: &Cluster,
    what: String,
    start: impl Future<Output = anyhow::Result<Duration>>,
    count: u32,
    limit: Duration,
) -> anyhow::Result<Report> {
    let (empty, before) = (memory(cluster)?, cpu_time(cluster)?);
    let took = tokio::time::timeout(limit, start).await.with_context(|| format!("{what}: not all are Ready"))??;
    let (full, cpu) = (memory(cluster)?, cpu_time(cluster)?.saturating_sub(before));
    let count = f64::from(count);
    let figures = vec![
        ("seconds", took.as_secs_f64()),
        ("Pods/s", count / took.as_secs_f64()),
        ("cpu ms/Pod", cpu.as_secs_f64() * 1e3 / count),
        ("MiB in all", full / 1048576.0),
        ("KiB/Pod", (full - empty) / 1024.0 / count),
    ];
    Ok(Report { what, figures })
}

async fn idle(cluster: &Cluster, what: &str, seconds: u64) -> anyhow::Result<Report> {
    let (before, begun) = (cpu_time(cluster)?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let took = begun.elapsed().as_secs_f64();
    let cores = cpu_time(cluster)?.saturating_sub(before).as_secs_f64() / took;
    Ok(Report { what: what.into(), figures: vec![("% of a core", cores * 100.0), ("in seconds", took)] })
}

/// What the API takes for one of the Pods, one request after the other.
async fn ask_api(cluster: &Cluster, pods: &Api<Pod>) -> anyhow::Result<[Report; 2]> {
    let some = pods.list(&ListParams::default().limit(1)).await?.items.pop().context("no Pods")?;
    let name = some.metadata.name.context("no name")?;
    let read = asked(cluster, "the API: a Pod read", |_| async { pods.get(&name).await }).await?;
    let changed = asked(cluster, "the API: a Pod changed", |number| {
        let patch = json!({"metadata": {"annotations": {"bench.wherry.dev/number": number.to_string()}}});
        let name = &name;
        async move { pods.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await }
    });
    Ok([read, changed.await?])
}

/// Requests to the API, one after the other.
async fn asked<F: Future<Output = kube::Result<Pod>>>(
    cluster: &Cluster,
    what: &str,
    ask: impl Fn(usize) -> F,
) -> anyhow::Result<Report> {
    let (before, mut times) = (cpu_time(cluster)?, Vec::with_capacity(ASKED));
    for number in 0..ASKED {
        let begun = Instant::now();
        ask(number).await?;
        times.push(begun.elapsed());
    }
    Ok(Report::times(what, times, cpu_time(cluster)?.saturating_sub(before)))
}

fn served(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "many"}},
            "progressDeadlineSeconds": 3600,
            "template": {
                "metadata": {"labels": {"app": "many"}},
                "spec": {"containers": [{
                    "name": "hello",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": PORT}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": PORT}},
                    // Requests that a small node has room for by the thousand.
                    "resources": {"requests": {"cpu": "0", "memory": "256Ki"}, "limits": {"cpu": "100m", "memory": "16Mi"}},
                }]},
            },
        },
    })
}

/// Creates the Deployment; how long until all its replicas are Ready.
async fn start(deployments: &Api<Deployment>, deployment: Value) -> anyhow::Result<Duration> {
    let deployment: Deployment = serde_json::from_value(deployment)?;
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).context("no replicas")?;
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let begun = Instant::now();
    let made = deployments.create(&PostParams::default(), &deployment).await?;
    let version = made.metadata.resource_version.context("no resourceVersion")?;
    let mut changes =
        deployments.watch(&WatchParams::default().fields(&format!("metadata.name={name}")), &version).await?.boxed();
    loop {
        match next(&mut changes).await? {
            WatchEvent::Modified(deployment) if ready(&deployment) == wanted => return Ok(begun.elapsed()),
            _ => {}
        }
    }
}

fn ready(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

async fn next<K>(
    changes: &mut (impl Stream<Item = kube::Result<WatchEvent<K>>> + Unpin),
) -> anyhow::Result<WatchEvent<K>> {
    match changes.try_next().await? {
        Some(WatchEvent::Error(status)) => bail!("the watch ended: {status:?}"),
        Some(event) => Ok(event),
        None => bail!("the watch ended"),
    }
}

async fn addresses(pods: &Api<Pod>) -> anyhow::Result<Vec<String>> {
    let all = pods.list(&ListParams::default().labels("app=many")).await?;
    Ok(all.items.into_iter().filter_map(|pod| pod.status?.pod_ip).collect())
}

/// The first request that each Pod has but its probe's, by a new connection.
fn ask_each(addresses: &[String]) -> anyhow::Result<Vec<Duration>> {
    let ask = |address: &String| {
        let begun = Instant::now();
        let answer = wherry_test::get(&format!("{address}:{PORT}"), "/").with_context(|| address.clone())?;
        ensure!(answer.status == 200, "{address}: {answer:?}");
        Ok(begun.elapsed())
    };
    addresses.iter().map(ask).collect()
}

/// Deletes the Deployment; how long until its last Pod is gone.
async fn delete(deployments: &Api<Deployment>, pods: &Api<Pod>) -> anyhow::Result<Duration> {
    let known = pods.list_metadata(&ListParams::default().labels("app=many")).await?;
    let (mut left, version) = (known.items.len(), known.metadata.resource_version.context("no resourceVersion")?);
    let mut changes =
        pods.watch_metadata(&WatchParams::default().labels("app=many").timeout(290), &version).await?.boxed();
    let begun = Instant::now();
    deployments.delete("many", &DeleteParams::background()).await?;
    while left > 0 {
        match next(&mut changes).await? {
            WatchEvent::Deleted(_) => left -= 1,
            WatchEvent::Added(_) => left += 1,
            _ => {}
        }
    }
    Ok(begun.elapsed())
}
