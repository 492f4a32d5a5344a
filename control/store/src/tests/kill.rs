//! kill -9 at every step of a commit, of a real process.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::sys::signal::{Signal, raise};

use super::*;
use crate::options::Step;

const DIR: &str = "WHERRY_STORE_KILL_DIR";
const AT: &str = "WHERRY_STORE_KILL_AT";

const STEPS: [Step; 8] = [
    Step::BeforeWrite,
    Step::Tear,
    Step::Torn,
    Step::Written,
    Step::BeforeSync,
    Step::Synced,
    Step::Published,
    Step::Acknowledged,
];

/// The process to kill: writes from eight tasks, says what was acknowledged, and dies at a step of some commit (or, should it miss that, ends).
#[test]
#[ignore = "started by the test below"]
fn victim() {
    let (Ok(dir), Ok(at)) = (std::env::var(DIR), std::env::var(AT)) else {
        return;
    };
    let (step, countdown) = at.split_once(' ').unwrap();
    let (step, countdown) = (STEPS[step.parse::<usize>().unwrap()], AtomicUsize::new(countdown.parse().unwrap()));
    let mut options = small();
    options.hook = Arc::new(move |at| {
        // To die with half a batch written, the batch must be torn, which the step before asks for.
        let counted = if step == Step::Torn { Step::Tear } else { step };
        let due = at == counted && countdown.fetch_sub(1, Ordering::SeqCst) == 1;
        if at == Step::Torn || (due && step != Step::Torn) {
            raise(Signal::SIGKILL).unwrap();
        }
        if due { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    });
    let store = Arc::new(open(dir, options).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let writers = (0..8).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0..10_000 {
                    let key = key(&format!("w{writer}-{}", number % 5));
                    let text = format!("{number} {}", "x".repeat(100));
                    let Ok(entry) = store.write(put(&key, Precondition::Any, &text)).await else {
                        break;
                    };
                    println!("acknowledged {} {}", entry.key.name, entry.revision);
                }
            })
        });
        futures::future::join_all(writers).await;
    });
}

#[test]
fn no_acknowledged_write_is_lost_to_kill_9() {
    for (step, name) in STEPS.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
        // The same directory is killed again and again.
        for countdown in [1, 2, 9, 40] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "tests::kill::victim", "--ignored", "--nocapture", "--test-threads=1"])
                .env(DIR, dir.path())
                .env(AT, format!("{step} {countdown}"))
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            for line in BufReader::new(child.stdout.take().unwrap()).lines() {
                // The last line may be cut by the kill.
                if let ["acknowledged", name, revision] = line.unwrap().split(' ').collect::<Vec<_>>()[..]
                    && let Ok(revision) = revision.parse::<u64>()
                {
                    let known = acknowledged.entry(name.to_owned()).or_default();
                    *known = revision.max(*known);
                }
            }
            use std::os::unix::process::ExitStatusExt as _;
            assert_eq!(child.wait().unwrap().signal(), Some(9), "{name:?} {countdown}");
            let store = open(dir.path(), small()).unwrap();
            for (name, revision) in &acknowledged {
                let entry = store.get(&key(name)).unwrap();
                assert!(entry.revision >= *revision, "{name} is at {} after {revision}", entry.revision);
            }
            assert!(store.revision() >= acknowledged.values().copied().max().unwrap_or_default());
        }
    }
}
