//! The control plane on virtual time, with random faults: what a seed says happens, in a fraction of a second.
//!
//! ```text
//!  acts (users, crashes, power) ──┐
//!                                 ▼
//!  controllers, scheduler ──▶ network (late, lost, twice, cut off) ──▶ API server ──▶ store ◀── witness
//!  agents of fake nodes   ──▶     "                                                (every revision)
//! ```
//!
//! Real are the store's cache and watches (over memory), the API server's router with authentication, authorization and admission,
//! all controllers, the scheduler, and the informers and queues between them. Fake are the agents' processes, and what
//! lies between clients and router is troubled. [`world`] gives time and chance.
//!
//! Flow: a cluster begins with a few workloads; for some minutes things happen while the weather is bad; then there is
//! peace, and once nothing has changed for long everything must be exactly as it was asked for (`settled`). What must
//! hold always is checked at each revision of the store (`witness`).
//!
//! Guarantees: a seed is a history. The same seed in a new process of the same build is the same history to the byte.
//!
//! Caveats: one thread runs everything, so two threads within a part are never between each other's instructions; parts
//! are interleaved at their awaits. The store's log, TLS and sockets take no part: tests/durability does that.

mod acts;
mod agent;
mod cluster;
mod machines;
mod manifests;
mod network;
mod rest;
mod settled;
mod store;
mod tree;
mod witness;
pub mod world;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use acts::Acts;
use cluster::Cluster;
use network::Weather;
use witness::Witness;

/// Longer than any timer, backoff or toleration that could still move something.
const QUIET: Duration = Duration::from_secs(700);
/// By then it must have become quiet.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);

/// What came of a seed.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How many revisions there were.
    pub writes: u64,
    /// How long it took, in the simulation.
    pub time: Duration,
    /// A number that tells two histories apart.
    pub digest: u64,
}

/// Runs the history of a seed. An error says what was broken.
pub fn run(seed: u64) -> Result<Outcome, String> {
    let panicked = Arc::new(AtomicBool::new(false));
    note_panics(panicked.clone());
    // A thread without a past: hash seeds are drawn when a thread needs the first one.
    let outcome = std::thread::spawn(move || {
        world::enter(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        runtime.map_err(|error| error.to_string())?.block_on(history(seed))
    });
    let outcome = outcome.join().map_err(|_| "the simulation panicked".to_owned())?;
    // Controllers catch the panics of a pass, and go on.
    if panicked.load(Ordering::Relaxed) { Err("something panicked".to_owned()) } else { outcome }
}

fn note_panics(panicked: Arc<AtomicBool>) {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        panicked.store(true, Ordering::Relaxed);
        tell(info);
    }));
}

async fn history(seed: u64) -> Result<Outcome, String> {
    let mut random = StdRng::seed_from_u64(seed);
    let witness = Arc::new(Witness::default());
    let cluster = Cluster::new(seed, witness.clone()).await?;
    let trouble = [0.0, 0.002, 0.02, 0.1][random.random_range(0..4)];
    cluster.network.set_weather(Weather::of(trouble));
    cluster.fortune.lock().falters = [0.0, 0.2][random.random_range(0..2)];
    cluster.fortune.lock().fails = [0.0, 0.3][random.random_range(0..2)];
    let count = random.random_range(5..40);
    let mut acts = Acts::new(cluster, random, &witness);
    acts.begin().await;
    acts.befall(count).await;
    acts.make_peace().await;
    let begun = world::elapsed();
    while witness.quiet() < QUIET && witness.violation().is_none() {
        if world::elapsed() - begun > PATIENCE {
            let complaints = settled::complaints(&witness, &acts.cluster.machines);
            return Err(format!("there is no end of changes: {complaints:#?}"));
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    if let Some(violation) = witness.violation() {
        return Err(violation);
    }
    let complaints = settled::complaints(&witness, &acts.cluster.machines);
    if !complaints.is_empty() {
        return Err(format!("in the end: {complaints:#?}"));
    }
    Ok(Outcome { writes: witness.writes(), time: world::elapsed(), digest: witness.digest() })
}
