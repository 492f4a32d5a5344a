//! The Pods that wait for a node.
//!
//! ```text
//!            ┌────────── event of the cluster, once the backoff has passed ──────────┐
//!            ▼                                                                       │
//!  new ─▶ active ─▶ in flight ─▶ (gone when it has a node)                           │
//!            ▲          ├── no node fits ─────▶ unschedulable ── event, too early ─▶ backoff
//!            │          └── the bind failed ──▶ backoff                              │
//!            └───────────────────────────────── time ◀──────────────────────────────┘
//! ```
//! Pods of higher priority come first, then those that have waited longer. Pure: every call is told the time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use wherry_reconcile::ObjectKey;

use crate::{filters::Wake, pod::PodInfo};

/// The backoff after the first failure, and the longest one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MOST: Duration = Duration::from_secs(10);

/// Where a Pod waits.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// To be decided next. Left by [`Queue::pop`].
    Active,
    /// Being decided, asked about or bound. Left by what comes of that.
    InFlight,
    /// Until a time.
    Backoff(Instant),
    /// Until one of these events.
    Unschedulable(BTreeSet<Wake>),
    /// Until its scheduling gates are gone.
    Gated,
}

#[derive(Debug)]
struct Waiting {
    info: Arc<PodInfo>,
    /// The order of arrival.
    arrival: u64,
    place: Place,
    attempts: u32,
    /// Not before this may it be tried again.
    not_before: Option<Instant>,
    /// Whether the images are known to need containers; none if nobody was asked.
    needs_containers: Option<bool>,
}

type Turn = (Reverse<i32>, u64, ObjectKey);

/// The Pods that wait for a node.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pods: HashMap<ObjectKey, Waiting>,
    active: BTreeSet<Turn>,
    backoff: BTreeSet<(Instant, ObjectKey)>,
    /// Those that wait for events: few where many wait for their turn.
    unschedulable: BTreeSet<ObjectKey>,
    arrivals: u64,
}

impl Queue {
    /// Takes in a Pod without a node, new or changed.
    pub(crate) fn set(&mut self, info: Arc<PodInfo>, now: Instant) {
        let key = info.key.clone();
        let gated = is_gated(&info);
        let known = self.pods.get(&key).filter(|waiting| waiting.info.uid == info.uid);
        let Some(known) = known else {
            self.remove(&key);
            self.arrivals += 1;
            let place = if gated { Place::Gated } else { Place::Active };
            if !gated {
                self.active.insert((Reverse(info.priority), self.arrivals, key.clone()));
            }
            let arrival = self.arrivals;
            let waiting = Waiting { info, arrival, place, attempts: 0, not_before: None, needs_containers: None };
            self.pods.insert(key, waiting);
            return;
        };
        // A change of the status, such as our own condition, changes nothing.
        let changed = known.info.pod.spec != info.pod.spec || known.info.labels != info.labels;
        let stuck = matches!(known.place, Place::Unschedulable(_) | Place::Gated);
        if let Some(known) = self.pods.get_mut(&key) {
            known.info = info;
            if changed {
                known.needs_containers = None;
            }
        }
        if changed && stuck && !gated {
            self.ready(&key, now);
        }
    }

