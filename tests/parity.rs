//! One table of scenarios, run with echo in both kinds on one cluster: what the API tells of a Pod is equal for both, and equal
//! to what a kubelet tells.
//!
//! ```text
//!  scenarios (manifest, what happens, what is expected) ─► stage: one namespace a scenario and kind
//!                                                             │ kubectl, requests through a Service
//!  journal: one watch of all Pods and Events ─► trace: text ──┴─► equal to the expected one, for wasm and for container
//! ```
//!
//! A trace holds no times, names or addresses, and a state that was told only as the last one counts as told. Each
//! expectation is written from kubelet's sources, so that two equal mistakes do not pass.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "parity/journal.rs"]
mod journal;
#[path = "parity/rebuild.rs"]
mod rebuild;
#[path = "parity/scenarios/mod.rs"]
mod scenarios;
#[path = "parity/stage.rs"]
mod stage;
#[path = "parity/trace.rs"]
mod trace;

use std::sync::Mutex;

use journal::Journal;
use scenarios::Scenario;
use stage::{Kind, Place, Stage};
use wherry_test::{Cluster, Options, Registry, echo_image, is_root, sample};

/// Scenarios under way at once; most of their time is waiting.
const AT_ONCE: usize = 8;

#[test]
fn both_kinds_behave_as_a_kubelet_s_containers_do() -> anyhow::Result<()> {
    if !is_root("a cluster with containers") {
        return Ok(());
    }
    let registry = Registry::start()?;
    let cluster = Cluster::start(Options::new(env!("CARGO_BIN_EXE_wherry")))?;
    let image = echo_image()?;
    for (kind, file) in [(Kind::Wasm, sample("echo")), (Kind::Container, image)] {
        cluster.load(&file, kind.image())?;
        stage::push(&cluster, &file, &registry.reference(&format!("echo:{}", kind.name())))?;
    }
    let journal = Journal::start(&cluster)?;
    let place = Place { cluster: &cluster, journal: &journal, registry: &registry };
    let only = std::env::var("PARITY").unwrap_or_default();
    let table: Vec<(Scenario, Kind)> = scenarios::all()
        .into_iter()
        .filter(|scenario| scenario.name.contains(&only))
        .flat_map(|scenario| Kind::ALL.map(|kind| (scenario, kind)))
        .collect();
    let (next, failures) = (Mutex::new(table.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((scenario, kind)) = next.lock().unwrap().next() else { return };
                    if let Err(error) = play(place, scenario, *kind) {
                        failures.lock().unwrap().push(format!("== {} as {}\n{error:#}\n", scenario.name, kind.name()));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner()?;
    failures.sort();
    assert!(failures.is_empty(), "{} of {} failed\n{}", failures.len(), table.len(), failures.join("\n"));
    Ok(())
}

/// One scenario with one kind.
fn play(place: Place<'_>, scenario: &Scenario, kind: Kind) -> anyhow::Result<()> {
    let stage = Stage::set(place, scenario.name, kind, &(scenario.manifest)())?;
    let played = (scenario.play)(&stage);
    let compared = stage.compare(scenario.expected);
    let gone = stage.clear();
    played.and(compared).and(gone)
}
