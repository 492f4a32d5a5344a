//! Exponential delays between retries.

use std::time::Duration;

use rand::Rng;

/// Doubling delays from `base` to `max`, each stretched by up to a quarter at random so that many clients of one server
/// do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays that begin at `base` and never exceed `max` (before jitter).
    pub fn new(base: Duration, max: Duration) -> Self {
        Self { base, max, failures: 0 }
    }

    /// The delay after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let delay = exponential(self.base, self.max, self.failures);
        self.failures = self.failures.saturating_add(1);
        delay.mul_f64(1.0 + rand::rng().random_range(0.0..0.25))
    }

    /// Begins again at `base`: called after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many delays were given since the last reset.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// `base * 2^failures`, at most `max`.
pub(crate) fn exponential(base: Duration, max: Duration, failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX);
    base.checked_mul(factor).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum() {
        let base = Duration::from_millis(5);
        let max = Duration::from_secs(1000);
        assert_eq!(exponential(base, max, 0), base);
        assert_eq!(exponential(base, max, 3), Duration::from_millis(40));
        assert_eq!(exponential(base, max, 18), max);
        assert_eq!(exponential(base, max, u32::MAX), max);
    }
}
