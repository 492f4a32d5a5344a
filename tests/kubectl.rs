//! Unmodified kubectl of each version: every command that a user of Kubernetes knows, and the exact Status for bad input.
//!
//! One cluster. Each kubectl goes through the scenarios in its own thread, each scenario in a namespace of its own; what
//! touches the node itself comes last, one kubectl after the other. A scenario that fails does not keep the others from running.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "kubectl/authorizing.rs"]
mod authorizing;
#[path = "kubectl/bad_input.rs"]
mod bad_input;
#[path = "kubectl/claiming.rs"]
mod claiming;
#[path = "kubectl/copying.rs"]
mod copying;
#[path = "kubectl/creating.rs"]
mod creating;
#[path = "kubectl/deleting.rs"]
mod deleting;
#[path = "kubectl/describing.rs"]
mod describing;
#[path = "kubectl/discovering.rs"]
mod discovering;
#[path = "kubectl/getting.rs"]
mod getting;
#[path = "kubectl/logging.rs"]
mod logging;
#[path = "kubectl/nodes.rs"]
mod nodes;
#[path = "kubectl/rolling.rs"]
mod rolling;
#[path = "kubectl/scene.rs"]
mod scene;
#[path = "kubectl/streaming.rs"]
mod streaming;
#[path = "kubectl/writing.rs"]
mod writing;

use anyhow::{Result, bail};
use scene::{ECHO, HELLO, Scene, TICKER};
use wherry_test::{Cluster, Kubectl, Options, echo_image, is_root, sample};

/// A scenario and its name, which is part of its namespace's.
type Scenario = (&'static str, fn(&Scene) -> Result<()>);

/// What the kubectls do beside each other.
const SCENARIOS: &[Scenario] = &[
    ("get", getting::forms),
    ("watch", getting::watches),
    ("describe", describing::everything),
    ("discover", discovering::everything),
    ("create", creating::generators),
    ("run", creating::run_and_expose),
    ("apply", writing::apply_and_replace),
    ("apply-on-the-server", writing::apply_on_the_server),
    ("patch", writing::patch_label_annotate),
    ("edit", writing::edit),
    ("delete", deleting::cascades),
    ("force", deleting::grace),
    ("logs", logging::streams),
    ("previous", logging::previous),
    ("exec", streaming::exec),
    ("attach", streaming::attach),
    ("forward", streaming::forward),
    ("cp", copying::both_ways),
    ("rollout", rolling::out_and_back),
    ("set", rolling::set_and_scale),
    ("claims", claiming::from_class_to_end),
    ("roles", authorizing::roles),
    ("yaml", bad_input::as_kubectl_tells_it),
];

/// What needs the node for itself.
const ALONE: &[Scenario] = &[("taint", nodes::taint), ("drain", nodes::cordon_and_drain)];

#[test]
fn every_command() -> Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let cluster = start()?;
    let kubectls = cluster.kubectls();
    let mut failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            kubectls.iter().enumerate().map(|(i, kubectl)| scope.spawn(move || play(kubectl, i, SCENARIOS))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for (i, kubectl) in kubectls.iter().enumerate() {
        failures.extend(play(kubectl, i, ALONE));
    }
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n\n")) }
}

#[tokio::test]
async fn bad_input_is_refused() -> Result<()> {
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    bad_input::over_the_wire(&cluster).await
}

fn start() -> Result<Cluster> {
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    cluster.load(&sample("hello"), HELLO)?;
    cluster.load(&sample("ticker"), TICKER)?;
    cluster.load(&sample("echo"), ECHO[0].1)?;
    cluster.load(&echo_image()?, ECHO[1].1)?;
    streaming::load(&cluster)?;
    copying::load(&cluster)?;
    Ok(cluster)
}

/// Runs scenarios; what went wrong. `WHERRY_SCENARIO` names the only one to run.
fn play(kubectl: &Kubectl, number: usize, scenarios: &[Scenario]) -> Vec<String> {
    let only = std::env::var("WHERRY_SCENARIO").ok();
    let run = |(name, scenario): &Scenario| {
        let started = std::time::Instant::now();
        let scene = Scene::open(kubectl, &format!("{name}-{number}"))?;
        let outcome = scenario(&scene);
        // What a failed one leaves must not hinder the others.
        let closed = scene.close();
        eprintln!("kubectl {number}: {name} took {:?}", started.elapsed());
        outcome.and(closed)
    };
    scenarios
        .iter()
        .filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name))
        .filter_map(|scenario| {
            let outcome: Result<()> = run(scenario);
            outcome.err().map(|error| format!("kubectl {number}, {}: {error:#}", scenario.0))
        })
        .collect()
}
