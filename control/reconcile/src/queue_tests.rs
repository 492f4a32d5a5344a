//! A queue that is told the time.
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

fn take(queue: &Queue<u32>, now: Instant) -> Option<u32> {
    queue.shared.state.lock().take(now)
}

#[test]
fn a_key_is_worked_once_and_again_if_queued_meanwhile() {
    let queue = Queue::new();
    let now = Instant::now();
    queue.add(1);
    queue.add(1);
    queue.add(2);
    assert_eq!(take(&queue, now), Some(1));
    queue.add(1);
    assert_eq!(take(&queue, now), Some(2));
    assert_eq!(take(&queue, now), None, "1 is still being worked");
    queue.rest(1, Duration::ZERO);
    assert_eq!(take(&queue, now), Some(1));
    queue.rest(1, Duration::ZERO);
    queue.rest(2, Duration::ZERO);
    assert_eq!(take(&queue, now), None);
}

#[test]
fn delayed_keys_keep_the_earliest_deadline() {
    let queue = Queue::new();
    let now = Instant::now();
    let at = |seconds| now + Duration::from_secs(seconds);
    {
        let mut state = queue.shared.state.lock();
        state.add_at(1, at(10));
        state.add_at(1, at(5));
        state.add_at(1, at(20));
        state.add_at(2, at(7));
        assert_eq!(state.deadline(), Some(at(5)));
        assert_eq!(state.take(at(4)), None);
        assert_eq!(state.take(at(6)), Some(1));
        assert_eq!(state.take(at(8)), Some(2));
        assert_eq!(state.take(at(60)), None);
    }
}

#[test]
fn what_is_queued_while_a_key_rests_is_worked_once_when_it_has_rested() {
    let queue = Queue::new();
    let now = Instant::now();
    queue.add(1);
    assert_eq!(take(&queue, now), Some(1));
    queue.rest(1, Duration::from_secs(5));
    assert_eq!(queue.shared.state.lock().deadline(), None, "nobody asked for it");
    queue.add(1);
    queue.add(1);
    queue.add(2);
    assert_eq!(take(&queue, now), Some(2), "others do not wait for it");
    assert_eq!(take(&queue, now), None);
    let due = queue.shared.state.lock().deadline().unwrap();
    assert_eq!(take(&queue, due), Some(1));
    queue.rest(1, Duration::ZERO);
    assert_eq!(take(&queue, due), None);
}

#[test]
fn failures_count_until_forgotten() {
    let queue = Queue::new();
    queue.retry(1);
    queue.retry(1);
    assert_eq!(queue.failures(&1), 2);
    queue.forget(&1);
    assert_eq!(queue.failures(&1), 0);
}

#[tokio::test]
async fn next_waits_for_timers_in_order_and_ends_when_cancelled() {
    let queue = Queue::new();
    let cancel = CancellationToken::new();
    queue.add_after(2, Duration::from_millis(4));
    queue.add_after(1, Duration::from_millis(2));
    assert_eq!(queue.next(&cancel).await, Some(1));
    assert_eq!(queue.next(&cancel).await, Some(2));
    cancel.cancel();
    assert_eq!(queue.next(&cancel).await, None);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Add(u8),
    AddAfter(u8, u64),
    Take,
    /// Ends the work that was begun first, to rest so long.
    End(u64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0u8..4).prop_map(Step::Add),
        2 => (0u8..4, 1u64..20).prop_map(|(key, after)| Step::AddAfter(key, after)),
        4 => Just(Step::Take),
        3 => prop_oneof![Just(0), 1u64..20].prop_map(Step::End),
        2 => (1u64..10).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..80)
}

/// What a queue of four keys should do, one field a key; times in seconds.
#[derive(Default)]
struct Slow {
    /// Since when it is to be worked.
    asked: [Option<u64>; 4],
    working: [bool; 4],
    rests_until: [u64; 4],
    timers: [Option<u64>; 4],
}

impl Slow {
    fn ask(&mut self, key: usize, at: u64) {
        self.asked[key] = Some(self.asked[key].map_or(at, |known| known.min(at)));
    }

    fn ring(&mut self, now: u64) {
        for key in 0..4 {
            if let Some(at) = self.timers[key].filter(|at| *at <= now) {
                self.timers[key] = None;
                self.ask(key, at);
            }
        }
    }

    fn is_free(&self, key: usize, now: u64) -> bool {
        self.asked[key].is_some() && !self.working[key] && self.rests_until[key] <= now
    }

    /// The next moment at which time alone makes something of the queue.
    fn moves_at(&self) -> Option<u64> {
        let rested =
            (0..4).filter(|key| self.asked[*key].is_some() && !self.working[*key]).map(|key| self.rests_until[key]);
        self.timers.iter().flatten().copied().chain(rested).min()
    }
}

proptest! {
    #[test]
    fn a_key_is_worked_by_one_after_its_rest_and_as_often_as_asked(steps in steps()) {
        let queue = Queue::<u8>::new();
        let mut state = queue.shared.state.lock();
        let begin = Instant::now();
        let at = |second: u64| begin + Duration::from_secs(second);
        let (mut slow, mut now, mut begun) = (Slow::default(), 0, VecDeque::new());
        // In the end all work is ended, and time passes until nothing is left.
        let rest = std::iter::repeat_n([Step::End(0), Step::Wait(20), Step::Take], 20).flatten();
        for step in steps.into_iter().chain(rest) {
            match step {
                Step::Add(key) => {
                    state.add(key);
                    slow.ask(key.into(), now);
                }
                Step::AddAfter(key, after) => {
                    state.add_at(key, at(now + after));
                    let timer = &mut slow.timers[usize::from(key)];
                    *timer = Some(timer.map_or(now + after, |known| known.min(now + after)));
                }
                Step::Take => {
                    let taken = state.take(at(now));
                    slow.ring(now);
                    let free = (0..4).filter(|key| slow.is_free(*key, now)).count();
                    prop_assert_eq!(taken.is_some(), free > 0);
                    if let Some(key) = taken {
                        begun.push_back(key);
                        let key = usize::from(key);
                        prop_assert!(slow.is_free(key, now), "{} at {}", key, now);
                        (slow.asked[key], slow.working[key]) = (None, true);
                    } else {
                        prop_assert_eq!(state.deadline(), slow.moves_at().map(at), "who waits is woken in time, and not before");
                    }
                }
                Step::End(rest) => {
                    let Some(key) = begun.pop_front() else { continue };
                    if rest == 0 { state.done(&key) } else { state.rest(key, at(now + rest)) }
                    slow.working[usize::from(key)] = false;
                    slow.rests_until[usize::from(key)] = now + rest;
                }
                Step::Wait(seconds) => now += seconds,
            }
        }
        prop_assert!(state.dirty.is_empty() && state.busy.is_empty() && state.awaited.is_empty() && state.resting.is_empty());
    }
}
