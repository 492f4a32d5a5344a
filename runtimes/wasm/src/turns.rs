//! Turns: who runs where guests want more of the processors than there is.
//!
//! A guest that was preempted, because it wanted more than its slice, runs on only when it has a turn. There are as many turns as
//! processors for guests, and they are given to the container that has had the least CPU time for its weight, as the
//! kernel's scheduler does among processes. Whoever waits for a request or for I/O needs no turn: it finds a thread at once, not one behind
//! fifty that spin.
//!
//! A guest that has its turn runs outside the async workers ([`Turn::run`]), which meanwhile go on with everyone else, at a
//! priority below theirs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::engine;

thread_local! {
    /// Whether the guest that runs on this thread was preempted.
    static PREEMPTED: Cell<bool> = const { Cell::new(false) };
}

/// Says that the guest on this thread was made to give its thread back.
pub(crate) fn preempted() {
    PREEMPTED.set(true);
}

/// Whether [`preempted`] was said on this thread since this was last asked.
pub(crate) fn take_preempted() -> bool {
    PREEMPTED.take()
}

/// The turns of one runtime's guests.
pub(crate) struct Turns(Mutex<Line>);

/// Where a guest stands in line: its container's weighted CPU time, then when it came.
type Place = (u64, u64);

struct Line {
    /// Turns that nobody has.
    free: usize,
    /// The weighted time of whoever got a turn last. Containers that were idle begin here: nobody saves turns up.
    floor: u64,
    arrivals: u64,
    waiting: BTreeMap<Place, Waker>,
}

impl Line {
    /// Gives a turn that has become free to the first in line.
    fn pass_on(&mut self) -> Option<Waker> {
        let Some((place, waker)) = self.waiting.pop_first() else {
            self.free += 1;
            return None;
        };
        self.floor = self.floor.max(place.0);
        Some(waker)
    }
}

impl Turns {
    /// At most `turns` guests that were preempted run at once.
    pub(crate) fn new(turns: usize) -> Self {
        Self(Mutex::new(Line { free: turns.max(1), floor: 0, arrivals: 0, waiting: BTreeMap::new() }))
    }

    /// The place of a container that has had `time`, and the time that it counts as having had.
    fn place(&self, time: u64) -> Place {
        let mut line = self.0.lock();
        line.arrivals += 1;
        (time.max(line.floor), line.arrivals)
    }

    /// Joins the line; `time` is the container's CPU time so far, weighted.
    pub(crate) fn join(self: &Arc<Self>, time: u64) -> Ticket {
        Ticket { turns: Arc::clone(self), place: self.place(time), stage: Stage::New }
    }

