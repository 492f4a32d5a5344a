//! From one value (of an object, or from outside of the cluster) to how many Pods there should be. Pure.

use super::sample::{Tolerance, ceil};

/// What is aimed at, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// This value.
    Value(i64),
    /// This much of it for each Pod.
    Average(i64),
}

/// A value, and what it is set against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// Thousandths.
    pub(super) milli: i64,
    pub(super) goal: Goal,
    /// How many Pods are asked for.
    pub(super) current: i32,
    /// How many there are.
    pub(super) present: i32,
    /// How many of them are ready.
    pub(super) ready: i32,
    pub(super) tolerance: Tolerance,
}

impl Measured {
    /// How many Pods there should be.
    pub(super) fn replicas(&self) -> i32 {
        match self.goal {
            Goal::Value(goal) => {
                let ratio = self.milli as f64 / goal.max(1) as f64;
                if self.current == 0 {
                    ceil(ratio)
                } else if self.tolerance.is_near(ratio) {
                    self.current
                } else {
                    ceil(ratio * f64::from(self.ready))
                }
            }
            Goal::Average(goal) => {
                let wanted = self.milli as f64 / goal.max(1) as f64;
                let ratio = wanted / f64::from(self.present);
                if self.present > 0 && self.tolerance.is_near(ratio) { self.present } else { ceil(wanted) }
            }
        }
    }

    /// What is shown of it, in thousandths: the value, or its part for each Pod.
    pub(super) fn shown(&self) -> i64 {
        match self.goal {
            Goal::Value(_) => self.milli,
            Goal::Average(_) => {
                let pods = i64::from(self.present.max(1));
                self.milli.div_euclid(pods) + i64::from(self.milli.rem_euclid(pods) > 0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn measured(milli: i64, goal: Goal, pods: i32) -> Measured {
        Measured { milli, goal, current: pods, present: pods, ready: pods, tolerance: Tolerance { down: 0.1, up: 0.1 } }
    }

    #[test]
    fn as_upstreams_examples_have_it() {
        // Its tests of object and external metrics.
        assert_eq!(measured(20_000, Goal::Value(15_000), 3).replicas(), 4);
        assert_eq!(measured(20_000, Goal::Value(20_000), 3).replicas(), 3);
        assert_eq!(measured(21_900, Goal::Value(20_000), 3).replicas(), 3, "near enough");
        assert_eq!(measured(12_000, Goal::Value(20_000), 5).replicas(), 3);
        assert_eq!(measured(8_600, Goal::Average(2_867), 4).replicas(), 3);
        assert_eq!(measured(8_600, Goal::Average(2_150), 4).replicas(), 4);
        let unready = Measured { ready: 1, ..measured(30_000, Goal::Value(15_000), 3) };
        assert_eq!(unready.replicas(), 2, "of the ready ones");
    }

    #[test]
    fn from_none_and_to_none() {
        for goal in [Goal::Value(10_000), Goal::Average(10_000)] {
            assert_eq!(measured(0, goal, 0).replicas(), 0);
            assert_eq!(measured(1, goal, 0).replicas(), 1, "a thousandth is something");
            assert_eq!(measured(25_000, goal, 0).replicas(), 3);
            assert_eq!(measured(0, goal, 4).replicas(), 0);
            assert_eq!(measured(1, goal, 4).replicas(), 1);
        }
        assert_eq!(measured(7, Goal::Average(1), 0).shown(), 7);
        assert_eq!(measured(7, Goal::Average(1), 2).shown(), 4);
    }

    proptest! {
        #[test]
        fn never_against_what_was_measured(milli in 0i64..1_000_000, goal in 1i64..100_000, pods in 0i32..50) {
            for goal in [Goal::Value(goal), Goal::Average(goal)] {
                let one = measured(milli, goal, pods);
                let part = match goal {
                    Goal::Value(goal) => milli as f64 / goal as f64,
                    Goal::Average(goal) => milli as f64 / goal as f64 / f64::from(pods.max(1)),
                };
                if pods > 0 && part < 0.9 {
                    prop_assert!(one.replicas() <= pods);
                } else if part > 1.1 {
                    prop_assert!(one.replicas() > pods);
                }
                prop_assert_eq!(one.replicas() == 0, milli == 0);
                // More of it never takes a Pod away.
                prop_assert!(measured(milli * 2, goal, pods).replicas() >= one.replicas());
            }
        }
    }
}
