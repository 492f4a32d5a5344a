//! Benchmarks: each starts a cluster of the real binary, does one thing to it as a client, and reports figures.
//!
//! Figures are printed as a table and kept as lines of JSON. On a small machine client and cluster share the processors: each
//! figure therefore comes with the processor time that the cluster spent on one operation.

mod density;
mod inside;
mod neighbours;
mod pod_start;
mod report;
mod requests;

use std::path::PathBuf;

use anyhow::bail;
use wherry_test::{Cluster, Options};

pub use report::Report;

/// The names of all benchmarks.
pub const BENCHMARKS: [&str; 4] = ["pod-start", "requests", "neighbours", "density"];

/// What to measure, and how much.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The binary.
    pub wherry: PathBuf,
    /// Where the lines of JSON are kept.
    pub out: PathBuf,
    /// Pods to start.
    pub pods: usize,
    /// Replicas of the one Deployment that `density` makes.
    pub replicas: u32,
    /// How long requests are sent.
    pub seconds: u64,
}

impl Setup {
    fn cluster(&self) -> anyhow::Result<Cluster> {
        let binary = std::path::absolute(&self.wherry)?;
        Cluster::start(Options::new(&binary.to_string_lossy()))
    }
}

/// Runs a benchmark, prints its table and appends its lines to `out/NAME.jsonl`.
pub async fn run(name: &str, setup: &Setup) -> anyhow::Result<Vec<Report>> {
    let reports = match name {
        "pod-start" => pod_start::run(setup).await?,
        "requests" => requests::run(setup).await?,
        "neighbours" => neighbours::run(setup).await?,
        "density" => density::run(setup).await?,
        other => bail!("no benchmark is named {other}: there are {}", BENCHMARKS.join(", ")),
    };
    report::publish(name, setup, &reports)?;
    Ok(reports)
}
