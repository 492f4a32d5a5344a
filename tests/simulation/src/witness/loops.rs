//! Nobody writes in circles: how often an object is written within a minute is bounded by how much else changes in it, and
//! by what users have evicted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Place, RESTLESS, State};
use crate::world;

/// What is looked at together.
const WINDOW: Duration = Duration::from_secs(60);
/// So often an object may be written when nothing else changes.
const ALONE: usize = 20;
/// So much more often for each other object that changes.
const FOR_EACH: usize = 3;

/// The writes of the last [`WINDOW`].
#[derive(Default)]
pub(super) struct Lately {
    writes: VecDeque<(Duration, Place)>,
    counts: BTreeMap<Place, usize>,
}

impl State {
    /// Notes that a Pod was evicted, which is a change of its own: who drains a node on which Pods still arrive has them made
    /// again and again.
    pub(super) fn note_eviction(&mut self, pod: &(String, String)) {
        if let Some((uid, _)) = self.evictions.get(pod) {
            let place = ("evictions".to_owned(), pod.0.clone(), uid.clone());
            self.note_write(&place);
        }
    }

    /// Notes a write.
    pub(super) fn note_write(&mut self, place: &Place) {
        let now = world::elapsed();
        let lately = &mut self.lately;
        while lately.writes.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            let Some((_, old)) = lately.writes.pop_front() else { break };
            if let Some(count) = lately.counts.get_mut(&old) {
                *count -= 1;
                if *count == 0 {
                    lately.counts.remove(&old);
                }
            }
        }
        lately.writes.push_back((now, place.clone()));
        let count = lately.counts.entry(place.clone()).or_default();
        *count += 1;
        let count = *count;
        let others = lately.counts.keys().filter(|other| *other != place && !RESTLESS.contains(&&*other.0)).count();
        if count > ALONE + FOR_EACH * others {
            let (resource, namespace, name) = place;
            self.accuse(format!("{resource} {namespace}/{name} was written {count} times within {WINDOW:?}, while {others} others changed"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> Place {
        ("controllerrevisions.apps".to_owned(), "default".to_owned(), name.to_owned())
    }

    #[test]
    fn who_writes_one_object_again_and_again_is_accused() {
        let mut state = State::default();
        (0..ALONE).for_each(|_| state.note_write(&place("db-1")));
        assert_eq!(state.violation, None);
        state.note_write(&place("db-1"));
        let violation = state.violation.unwrap_or_default();
        assert!(violation.contains("controllerrevisions.apps default/db-1 was written 21 times"), "{violation}");
    }

    #[test]
    fn what_changes_with_others_may_change_more_often() {
        let mut state = State::default();
        for other in 0..50 {
            state.note_write(&place(&format!("other-{other}")));
            (0..FOR_EACH).for_each(|_| state.note_write(&place("db-1")));
        }
        assert_eq!(state.violation, None);
        // Two that answer each other are two for each other, once.
        let mut state = State::default();
        for _ in 0..=ALONE + FOR_EACH {
            state.note_write(&place("a"));
            state.note_write(&place("b"));
        }
        assert!(state.violation.is_some());
    }
}
