//! Tables and properties of the arithmetic of a rollout.

use proptest::prelude::*;

use super::*;

fn set(name: &str, replicas: i32, available: i32) -> Set {
    Set { name: name.into(), replicas, reported: replicas, observed: true, available, desired: None, max: None }
}

fn goal(replicas: i32, surge: i32, unavailable: i32) -> Goal {
    Goal { replicas, surge, unavailable, rolling: true }
}

fn sizes(scales: &[Scale]) -> Vec<(&str, i32)> {
    scales.iter().map(|scale| (&*scale.name, scale.to)).collect()
}

/// A ReplicaSet, and what is really there.
#[derive(Debug)]
struct Late {
    set: Set,
    pods: i32,
    available: i32,
}

impl Late {
    fn new(name: &str, replicas: i32) -> Self {
        Self { set: set(name, replicas, replicas), pods: replicas, available: replicas }
    }

    /// A pass of its controller: it acts, and reports what it saw before.
    fn pass(&mut self) {
        self.set.reported = self.pods;
        self.set.available = self.available;
        self.set.observed = true;
        self.pods = self.set.replicas;
        self.available = self.available.min(self.pods);
    }
}

#[test]
fn percentages_round_towards_progress_and_safety() {
    let percent = |value: &str| IntOrString::String(value.into());
    let table = [
        (percent("0%"), percent("1%"), 2, (0, 1)),
        (percent("1%"), percent("25%"), 2, (1, 0)),
        (percent("25%"), percent("25%"), 10, (3, 2)),
        (percent("25%"), percent("25%"), 1, (1, 0)),
        (IntOrString::Int(0), IntOrString::Int(2), 10, (0, 2)),
        (percent("100%"), percent("100%"), 3, (3, 3)),
    ];
    for (surge, unavailable, replicas, expected) in table {
        assert_eq!(fenceposts(&surge, &unavailable, replicas), expected, "{surge:?} {unavailable:?} of {replicas}");
    }
}

#[test]
fn unhealthy_old_replicas_go_first() {
    let old = [set("a", 8, 2), set("b", 2, 2)];
    let step = roll(&goal(10, 0, 2), &set("new", 0, 0), &old);
    assert_eq!(sizes(&step), [("a", 6)]);
}

#[test]
fn scaling_in_the_middle_of_a_rollout_is_proportional() {
    let mut new = set("new", 5, 5);
    let mut old = set("old", 8, 8);
    for set in [&mut new, &mut old] {
        set.desired = Some(10);
        set.max = Some(13);
    }
    let up = scale(&goal(20, 6, 4), Some(&new), &[old.clone()], 13);
    assert_eq!(sizes(&up), [("old", 16), ("new", 10)]);
    let down = scale(&goal(5, 2, 1), Some(&new), &[old.clone()], 13);
    assert_eq!(sizes(&down), [("old", 4), ("new", 3)]);
    let zero = scale(&goal(0, 0, 0), Some(&new), &[old], 13);
    assert_eq!(sizes(&zero), [("old", 0), ("new", 0)]);
}

#[test]
fn a_single_active_set_takes_all() {
    let old = [set("a", 0, 0), set("b", 0, 0)];
    assert_eq!(sizes(&scale(&goal(4, 1, 1), Some(&set("new", 2, 2)), &old, 2)), [("new", 4)]);
    assert_eq!(sizes(&scale(&goal(4, 1, 1), None, &old, 0)), [("b", 4)]);
    assert!(scale(&goal(2, 1, 1), None, &[], 2).is_empty());
}