    fn give_back(&self) {
        let next = self.0.lock().pass_on();
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

enum Stage {
    New,
    InLine,
    Served,
}

/// A place in line, which becomes a [`Turn`]. Dropped, it is given up.
pub(crate) struct Ticket {
    turns: Arc<Turns>,
    place: Place,
    stage: Stage,
}

impl Ticket {
    /// The weighted time that the container is held to have had: never less than those who were served before it.
    pub(crate) fn time(&self) -> u64 {
        self.place.0
    }
}

impl Future for Ticket {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn> {
        let this = &mut *self;
        let mut line = this.turns.0.lock();
        let served = match this.stage {
            Stage::New if line.free > 0 => {
                line.free -= 1;
                line.floor = line.floor.max(this.place.0);
                true
            }
            // Whoever gave it the turn has taken it out of the line.
            Stage::InLine => !line.waiting.contains_key(&this.place),
            _ => false,
        };
        if served {
            drop(line);
            this.stage = Stage::Served;
            return Poll::Ready(Turn(Arc::clone(&this.turns)));
        }
        line.waiting.insert(this.place, cx.waker().clone());
        drop(line);
        this.stage = Stage::InLine;
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A turn that was given to it and not taken goes to the next.
        if matches!(self.stage, Stage::InLine) && self.turns.0.lock().waiting.remove(&self.place).is_none() {
            self.turns.give_back();
        }
    }
}

/// The right to run for one slice; dropped, the next in line has it.
pub(crate) struct Turn(Arc<Turns>);

impl Turn {
    /// Runs a slice on this thread. The async worker that the thread was goes on elsewhere meanwhile.
    pub(crate) fn run<T>(self, slice: impl FnOnce() -> T) -> T {
        tokio::task::block_in_place(|| engine::behind_others(slice))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn ask(ticket: &mut Ticket, bell: &Arc<Bell>) -> Option<Turn> {
        match ticket.poll_unpin(&mut Context::from_waker(&Waker::from(Arc::clone(bell)))) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_free_turn_is_had_at_once_and_the_next_one_when_it_is_given_back() {
        let (turns, bell) = (Arc::new(Turns::new(1)), Arc::<Bell>::default());
        let first = ask(&mut turns.join(0), &bell).unwrap();
        let (mut late, mut early) = (turns.join(20), turns.join(10));
        assert!(ask(&mut late, &bell).is_none() && ask(&mut early, &bell).is_none());
        drop(first);
        assert_eq!(bell.0.load(Ordering::SeqCst), 1, "one turn wakes one guest");
        assert!(ask(&mut late, &bell).is_none(), "it has had more time");
        let second = ask(&mut early, &bell).unwrap();
        assert!(ask(&mut late, &bell).is_none());
        drop(second);
        assert!(ask(&mut late, &bell).is_some());
    }

    #[test]
    fn a_turn_that_is_not_taken_goes_on() {
        let (turns, bell) = (Arc::new(Turns::new(1)), Arc::<Bell>::default());
        let first = ask(&mut turns.join(0), &bell).unwrap();
        let (mut gone, mut next, mut left) = (turns.join(1), turns.join(2), turns.join(3));
        for ticket in [&mut gone, &mut next, &mut left] {
            assert!(ask(ticket, &bell).is_none());
        }
        drop(left);
        drop(first);
        drop(gone);
        assert!(ask(&mut next, &bell).is_some());
        assert!(ask(&mut turns.join(0), &bell).is_some(), "what was given up in line is no turn lost");
    }

    #[test]
    fn who_was_idle_has_saved_nothing() {
        let (turns, bell) = (Arc::new(Turns::new(1)), Arc::<Bell>::default());
        drop(ask(&mut turns.join(1_000), &bell).unwrap());
        assert_eq!(turns.join(0).time(), 1_000);
        assert_eq!(turns.join(2_000).time(), 2_000);
    }

    proptest! {
        /// Containers that spin get processors by their weights, however many guests each of them has.
        #[test]
        fn shares_follow_weights(containers in proptest::collection::vec((1u64..20, 1usize..4), 2..6)) {
            let (turns, bell) = (Arc::new(Turns::new(1)), Arc::<Bell>::default());
            let mut time = vec![0u64; containers.len()];
            let mut slices = vec![0u64; containers.len()];
            let mut guests: Vec<(usize, Option<Ticket>)> =
                containers.iter().enumerate().flat_map(|(at, (_, guests))| (0..*guests).map(move |_| (at, None))).collect();
            let total: u64 = containers.iter().map(|(weight, _)| weight).sum();
            let mut turn = ask(&mut turns.join(0), &bell).unwrap();
            for _ in 0..total * 200 {
                // Everyone is in line, then one of them gets the turn.
                for (at, ticket) in &mut guests {
                    let ticket = ticket.get_or_insert_with(|| turns.join(time[*at]));
                    time[*at] = time[*at].max(ticket.time());
                    prop_assert!(ask(ticket, &bell).is_none());
                }
                drop(turn);
                let mut served = None;
                for (at, ticket) in &mut guests {
                    if let Some(turn) = ask(ticket.as_mut().unwrap(), &bell) {
                        prop_assert!(served.is_none(), "one turn is had by one guest");
                        time[*at] += 10_000 / containers[*at].0;
                        slices[*at] += 1;
                        served = Some(turn);
                        *ticket = None;
                    }
                }
                turn = served.unwrap();
            }
            for (had, (weight, _)) in slices.iter().zip(&containers) {
                let wanted = weight * 200;
                prop_assert!(had.abs_diff(wanted) <= wanted / 10 + 10, "{had} slices, {wanted} by its weight: {slices:?}");
            }
        }
    }
}
