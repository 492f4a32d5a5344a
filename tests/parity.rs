//! One table of scenarios, run on one cluster with Pods of WebAssembly, of containers, and of both: what the API tells of a Pod is
//! equal for all, and equal to what a kubelet tells.
//!
//! ```text
//!  scenarios (roles, what happens, what is told) ─► arrangement: roles → images ─► stage: a namespace for each
//!                                                                                     │ kubectl, requests through a Service
//!  journal: one watch of all Pods and Events ─► trace: text ──────────────────────────┴─► equal to told, written out
//!  points: what a manifest may say ─► the scenario, or the test of both kinds, that plays it
//! ```
//!
//! A trace holds no times, names or addresses, and a state that was told only as the last one counts as told. Each
//! expectation is written from kubelet's sources, so that two equal mistakes do not pass.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "parity/arrangement.rs"]
mod arrangement;
#[path = "parity/journal.rs"]
mod journal;
#[path = "parity/points.rs"]
mod points;
#[path = "parity/rebuild.rs"]
mod rebuild;
#[path = "parity/scenarios/mod.rs"]
mod scenarios;
#[path = "parity/stage.rs"]
mod stage;
#[path = "parity/told.rs"]
mod told;
#[path = "parity/trace.rs"]
mod trace;

use std::sync::Mutex;

use arrangement::{Arrangement, Kind};
use journal::Journal;
use scenarios::Scenario;
use stage::{Place, Stage};
use wherry_test::{Cluster, Options, Registry, echo_image, image_of, is_root, sample, wasm_layout};

/// Scenarios under way at once; most of their time is waiting.
const AT_ONCE: usize = 8;

#[test]
fn pods_of_each_kind_and_of_both_behave_as_a_kubelet_s_do() -> anyhow::Result<()> {
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
    let tool = cluster.scratch().join("tool.tar");
    wasm_layout(&tool, &wat::parse_str(include_str!("kubectl/tool.wat"))?)?;
    cluster.load(&tool, Kind::Wasm.tool())?;
    cluster.load(&image_of("cat", "/bin/cat", &[("/bin/cat", "/usr/bin/busybox")])?, Kind::Container.tool())?;
    let journal = Journal::start(&cluster)?;
    let place = Place { cluster: &cluster, journal: &journal, registry: &registry };
    let only = std::env::var("PARITY").unwrap_or_default();
    let table: Vec<(Scenario, Arrangement)> = scenarios::all()
        .into_iter()
        .filter(|scenario| scenario.name.contains(&only))
        .flat_map(|scenario| Arrangement::ALL.map(|arrangement| (scenario, arrangement)))
        .collect();
    let (next, failures) = (Mutex::new(table.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some((scenario, arrangement)) = next.lock().unwrap().next() else { return };
                    let started = std::time::Instant::now();
                    if let Err(error) = play(place, scenario, *arrangement) {
                        let arrangement = arrangement.name();
                        failures.lock().unwrap().push(format!("== {} as {arrangement}\n{error:#}\n", scenario.name));
                    }
                    eprintln!("{} as {} took {:?}", scenario.name, arrangement.name(), started.elapsed());
                }
            });
        }
    });
    let mut failures = failures.into_inner()?;
    failures.sort();
    assert!(failures.is_empty(), "{} of {} failed\n{}", failures.len(), table.len(), failures.join("\n"));
    Ok(())
}

/// One scenario in one arrangement.
fn play(place: Place<'_>, scenario: &Scenario, arrangement: Arrangement) -> anyhow::Result<()> {
    let stage = Stage::set(place, scenario.name, arrangement, &(scenario.manifest)())?;
    let played = (scenario.play)(&stage);
    let compared = stage.compare(scenario.expected);
    let gone = stage.clear();
    played.and(compared).and(gone)
}
