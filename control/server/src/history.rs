//! How far back lists can be read as they were.
//!
//! Pages of a list are read at the revision of the first one, and a client may ask for any revision it has seen. Upstream
//! forgets the past by compaction, five minutes late; clients and the conformance suite rely on a token's end. Here too
//! what is older than that is gone for lists, although the store may still know it. Watches are not concerned: they
//! go back as far as the store does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// In how many steps the past is forgotten: what is gone is at most a step younger than it might be.
const STEPS: usize = 5;

/// The oldest revision that lists can be read at.
#[derive(Debug, Default)]
pub(crate) struct History {
    floor: AtomicU64,
}

impl History {
    /// Whether lists can still be read as they were at `revision`.
    pub(crate) fn holds(&self, revision: u64) -> bool {
        revision >= self.floor.load(Ordering::Relaxed)
    }
}

/// Forgets what is older than `lifetime`, until `cancel` fires.
pub(crate) async fn run(engine: Arc<Engine>, lifetime: Duration, cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(lifetime / STEPS as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = VecDeque::with_capacity(STEPS + 1);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Some(floor) = step(&mut seen, engine.store.revision()) {
            engine.history.floor.store(floor, Ordering::Relaxed);
        }
    }
}

/// Notes the newest revision, and gives the one that was the newest [`STEPS`] steps before.
fn step(seen: &mut VecDeque<u64>, newest: u64) -> Option<u64> {
    seen.push_back(newest);
    if seen.len() > STEPS { seen.pop_front() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_forgotten_late() {
        let mut seen = VecDeque::new();
        let floors: Vec<_> = (10..20).map(|revision| step(&mut seen, revision)).collect();
        assert_eq!(floors[..STEPS], [None; STEPS]);
        assert_eq!(floors[STEPS..], [Some(10), Some(11), Some(12), Some(13), Some(14)]);
        let history = History { floor: AtomicU64::new(10) };
        assert!(history.holds(10) && !history.holds(9));
    }
}