    /// Forgets a Pod that has a node, is gone or will not run.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        if let Some(waiting) = self.pods.remove(key) {
            self.leave(key, &waiting);
        }
    }

    fn leave(&mut self, key: &ObjectKey, waiting: &Waiting) {
        match waiting.place {
            Place::Active => {
                self.active.remove(&(Reverse(waiting.info.priority), waiting.arrival, key.clone()));
            }
            Place::Backoff(until) => {
                self.backoff.remove(&(until, key.clone()));
            }
            Place::Unschedulable(_) => {
                self.unschedulable.remove(key);
            }
            Place::InFlight | Place::Gated => {}
        }
    }

    /// The next Pod to decide, and whether its images are known to need containers.
    pub(crate) fn pop(&mut self) -> Option<(Arc<PodInfo>, Option<bool>)> {
        let (.., key) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&key)?;
        waiting.place = Place::InFlight;
        Some((waiting.info.clone(), waiting.needs_containers))
    }

    /// What was learned of the images of a Pod in flight; it is decided next.
    pub(crate) fn learned(&mut self, key: &ObjectKey, uid: &str, needs: bool) {
        let Some(waiting) = self.in_flight(key, uid) else {
            return;
        };
        waiting.needs_containers = Some(needs);
        self.activate(key);
    }

    /// No node takes a Pod in flight: it waits for one of these events.
    pub(crate) fn unschedulable(&mut self, key: &ObjectKey, uid: &str, wake: BTreeSet<Wake>, now: Instant) {
        let Some(waiting) = self.in_flight(key, uid) else {
            return;
        };
        waiting.failed(now);
        waiting.place = Place::Unschedulable(wake);
        self.unschedulable.insert(key.clone());
    }

    /// A Pod in flight could not be bound: it is tried again after a while. False where it waits no more.
    pub(crate) fn retry(&mut self, key: &ObjectKey, uid: &str, now: Instant) -> bool {
        let Some(waiting) = self.in_flight(key, uid) else {
            return false;
        };
        waiting.failed(now);
        self.ready(key, now);
        true
    }

    /// Something was done for a Pod that no node takes: it is tried again.
    pub(crate) fn nudge(&mut self, key: &ObjectKey, uid: &str, now: Instant) {
        let waiting = self.pods.get(key).filter(|waiting| waiting.info.uid == uid);
        if waiting.is_some_and(|waiting| matches!(waiting.place, Place::Unschedulable(_))) {
            self.ready(key, now);
        }
    }

    fn in_flight(&mut self, key: &ObjectKey, uid: &str) -> Option<&mut Waiting> {
        let waiting = self.pods.get_mut(key)?;
        (waiting.info.uid == uid && waiting.place == Place::InFlight).then_some(waiting)
    }

    /// Something happened that may help.
    pub(crate) fn wake(&mut self, event: Wake, now: Instant) {
        let helps = |key: &&ObjectKey| {
            let place = self.pods.get(*key).map(|waiting| &waiting.place);
            matches!(place, Some(Place::Unschedulable(wake)) if wake.contains(&event))
        };
        for key in self.unschedulable.iter().filter(helps).cloned().collect::<Vec<_>>() {
            self.ready(&key, now);
        }
    }

    /// Makes a Pod active, or lets it wait out its backoff.
    fn ready(&mut self, key: &ObjectKey, now: Instant) {
        let Some(waiting) = self.pods.get_mut(key) else {
            return;
        };
        self.unschedulable.remove(key);
        match waiting.not_before {
            Some(until) if until > now => {
                waiting.place = Place::Backoff(until);
                self.backoff.insert((until, key.clone()));
            }
            _ => self.activate(key),
        }
    }

    fn activate(&mut self, key: &ObjectKey) {
        let Some(waiting) = self.pods.get_mut(key) else {
            return;
        };
        waiting.place = Place::Active;
        self.active.insert((Reverse(waiting.info.priority), waiting.arrival, key.clone()));
    }

    /// Makes those active whose backoff has passed, and says when the next one's will.
    pub(crate) fn release(&mut self, now: Instant) -> Option<Instant> {
        while self.backoff.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, key)) = self.backoff.pop_first() {
                self.activate(&key);
            }
        }
        self.backoff.first().map(|(until, _)| *until)
    }
}

impl Waiting {
    fn failed(&mut self, now: Instant) {
        let delay = BACKOFF_FIRST.saturating_mul(2_u32.saturating_pow(self.attempts)).min(BACKOFF_MOST);
        self.attempts += 1;
        self.not_before = Some(now + delay);
    }
}

