//! How long a Pod of a cached image takes, from its POST until a watch tells that it is Ready; many of them at once; one of a new image.
//! Beside it, where peers are at hand: the same Pods as containers, and a kubelet with containerd.

mod kubelet;
mod many;
mod new_image;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use wherry_test::{Cluster, PATIENCE, echo_image, is_root, sample};

use crate::Setup;
use crate::report::{Column, Report, cpu_time};
use crate::seen::is_ready;
pub(crate) use kubelet::inside as beside_kubelet;

const WASM: &str = "samples.wherry.dev/hello:1";
const CONTAINER: &str = "samples.wherry.dev/echo-native:latest";
/// Started before it counts.
const WARM: usize = 5;

/// Who starts Pods of which image.
struct Subject<'a> {
    client: Client,
    image: &'a str,
    /// Processor time used so far.
    cpu: &'a (dyn Fn() -> anyhow::Result<Duration> + Sync),
}

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Column>> {
    let cluster = setup.cluster()?;
    cluster.load(&sample("hello"), WASM)?;
    let cpu = || cpu_time(&cluster);
    let subject = Subject { client: cluster.client().await?, image: WASM, cpu: &cpu };
    let mut reports = one_by_one(&subject, setup).await?;
    reports.extend(many::run(&subject, setup).await?);
    reports.extend(many::first_requests(&cluster).await?);
    reports.extend(new_image::run(&cluster, setup).await?);
    let mut columns = vec![Column::from(reports)];
    if setup.peers.is_some() && is_root("running containers") {
        cluster.load(&echo_image()?, CONTAINER)?;
        columns.push(Column { by: "wherry, container", reports: containers(&cluster, setup).await? });
        drop(cluster);
        columns.push(kubelet::run(setup).await?);
    }
    Ok(columns)
}

/// Pods of a container image on our node. What containerd and runc use is not counted.
async fn containers(cluster: &Cluster, setup: &Setup) -> anyhow::Result<Vec<Report>> {
    let cpu = || cpu_time(cluster);
    let subject = Subject { client: cluster.client().await?, image: CONTAINER, cpu: &cpu };
    let setup = kubelet::few(setup);
    let mut reports = one_by_one(&subject, &setup).await?;
    reports.extend(many::bursts(&subject, &setup).await?);
    Ok(reports)
}

async fn one_by_one(subject: &Subject<'_>, setup: &Setup) -> anyhow::Result<Vec<Report>> {
    let pods: Api<Pod> = Api::default_namespaced(subject.client.clone());
    let probed = json!({"httpGet": {"path": "/", "port": 8080}});
    let mut reports = Vec::new();
    for (what, probe) in [("Ready when it runs", Value::Null), ("Ready when it has answered", probed)] {
        for number in 0..WARM {
            start(&pods, &pod(&format!("warm-{number}"), subject.image, &probe)).await?;
        }
        let (mut times, before) = (Vec::new(), (subject.cpu)()?);
        for number in 0..setup.pods {
            times.push(start(&pods, &pod(&format!("pod-{number}"), subject.image, &probe)).await?);
        }
        reports.push(Report::times(what, times, (subject.cpu)()?.saturating_sub(before)));
    }
    Ok(reports)
}

fn pod(name: &str, image: &str, probe: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "hello"}},
        "spec": {"automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "hello",
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "ports": [{"containerPort": 8080}],
            "readinessProbe": probe,
        }]},
    })
}

/// Starts one Pod, whose time is the result, and has it gone before it returns.
async fn start(pods: &Api<Pod>, pod: &Value) -> anyhow::Result<Duration> {
    let pod: Pod = serde_json::from_value(pod.clone())?;
    let name = pod.metadata.name.clone().context("the Pod has no name")?;
    let selector = format!("metadata.name={name}");
    let params = WatchParams::default().fields(&selector).timeout(PATIENCE.as_secs().try_into()?);
    let known = pods.list(&kube::api::ListParams::default().fields(&selector)).await?;
    let version = known.metadata.resource_version.context("the list has no resourceVersion")?;
    let mut changes = pods.watch(&params, &version).await?.boxed();
    let begun = Instant::now();
    pods.create(&PostParams::default(), &pod).await?;
    let took = loop {
        match changes.try_next().await? {
            Some(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) if is_ready(&pod) => break begun.elapsed(),
            Some(WatchEvent::Error(status)) => bail!("the watch ended: {status:?}"),
            Some(_) => {}
            None => bail!("{name} was not Ready in {PATIENCE:?}"),
        }
    };
    pods.delete(&name, &DeleteParams::default()).await?;
    while let Some(change) = changes.try_next().await? {
        if matches!(change, WatchEvent::Deleted(_)) {
            return Ok(took);
        }
    }
    bail!("{name} was not deleted in {PATIENCE:?}")
}
