//! One heap of timers for a node: no task and no runtime timer per Pod.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::Hash;

use jiff::Timestamp;

/// At most one timer a key; setting it again replaces it. Replaced entries are dropped when they surface.
pub(crate) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Timestamp, K)>>,
    due: HashMap<K, Timestamp>,
}

impl<K: Clone + Eq + Hash + Ord> Timers<K> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), due: HashMap::new() }
    }

    /// Sets, moves or (with none) clears a key's timer.
    pub(crate) fn set(&mut self, key: &K, at: Option<Timestamp>) {
        match at {
            Some(at) if self.due.get(key) == Some(&at) => {}
            Some(at) => {
                self.due.insert(key.clone(), at);
                self.heap.push(Reverse((at, key.clone())));
            }
            None => {
                self.due.remove(key);
            }
        }
        // Replaced entries must not pile up.
        if self.heap.len() > 64 + 4 * self.due.len() {
            self.heap = self.due.iter().map(|(key, at)| Reverse((*at, key.clone()))).collect();
        }
    }

    /// When the next one is due.
    pub(crate) fn next(&mut self) -> Option<Timestamp> {
        while let Some(Reverse((at, key))) = self.heap.peek() {
            if self.due.get(key) == Some(at) {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes one that is due.
    pub(crate) fn pop(&mut self, now: Timestamp) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        self.due.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
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
}