fn is_gated(info: &PodInfo) -> bool {
    let gates = info.pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
    gates.is_some_and(|gates| !gates.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::testing::{pod, pod_with};
    use serde_json::json;

    fn names(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.pop().map(|(pod, _)| pod.key.name.clone())).collect()
    }

    #[test]
    fn priority_comes_first_then_age() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0), ("d", 10)] {
            queue.set(Arc::new(pod_with(name, json!({"priority": priority}))), now);
        }
        assert_eq!(names(&mut queue), ["b", "d", "a", "c"]);
    }

    #[test]
    fn an_unschedulable_pod_waits_for_an_event_that_may_help_and_for_its_backoff() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(Arc::new(pod("a")), now);
        let (info, _) = queue.pop().unwrap();
        queue.unschedulable(&info.key, &info.uid, BTreeSet::from([Wake::Node]), now);
        queue.set(info.clone(), now);
        queue.wake(Wake::PodGone, now);
        assert_eq!((queue.release(now), queue.pop().is_none()), (None, true), "nothing happened that helps");
        queue.wake(Wake::Node, now);
        let due = queue.release(now).unwrap();
        assert!(due == now + BACKOFF_FIRST && queue.pop().is_none(), "not before its backoff");
        queue.release(due);
        let (info, _) = queue.pop().unwrap();
        queue.unschedulable(&info.key, &info.uid, BTreeSet::from([Wake::Node]), due);
        let later = due + 2 * BACKOFF_FIRST;
        queue.wake(Wake::Node, later);
        assert_eq!(names(&mut queue), ["a"], "at once when the backoff has passed");
    }

    #[test]
    fn a_gated_pod_waits_for_its_gates() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(Arc::new(pod_with("a", json!({"schedulingGates": [{"name": "g"}]}))), now);
        queue.wake(Wake::Node, now);
        assert!(queue.pop().is_none());
        queue.set(Arc::new(pod("a")), now);
        assert_eq!(names(&mut queue), ["a"]);
    }

    #[test]
    fn a_pod_that_came_back_under_its_name_is_another_one() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(Arc::new(pod("a")), now);
        let (old, _) = queue.pop().unwrap();
        let mut new = pod("a");
        new.uid = "another".into();
        queue.set(Arc::new(new), now);
        assert!(!queue.retry(&old.key, &old.uid, now));
        assert_eq!(names(&mut queue), ["a"]);
        assert_eq!(queue.release(now), None);
    }

    #[test]
    fn a_failed_bind_is_tried_again_with_growing_delays() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.set(Arc::new(pod("a")), now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            let (info, _) = queue.pop().unwrap();
            assert!(queue.retry(&info.key, &info.uid, now));
            let due = queue.release(now).unwrap();
            assert_eq!(due - now, Duration::from_secs(seconds));
            now = due;
            queue.release(now);
        }
        queue.remove(&ObjectKey::new("default", "a"));
        assert!(queue.pop().is_none());
    }

    proptest::proptest! {
        /// Whatever happens to them: no Pod is forgotten, none is decided twice at a time, none before its turn.
        #[test]
        fn every_pod_gets_its_turn(steps in proptest::collection::vec((0u8..9, 0usize..5, 0u64..4), 0..80)) {
            let (mut queue, mut now) = (Queue::default(), Instant::now());
            let mut known: std::collections::BTreeMap<String, Arc<PodInfo>> = Default::default();
            let mut deciding: Vec<Arc<PodInfo>> = Vec::new();
            let pod = |n: usize, gated: bool| {
                let gates = if gated { json!([{"name": "g"}]) } else { json!([]) };
                Arc::new(pod_with(&format!("p{n}"), json!({"priority": n / 2, "schedulingGates": gates})))
            };
            for (what, n, wait) in steps {
                let key = pod(n, false).key.clone();
                match what {
                    0 | 1 => {
                        // Gates are only ever removed.
                        let gated = what == 1 && known.get(&key.name).is_none_or(|known| is_gated(known));
                        known.insert(key.name.clone(), pod(n, gated));
                        queue.set(pod(n, gated), now);
                    }
                    2 => {
                        known.remove(&key.name);
                        deciding.retain(|info| info.key != key);
                        queue.remove(&key);
                    }
                    3 | 4 => if let Some((info, _)) = queue.pop() {
                        proptest::prop_assert!(known.contains_key(&info.key.name));
                        proptest::prop_assert!(!deciding.iter().any(|other| other.key == info.key), "decided twice");
                        deciding.push(info);
                    },
                    5 => if let Some(info) = deciding.pop() {
                        queue.unschedulable(&info.key, &info.uid, BTreeSet::from([Wake::Node]), now);
                    },
                    6 => if let Some(info) = deciding.pop() {
                        proptest::prop_assert!(queue.retry(&info.key, &info.uid, now));
                    },
                    7 => queue.wake(Wake::Node, now),
                    _ => {
                        now += Duration::from_secs(wait);
                        queue.release(now);
                    }
                }
            }
            for info in deciding {
                queue.retry(&info.key, &info.uid, now);
            }
            queue.wake(Wake::Node, now);
            proptest::prop_assert_eq!(queue.release(now + BACKOFF_MOST), None);
            let turns: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(info, _)| info).collect();
            proptest::prop_assert!(turns.windows(2).all(|two| two[0].priority >= two[1].priority));
            let mut names: Vec<_> = turns.iter().map(|info| info.key.name.clone()).collect();
            names.sort();
            let free: Vec<_> = known.iter().filter(|(_, info)| !is_gated(info)).map(|(name, _)| name.clone()).collect();
            proptest::prop_assert_eq!(names, free);
        }
    }
}