proptest! {
    /// Rolls from any sound state while Pods become available, and sometimes fail, in any order.
    #[test]
    fn a_rollout_keeps_its_bounds_and_ends(
        replicas in 1i32..20,
        surge in 0i32..6,
        unavailable in 0i32..6,
        split in 0i32..20,
        luck in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let (surge, unavailable) = if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(replicas)) };
        let goal = goal(replicas, surge, unavailable);
        let first = split.min(replicas);
        let mut sets = [set("a", first, first), set("b", replicas - first, replicas - first), set("new", 0, 0)];
        let mut luck = luck.into_iter();
        for _ in 0..400 {
            let before: i32 = sets.iter().map(|set| set.available).sum();
            let steps = roll(&goal, &sets[2], &sets[..2]);
            for step in &steps {
                let set = sets.iter_mut().find(|set| set.name == step.name).unwrap();
                set.replicas = step.to;
                set.reported = step.to;
                // The ReplicaSet removes unready Pods first.
                set.available = set.available.min(step.to);
            }
            let after: i32 = sets.iter().map(|set| set.available).sum();
            prop_assert!(total(&sets) <= goal.max(), "{:?} exceeds {:?}", sets, goal);
            prop_assert!(after >= before.min(goal.min_available()), "{:?} took too much: {:?}", steps, sets);
            match luck.next() {
                // A Pod fails.
                Some(chance) if chance % 4 == 0 => {
                    let set = &mut sets[usize::from(chance / 4) % 3];
                    set.available = (set.available - 1).max(0);
                }
                // A Pod that had failed, or is new, becomes available.
                Some(chance) => {
                    let set = &mut sets[usize::from(chance) % 3];
                    set.available = (set.available + 1).min(set.replicas);
                }
                None => sets[2].available = sets[2].replicas,
            }
        }
        prop_assert_eq!((sets[0].replicas, sets[1].replicas, sets[2].replicas), (0, 0, replicas));
    }

    /// Nothing fails, but the sets act and report whenever they like.
    #[test]
    fn late_reports_do_not_break_the_bounds(
        replicas in 1i32..12,
        surge in 0i32..5,
        unavailable in 0i32..5,
        back in 0usize..200,
        turns in prop::collection::vec(0u8..12, 0..300),
    ) {
        let (surge, unavailable) = if surge == 0 && unavailable == 0 { (1, 0) } else { (surge, unavailable.min(replicas)) };
        let goal = goal(replicas, surge, unavailable);
        let mut world = [Late::new("a", replicas), Late::new("b", 0)];
        // A rollout from a to b, turned back to a in the middle.
        let rounds = turns.iter().copied().chain((0u8..12).cycle().take(2000)).enumerate();
        for (round, turn) in rounds {
            let newest = if (back..back + 150).contains(&round) { 0 } else { 1 };
            let which = usize::from(turn % 2);
            match turn / 2 {
                0 | 1 => {
                    let steps = roll(&goal, &world[newest].set, &[world[1 - newest].set.clone()]);
                    for step in steps {
                        let late = world.iter_mut().find(|late| late.set.name == step.name).unwrap();
                        late.set.replicas = step.to;
                        late.set.observed = false;
                    }
                }
                2 | 3 => world[which].pass(),
                _ => world[which].available = (world[which].available + 1).min(world[which].pods),
            }
            let pods: i32 = world.iter().map(|late| late.pods).sum();
            let available: i32 = world.iter().map(|late| late.available).sum();
            prop_assert!(pods <= goal.max(), "{} Pods in {:?}", pods, world);
            prop_assert!(available >= goal.min_available(), "{} available in {:?}", available, world);
        }
        prop_assert_eq!((world[0].set.replicas, world[1].set.replicas), (0, replicas));
    }

    #[test]
    fn scaling_ends(
        replicas in 0i32..6,
        rolling in any::<bool>(),
        sizes in prop::collection::vec((0i32..6, prop::option::of(0i32..6)), 0..4),
        newest in any::<bool>(),
    ) {
        let goal = Goal { rolling, ..goal(replicas, 1, 0) };
        let mut sets: Vec<Set> = sizes.iter().enumerate().map(|(n, (size, desired))| {
            Set { desired: *desired, max: *desired, ..set(&n.to_string(), *size, *size) }
        }).collect();
        if is_scaling(&goal, &sets) {
            let (old, new) = sets.split_at(sets.len() - usize::from(newest));
            for Scale { name, to } in scale(&goal, new.first(), old, replicas) {
                let set = sets.iter_mut().find(|set| set.name == name).unwrap();
                (set.replicas, set.desired) = (to, Some(replicas));
            }
            prop_assert!(!is_scaling(&goal, &sets), "for ever: {:?}", sets);
        }
    }

    #[test]
    fn scaling_reaches_exactly_the_allowed_size(
        replicas in 0i32..50,
        surge in 0i32..10,
        old_a in 1i32..30,
        old_b in 1i32..30,
        new in 1i32..30,
    ) {
        let before = old_a + old_b + new;
        let mark = |mut set: Set| { set.desired = Some(before); set.max = Some(before); set };
        let goal = goal(replicas, surge, 1);
        let old = [mark(set("a", old_a, 0)), mark(set("b", old_b, 0))];
        let scales = scale(&goal, Some(&mark(set("new", new, 0))), &old, before);
        let after: i32 = scales.iter().map(|scale| scale.to).sum();
        let allowed = if replicas == 0 { 0 } else { goal.max() };
        prop_assert_eq!(after, allowed);
        prop_assert!(scales.iter().all(|scale| scale.to >= 0));
    }
}
