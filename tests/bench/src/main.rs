//! The command behind `tests/bench/run.sh`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Parser;
use wherry_bench::{BENCHMARKS, Setup, peers_of};

const GROWTH: &str = "growth";

/// Measure a wherry binary.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything where none is named. `growth` measures some of them at several sizes
    #[arg(value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(BENCHMARKS.into_iter().chain([GROWTH])))]
    names: Vec<String>,
    /// How many Pods there are for `growth`
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1000, 2000, 5000, 10_000])]
    sizes: Vec<u32>,
    /// The binary
    #[arg(long, value_name = "PATH")]
    wherry: PathBuf,
    /// Where NAME.jsonl is written
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many Pods `pod-start` starts, one after the other
    #[arg(long, value_name = "N", default_value_t = 200)]
    pods: usize,
    /// How many Pods it starts at once
    #[arg(long, value_name = "N", default_value_t = 100)]
    burst: usize,
    /// How many Pods it starts as fast as they are taken
    #[arg(long, value_name = "N", default_value_t = 1000)]
    sustained: usize,
    /// How many new images it starts Pods of
    #[arg(long, value_name = "N", default_value_t = 10)]
    images: usize,
    /// How large such an image is
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    image_bytes: usize,
    /// How many Pods `footprint` lets be idle
    #[arg(long, value_name = "N", default_value_t = 100)]
    idle_pods: usize,
    /// For how long
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    idle: u64,
    /// How many replicas the Deployment of `density` has; that of `nodes` has three times as many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    replicas: u32,
    /// How many long-running commands of each size they start beside these
    #[arg(long, value_name = "N", default_value_t = 500)]
    commands: u32,
    /// How many Pods `requests` asks in turn
    #[arg(long, value_name = "N", default_value_t = 1000)]
    in_turn: usize,
    /// How many Pods `schedule` finds nodes for
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    scheduled: u32,
    /// How many replicas the Deployment of `rollout` has
    #[arg(long, value_name = "N", default_value_t = 5_000)]
    rolled: u32,
    /// How many nodes, objects alone, there are for `schedule` and `rollout`
    #[arg(long, value_name = "N", default_value_t = 500)]
    fake_nodes: u32,
    /// How long requests are sent
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
    /// Where the peers' programs are; without them, wherry is measured alone
    #[arg(long, value_name = "DIR")]
    peers: Option<PathBuf>,
    /// Only print the names of the programs that are measured beside it
    #[arg(long)]
    list_peers: bool,
    /// Be the part of `pod-start` beside a kubelet, in the network that this process has
    #[arg(long, hide = true)]
    inside: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let all = || BENCHMARKS.into_iter().chain([GROWTH]).map(str::to_owned).collect();
    let names = if arguments.names.is_empty() { all() } else { arguments.names };
    if arguments.list_peers {
        let needed: BTreeSet<_> = names.iter().flat_map(|name| peers_of(name)).collect();
        needed.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    let setup = Setup {
        wherry: arguments.wherry,
        out: arguments.out,
        pods: arguments.pods,
        burst: arguments.burst,
        sustained: arguments.sustained,
        images: arguments.images,
        image_bytes: arguments.image_bytes,
        idle_pods: arguments.idle_pods,
        idle: arguments.idle,
        replicas: arguments.replicas,
        commands: arguments.commands,
        in_turn: arguments.in_turn,
        scheduled: arguments.scheduled,
        rolled: arguments.rolled,
        fake_nodes: arguments.fake_nodes,
        seconds: arguments.seconds,
        peers: arguments.peers,
    };
    if arguments.inside {
        return wherry_bench::beside_kubelet(&setup).await;
    }
    for name in names {
        if name == GROWTH {
            wherry_bench::growth(&setup, &arguments.sizes).await?;
        } else {
            wherry_bench::run(&name, &setup).await?;
        }
    }
    Ok(())
}
