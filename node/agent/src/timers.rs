//! The timers of a node: no task and no runtime timer per Pod.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use jiff::Timestamp;

/// At most one timer a key; setting it again replaces it.
///
/// Ordered by a tree, not a heap: what is due first and what is set last stand in leaves that were just used, where a heap of
/// ten thousand walks through cold memory for each.
pub(crate) struct Timers<K> {
    order: BTreeSet<(Timestamp, K)>,
    due: HashMap<K, Timestamp>,
}

impl<K: Clone + Eq + Hash + Ord> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { order: BTreeSet::new(), due: HashMap::new() }
    }

    /// Sets, moves or (with none) clears a key's timer.
    pub(crate) fn set(&mut self, key: &K, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.due.insert(key.clone(), at),
            None => self.due.remove(key),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.order.remove(&(before, key.clone()));
        }
        if let Some(at) = at {
            self.order.insert((at, key.clone()));
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes one that is due.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.due.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_replaced_timer_fires_once_and_in_order() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        let mut timers = Timers::new();
        timers.set(&"a", Some(at(5)));
        timers.set(&"b", Some(at(3)));
        timers.set(&"a", Some(at(1)));
        timers.set(&"c", Some(at(2)));
        timers.set(&"c", None);
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop(at(10)), Some("a"));
        assert_eq!(timers.pop(at(2)), None);
        assert_eq!(timers.pop(at(10)), Some("b"));
        assert_eq!(timers.pop(at(10)), None);
    }

    proptest! {
        /// Each key fires once for the last moment that it was set to, the earliest first.
        #[test]
        fn what_fires_is_what_was_set_last(steps in proptest::collection::vec((0u8..8, proptest::option::of(0i64..50)), 1..60)) {
            let at = |seconds: &i64| Timestamp::from_second(*seconds).unwrap_or(Timestamp::MAX);
            let (mut timers, mut wanted) = (Timers::new(), HashMap::new());
            for (key, seconds) in &steps {
                timers.set(key, seconds.as_ref().map(at));
                match seconds {
                    Some(seconds) => wanted.insert(*key, at(seconds)),
                    None => wanted.remove(key),
                };
                prop_assert_eq!(timers.next(), wanted.values().min().copied());
            }
            let mut expected: Vec<_> = wanted.into_iter().map(|(key, at)| (at, key)).collect();
            expected.sort();
            let fired: Vec<_> = std::iter::from_fn(|| Some((timers.next()?, timers.pop(Timestamp::MAX)?))).collect();
            prop_assert_eq!(fired, expected);
        }
    }
}
