//! Benchmarks: each starts a cluster of the real binary, does one thing to it as a client, and reports figures.
//!
//! Figures are printed as a table and kept as lines of JSON. On a small machine client and cluster share the processors: each
//! figure therefore comes with the processor time that the cluster spent on one operation.

mod commands;
mod curves;
mod density;
mod fake_nodes;
mod footprint;
mod growth;
mod inside;
mod load;
mod neighbours;
mod peer;
mod pod_start;
mod process;
mod report;
mod requests;
mod rollout;
mod schedule;
mod seen;
mod side;

use std::path::PathBuf;

use anyhow::bail;
use wherry_test::{Cluster, Options};

pub use growth::growth;
pub use report::{Column, Report};

/// The names of all benchmarks.
pub const BENCHMARKS: [&str; 8] =
    ["footprint", "pod-start", "requests", "neighbours", "density", "nodes", "schedule", "rollout"];

/// What to measure, and how much.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The binary.
    pub wherry: PathBuf,
    /// Where the lines of JSON are kept.
    pub out: PathBuf,
    /// Pods that `pod-start` starts one after the other.
    pub pods: usize,
    /// Pods that it starts at once.
    pub burst: usize,
    /// Pods that it starts as fast as they are taken.
    pub sustained: usize,
    /// New images that it starts Pods of.
    pub images: usize,
    /// How large such an image is.
    pub image_bytes: usize,
    /// Pods that `footprint` lets be idle.
    pub idle_pods: usize,
    /// For how many seconds.
    pub idle: u64,
    /// Replicas of the one Deployment that `density` makes; `nodes` makes as many for each of three nodes.
    pub replicas: u32,
    /// Long-running commands of each size that they start beside these.
    pub commands: u32,
    /// Pods that `requests` asks in turn.
    pub in_turn: usize,
    /// Pods that `schedule` finds nodes for.
    pub scheduled: u32,
    /// Replicas of the Deployment that `rollout` rolls over.
    pub rolled: u32,
    /// Nodes that are objects alone, for `schedule` and `rollout`.
    pub fake_nodes: u32,
    /// How long requests are sent.
    pub seconds: u64,
    /// Where the peers' programs are; without them, ours is measured alone.
    pub peers: Option<PathBuf>,
}

impl Setup {
    fn cluster(&self) -> anyhow::Result<Cluster> {
        self.cluster_of(1)
    }

    fn cluster_of(&self, nodes: u16) -> anyhow::Result<Cluster> {
        let binary = std::path::absolute(&self.wherry)?;
        Cluster::start(Options { nodes, ..Options::new(&binary.to_string_lossy()) })
    }
}

/// The programs (tests/bench/peers) that a benchmark measures beside the binary.
#[must_use]
pub fn peers_of(name: &str) -> &'static [&'static str] {
    match name {
        "pod-start" => &["etcd", "kube-apiserver", "kube-scheduler", "kubelet"],
        "requests" => &["wasmtime", "bare-server"],
        "schedule" => &["etcd", "kube-apiserver", "kube-scheduler"],
        "rollout" => &["etcd", "kube-apiserver", "kube-scheduler", "kube-controller-manager"],
        _ => &[],
    }
}

/// The part of `pod-start` that runs in a network of its own; prints what it measured as JSON.
pub async fn beside_kubelet(setup: &Setup) -> anyhow::Result<()> {
    pod_start::beside_kubelet(setup).await
}

/// Runs a benchmark, prints its tables and appends its lines to `out/NAME.jsonl`. The binary's figures come first, then its peers'.
pub async fn run(name: &str, setup: &Setup) -> anyhow::Result<Vec<Column>> {
    let columns = match name {
        "footprint" => vec![footprint::run(setup).await?.into()],
        "pod-start" => pod_start::run(setup).await?,
        "requests" => requests::run(setup).await?,
        "neighbours" => vec![neighbours::run(setup).await?.into()],
        "density" => vec![density::run(setup).await?.into()],
        "nodes" => vec![density::on_nodes(setup).await?.into()],
        "schedule" => schedule::run(setup).await?,
        "rollout" => rollout::run(setup).await?,
        other => bail!("no benchmark is named {other}: there are {}", BENCHMARKS.join(", ")),
    };
    report::publish(name, setup, &columns)?;
    Ok(columns)
}
