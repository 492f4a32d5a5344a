//! A set of numbers `0..size` of which each is free or taken.
//!
//! The lower band is left to those who ask for a certain number: free choice takes from the upper band first and
//! starts at a random place, so that a number just released is not handed out again at once.

use rand::Rng as _;

#[derive(Debug)]
pub(crate) struct Pool {
    words: Vec<u64>,
    size: usize,
    /// Where the upper band begins.
    band: usize,
    free: usize,
}

impl Pool {
    pub(crate) fn new(size: usize, band: usize) -> Self {
        Self { words: vec![0; size.div_ceil(64)], size, band: band.min(size), free: size }
    }

    /// Takes `n`; false if it is taken already or out of range.
    pub(crate) fn take(&mut self, n: usize) -> bool {
        if n >= self.size || self.is_taken(n) {
            return false;
        }
        self.words[n / 64] |= 1 << (n % 64);
        self.free -= 1;
        true
    }

    /// Takes any free number that `avoid` does not name.
    pub(crate) fn take_any(&mut self, avoid: impl Fn(usize) -> bool) -> Option<usize> {
        if self.free == 0 {
            return None;
        }
        let n = self.find(self.band, self.size, &avoid).or_else(|| self.find(0, self.band, &avoid))?;
        self.take(n).then_some(n)
    }

    /// Gives `n` back; it may be free already.
    pub(crate) fn release(&mut self, n: usize) {
        if n < self.size && self.is_taken(n) {
            self.words[n / 64] &= !(1 << (n % 64));
            self.free += 1;
        }
    }

    pub(crate) fn is_taken(&self, n: usize) -> bool {
        self.words.get(n / 64).is_some_and(|w| w & (1 << (n % 64)) != 0)
    }

    /// A free number in `from..to`, searched cyclically from a random start, a full word at a time.
    fn find(&self, from: usize, to: usize, avoid: &impl Fn(usize) -> bool) -> Option<usize> {
        if from >= to {
            return None;
        }
        let start = rand::rng().random_range(from..to);
        self.scan(start, to, avoid).or_else(|| self.scan(from, start, avoid))
    }

    fn scan(&self, from: usize, to: usize, avoid: &impl Fn(usize) -> bool) -> Option<usize> {
        let mut n = from;
        while n < to {
            if n.is_multiple_of(64) && self.words[n / 64] == u64::MAX {
                n += 64;
                continue;
            }
            if !self.is_taken(n) && !avoid(n) {
                return Some(n);
            }
            n += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_upper_band_goes_first_and_all_are_handed_out() {
        let mut pool = Pool::new(100, 16);
        let first: HashSet<usize> = (0..84).filter_map(|_| pool.take_any(|_| false)).collect();
        assert_eq!(first, (16..100).collect());
        let second: HashSet<usize> = (0..16).filter_map(|_| pool.take_any(|n| n == 3)).collect();
        assert_eq!(second.len(), 15);
        assert_eq!(pool.take_any(|_| false), Some(3));
        assert_eq!(pool.take_any(|_| false), None);
    }

    proptest! {
        #[test]
        fn nothing_is_handed_out_twice(steps in prop::collection::vec((0usize..3, 0usize..200), 0..400)) {
            let mut pool = Pool::new(180, 10);
            let mut model = HashSet::new();
            for (step, n) in steps {
                match step {
                    0 => prop_assert_eq!(pool.take(n), n < 180 && model.insert(n)),
                    1 => { pool.release(n); model.remove(&n); }
                    _ => match pool.take_any(|_| false) {
                        Some(n) => prop_assert!(n < 180 && model.insert(n)),
                        None => prop_assert_eq!(model.len(), 180),
                    },
                }
                prop_assert_eq!(pool.free, 180 - model.len());
            }
        }
    }
}
