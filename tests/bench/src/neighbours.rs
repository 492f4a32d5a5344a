//! What one Pod's requests take beside others that spin: without limits, and held to a hundredth of a core.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use wherry_test::{Cluster, PATIENCE, is_root, wasm_layout};

use crate::Setup;
use crate::report::Report;
use crate::requests::{measure, serve_hello};

const SPIN: &str = r#"(module (func (export "_start") (loop $l (br $l))))"#;
const IMAGE: &str = "bench.wherry.dev/spin:1";

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Report>> {
    if !is_root("entering the node's network") {
        return Ok(Vec::new());
    }
    let cluster = setup.cluster()?;
    let ip = serve_hello(&cluster)?;
    let file = cluster.scratch().join("spin.tar");
    wasm_layout(&file, &wat::parse_str(SPIN)?)?;
    cluster.load(&file, IMAGE)?;
    let mut reports = vec![measure(&cluster, "hello alone", &ip, setup.seconds).await?];
    for (what, spinners, limit) in
        [("beside 50 that spin", 50, ""), ("beside 100 of limits.cpu 10m", 100, "limits: {cpu: 10m}")]
    {
        start(&cluster, spinners, limit)?;
        reports.push(measure(&cluster, what, &ip, setup.seconds).await?);
        if !limit.is_empty() {
            reports.push(shares(&cluster, Duration::from_secs(setup.seconds)).await?);
        }
        cluster.kubectl().ok("delete pod -l app=spin --grace-period=0 --force --timeout=60s")?;
    }
    Ok(reports)
}

/// What those that spin take of a core, by the node's own account: all together, and who takes least and most.
async fn shares(cluster: &Cluster, time: Duration) -> anyhow::Result<Report> {
    let before = used(cluster)?;
    tokio::time::sleep(time).await;
    let mut shares = Vec::new();
    for (pod, (at, nanos)) in used(cluster)? {
        let (since, known) = before.get(&pod).with_context(|| format!("{pod} was not there"))?;
        #[allow(clippy::cast_precision_loss, reason = "some seconds in nanoseconds")]
        shares.push(nanos.saturating_sub(*known) as f64 / 1e9 / at.duration_since(*since).as_secs_f64());
    }
    let ends = [shares.iter().copied().reduce(f64::min), shares.iter().copied().reduce(f64::max)];
    let [Some(least), Some(most)] = ends else { anyhow::bail!("nobody spins") };
    let figures = vec![("cores", shares.iter().sum()), ("least millis", least * 1e3), ("most millis", most * 1e3)];
    Ok(Report { what: "their cores".into(), figures })
}

/// Processor time of each Pod that spins, in nanoseconds, and when the node looked.
fn used(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, (Timestamp, u64)>> {
    let node = cluster.kubectl().ok("get nodes -o jsonpath={.items[0].metadata.name}")?;
    let summary = cluster.kubectl().ok(&format!("get --raw /api/v1/nodes/{node}/proxy/stats/summary"))?;
    let summary: Value = serde_json::from_str(&summary)?;
    let pods = summary["pods"].as_array().context("no Pods")?.iter();
    let named = pods.filter_map(|pod| Some((pod["podRef"]["name"].as_str()?, &pod["containers"][0]["cpu"])));
    let used = named.filter(|(name, _)| name.starts_with("spin-")).map(|(name, cpu)| {
        let at = cpu["time"].as_str().with_context(|| format!("{name} has no time: {cpu}"))?.parse()?;
        let nanos = cpu["usageCoreNanoSeconds"].as_u64().with_context(|| format!("{name} has no usage: {cpu}"))?;
        Ok((name.to_owned(), (at, nanos)))
    });
    used.collect()
}

fn start(cluster: &Cluster, count: u32, limit: &str) -> anyhow::Result<()> {
    let mut manifests = String::new();
    for number in 0..count {
        write!(
            manifests,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: spin-{number}, labels: {{app: spin}}}}\nspec:\n  containers:\n  \
             - {{name: spin, image: \"{IMAGE}\", imagePullPolicy: IfNotPresent, resources: {{{limit}}}}}\n"
        )?;
    }
    cluster.kubectl().apply(&manifests)?;
    cluster.kubectl().wait("--for=condition=Ready pod -l app=spin", PATIENCE)
}
