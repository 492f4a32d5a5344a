//! What a cluster takes when nothing is asked of it: its start on a directory that is there, its memory, the binary's size; then
//! the same with Pods that nobody asks.

use std::time::{Duration, Instant};

use anyhow::Context;
use wherry_test::{Cluster, sample};

use crate::Setup;
use crate::process;
use crate::report::{Report, cpu_time};
use crate::requests::many;

/// How often it is started.
const STARTS: usize = 5;
const MIB: f64 = 1_048_576.0;

pub(crate) async fn run(setup: &Setup) -> anyhow::Result<Vec<Report>> {
    let mut cluster = setup.cluster()?;
    cluster.load(&sample("hello"), "samples.wherry.dev/hello:1")?;
    #[allow(clippy::cast_precision_loss, reason = "a file is small")]
    let size = std::fs::metadata(&setup.wherry)?.len() as f64;
    let mut reports = vec![Report { what: "the binary".into(), figures: vec![("MiB", size / MIB)] }];
    let (mut times, mut cpu) = (Vec::new(), Duration::ZERO);
    for _ in 0..STARTS {
        cluster.stop()?;
        let begun = Instant::now();
        cluster.resume()?;
        times.push(begun.elapsed());
        cpu += cpu_time(&cluster)?;
    }
    reports.push(Report::times("started again, until ready", times, cpu));
    reports.push(idle(&cluster, "idle, no Pods", setup.idle).await?);
    many(&cluster, setup.idle_pods).await?;
    reports.push(idle(&cluster, &format!("idle, {} Pods", setup.idle_pods), setup.idle).await?);
    Ok(reports)
}

/// Figures of the cluster's process over some seconds in which nobody asks anything of it.
async fn idle(cluster: &Cluster, what: &str, seconds: u64) -> anyhow::Result<Report> {
    let id = cluster.process().context("the cluster does not run")?.id();
    // What the work before left to be done is done.
    tokio::time::sleep(Duration::from_secs(seconds.min(5))).await;
    let (cpu, written, begun) = (process::cpu_time(id)?, process::written(id)?, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let took = begun.elapsed().as_secs_f64();
    let cpu = process::cpu_time(id)?.saturating_sub(cpu).as_secs_f64();
    let written = process::written(id)? - written;
    let figures = vec![
        ("MiB", process::anonymous(id)? / MIB),
        ("MiB of files", process::of_files(id)? / MIB),
        ("% of a core", cpu / took * 100.0),
        ("KiB written", written / 1024.0),
        ("in seconds", took),
    ];
    Ok(Report { what: what.to_owned(), figures })
}
