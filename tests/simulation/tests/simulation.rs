//! Runs histories of the simulated cluster, each in a process of its own.
//!
//! `WHERRY_SEEDS=10000` runs so many seeds (if unset 48, and those that broke something once), from `WHERRY_FIRST_SEED` (0)
//! on; `WHERRY_SEED=17` runs that one in this process, and `RUST_LOG=act=info,store=debug` shows what happens in it.

use std::{
    collections::BTreeMap,
    process::{Command, ExitCode, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use wherry_simulation::{Outcome, run};

const SEEDS: u64 = 48;
/// Seeds that broke something once. What happens in them changes with the code; they stay close to what they were.
const FOUND: [u64; 18] = [
    40921, 41164, 41371, 41660, 41878, 42044, 42182, 43036, 44779, 44815, 44854, 44883, 45496, 47068, 47200, 47696,
    49159, 52095,
];
/// So many seeds are run twice, to see that a seed is a history.
const TWICE: usize = 2;
/// A history that takes longer does not end.
const LONGEST: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    // What cargo hands to every test program: to this one test a filter applies, or it does not.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("simulation: test");
        return ExitCode::SUCCESS;
    }
    let is_filter = |argument: &&String| argument.starts_with(|first: char| first.is_ascii_alphabetic());
    let mut filters = arguments.iter().filter(is_filter).peekable();
    if filters.peek().is_some() && !filters.any(|filter| "simulation".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = setting("WHERRY_SEED") {
        return one(seed);
    }
    let count = setting("WHERRY_SEEDS");
    let found = if count.is_none() { &FOUND[..] } else { &[] };
    let first = setting("WHERRY_FIRST_SEED").unwrap_or(0);
    let seeds: Vec<u64> = (first..first + count.unwrap_or(SEEDS)).chain(found.iter().copied()).collect();
    many(&seeds)
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

fn one(seed: u64) -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    }
    // On its own thread, where time is real.
    thread::spawn(|| {
        thread::sleep(LONGEST);
        println!("no end after {LONGEST:?}");
        std::process::exit(2);
    });
    match run(seed) {
        Ok(Outcome { writes, time, digest }) => {
            println!("{writes} {} {digest:016x}", time.as_secs());
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn many(seeds: &[u64]) -> ExitCode {
    let begun = Instant::now();
    let turns = Mutex::new(seeds.iter().chain(seeds.iter().take(TWICE)));
    let outcomes: Mutex<BTreeMap<u64, Vec<Result<String, String>>>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(&seed) = turns.lock().expect("no thread panics").next() else { return };
                    let outcome = child(seed);
                    if let Err(what) = &outcome {
                        println!("seed {seed}: {what}\n  again: WHERRY_SEED={seed} RUST_LOG=act=info,store=debug cargo test --workspace --test simulation");
                    }
                    outcomes.lock().expect("no thread panics").entry(seed).or_default().push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().expect("no thread panics");
    let failed = outcomes.values().filter(|runs| runs.iter().any(Result::is_err)).count();
    let unsteady: Vec<_> = outcomes.iter().filter(|(_, runs)| runs.iter().any(|run| *run != runs[0])).collect();
    for (seed, runs) in &unsteady {
        println!("seed {seed} is not one history: {runs:?}");
    }
    let told = outcomes.values().filter_map(|runs| runs[0].as_ref().ok());
    let (writes, hours) = told.fold((0, 0.0), |(writes, hours), line| {
        let mut words = line.split(' ').map(|word| word.parse::<u64>().unwrap_or(0));
        (writes + words.next().unwrap_or(0), hours + words.next().unwrap_or(0) as f64 / 3600.0)
    });
    println!(
        "simulation: {} seeds, {failed} failed, {writes} writes, {hours:.0} hours in {:.0} s",
        outcomes.len(),
        begun.elapsed().as_secs_f64()
    );
    if failed == 0 && unsteady.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a process said of a seed.
fn child(seed: u64) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program);
    child.env("WHERRY_SEED", seed.to_string()).env_remove("RUST_LOG").stdin(Stdio::null());
    let output = child.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(said);
    }
    Err(format!("{said}\n{}{}", String::from_utf8_lossy(&output.stderr), output.status))
}
