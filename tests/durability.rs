//! kill -9 under a writing load, damaged files, stop and start: nothing acknowledged is lost, nothing is left behind.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "durability/damage.rs"]
mod damage;
#[path = "durability/disk.rs"]
mod disk;
#[path = "durability/footprint.rs"]
mod footprint;
#[path = "durability/kills.rs"]
mod kills;
#[path = "durability/ledger.rs"]
mod ledger;
#[path = "durability/lifecycle.rs"]
mod lifecycle;
#[path = "durability/starts.rs"]
mod starts;
#[path = "durability/traces.rs"]
mod traces;
#[path = "durability/ways.rs"]
mod ways;

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
