//! How long a Pod of a cached Wasm image takes, from its POST until a watch tells that it is Ready.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use wherry_test::{PATIENCE, sample};

use crate::Setup;
use crate::report::{Report, cpu_time};

const IMAGE: &str = "samples.wherry.dev/hello:1";
/// Started before it counts.
const WARM: usize = 5;

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Report>> {
    let cluster = setup.cluster()?;
    cluster.load(&sample("hello"), IMAGE)?;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client().await?);
    let probed = json!({"httpGet": {"path": "/", "port": 8080}});
    let mut reports = Vec::new();
    for (what, probe) in [("Ready when it runs", Value::Null), ("Ready when it has answered", probed)] {
        for number in 0..WARM {
            start(&pods, &pod(&format!("warm-{number}"), &probe)).await?;
        }
        let (mut times, before) = (Vec::new(), cpu_time(&cluster)?);
        for number in 0..setup.pods {
            times.push(start(&pods, &pod(&format!("pod-{number}"), &probe)).await?);
        }
        let cpu = cpu_time(&cluster)?.saturating_sub(before);
        reports.push(Report::times(what, times, cpu));
    }
    Ok(reports)
}

fn pod(name: &str, probe: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "hello"}},
        "spec": {"containers": [{
            "name": "hello",
            "image": IMAGE,
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

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
