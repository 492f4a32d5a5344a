//! The command behind `tests/bench/run.sh`.

use std::path::PathBuf;

use clap::Parser;
use wherry_bench::{BENCHMARKS, Setup};

/// Measure a wherry binary.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure; everything where none is named
    #[arg(value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(BENCHMARKS))]
    names: Vec<String>,
    /// The binary
    #[arg(long, value_name = "PATH")]
    wherry: PathBuf,
    /// Where NAME.jsonl is written
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How many Pods are started, one after the other
    #[arg(long, value_name = "N", default_value_t = 200)]
    pods: usize,
    /// How many replicas the Deployment of `density` has
    #[arg(long, value_name = "N", default_value_t = 1000)]
    replicas: u32,
    /// How long requests are sent
    #[arg(long, value_name = "N", default_value_t = 10)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { names, wherry, out, pods, replicas, seconds } = Arguments::parse();
    let setup = Setup { wherry, out, pods, replicas, seconds };
    let names = if names.is_empty() { BENCHMARKS.map(str::to_owned).to_vec() } else { names };
    for name in names {
        wherry_bench::run(&name, &setup).await?;
    }
    Ok(())
}
