//! kill -9 under a writing load, damaged files, stop and start: nothing acknowledged is lost, nothing is left behind.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "durability/converging.rs"]
mod converging;
#[path = "durability/damage.rs"]
mod damage;
#[path = "durability/disk.rs"]
mod disk;
#[path = "durability/footprint.rs"]
mod footprint;
#[path = "durability/guard.rs"]
mod guard;
#[path = "durability/kills.rs"]
mod kills;
#[path = "durability/ledger.rs"]
mod ledger;
#[path = "durability/lifecycle.rs"]
mod lifecycle;
#[path = "durability/load.rs"]
mod load;
#[path = "durability/memory.rs"]
mod memory;
#[path = "durability/settled.rs"]
mod settled;
#[path = "durability/starts.rs"]
mod starts;
#[path = "durability/traces.rs"]
mod traces;
#[path = "durability/ways.rs"]
mod ways;

use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use wherry_test::{Child, Cluster};

/// A cluster of one node with the binary under test.
fn options() -> wherry_test::Options {
    wherry_test::Options::new(env!("CARGO_BIN_EXE_wherry"))
}

/// The seed of this run: `WHERRY_SEED`, else chosen and printed.
fn seed() -> u64 {
    let seed = std::env::var("WHERRY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("WHERRY_SEED={seed}");
    seed
}

/// How a cluster was started again.
struct Started {
    /// A start before was killed.
    killed: bool,
    took: Duration,
}

/// Starts a cluster that was killed; now and then after a start that was killed, too.
fn start_again(cluster: &mut Cluster, random: &mut StdRng) -> anyhow::Result<Started> {
    let killed = random.random_ratio(1, 4);
    if killed {
        let mut process = Child::start("wherry up", &mut cluster.up())?;
        std::thread::sleep(Duration::from_millis(random.random_range(0..150)));
        process.kill()?;
    }
    let begun = Instant::now();
    cluster.resume()?;
    Ok(Started { killed, took: begun.elapsed() })
}
