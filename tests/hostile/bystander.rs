//! A well-behaved Pod that is asked without pause while others misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use wherry_test::get;

/// What the questions came to.
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) failed: Vec<String>,
}

/// Asks until it is stopped.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<Tally>,
}

impl Bystander {
    pub(crate) fn ask(address: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let asking = std::thread::spawn(move || {
            let mut tally = Tally { answered: 0, failed: Vec::new() };
            while !stopped.load(Ordering::Relaxed) {
                match get(&address, "/") {
                    Ok(answer) if answer.status == 200 => tally.answered += 1,
                    other => tally.failed.push(format!("{other:?}")),
                }
            }
            tally
        });
        Self { stop, asking }
    }

    pub(crate) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.asking.join().unwrap()
    }
}
