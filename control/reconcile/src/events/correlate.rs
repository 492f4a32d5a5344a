//! Folding repetitions: the same event again raises a count; many similar ones become one; a flood is cut off.
//!
//! The rules and numbers are client-go's:
//! 1. The tenth event within ten minutes that differs only in its message is recorded as "(combined from similar events)".
//! 2. One component may record 25 events about one object at once, and one more every five minutes.
//! 3. An event equal to an earlier one raises that one's count.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};

use super::{EventType, Occurrence};

const MAX_SIMILAR: usize = 10;
const SIMILAR_WINDOW_SECONDS: i64 = 600;
const BURST: f64 = 25.0;
const SECONDS_PER_TOKEN: f64 = 300.0;
/// How many keys each memory holds; the oldest are forgotten first.
const REMEMBERED: usize = 4096;

type ObjectId = (Arc<str>, Arc<str>, String);
type Similar = (ObjectId, EventType, String);

/// An event to be written.
#[derive(Clone, Debug)]
pub(super) struct Observation {
    pub(super) occurrence: Occurrence,
    /// The text to record, which for combined events is not the occurrence's own.
    pub(super) message: String,
    pub(super) count: i32,
    pub(super) first: Timestamp,
    /// The name of the Event whose count rises.
    pub(super) existing: Option<String>,
    combined: bool,
}

/// What to do with an occurrence.
pub(super) enum Verdict {
    Record(Box<Observation>),
    Drop,
}

struct Recorded {
    count: i32,
    first: Timestamp,
    name: Option<String>,
}

struct Group {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    last: Timestamp,
}

/// A map that forgets its oldest keys.
struct Memory<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V> Memory<K, V> {
    fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            if self.order.len() >= REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.entries.entry(key).or_insert_with(new)
    }
}

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

/// What has been recorded lately.
#[derive(Default)]
pub(super) struct Correlator {
    groups: Memory<Similar, Group>,
    buckets: Memory<ObjectId, Bucket>,
    recorded: Memory<(Similar, Option<String>), Recorded>,
}

impl Correlator {
    /// Decides about one occurrence.
    pub(super) fn observe(&mut self, occurrence: Occurrence) -> Verdict {
        let now = occurrence.time;
        let similar = similar(&occurrence);
        let combined = self.is_one_of_many(&similar, &occurrence.message, now);
        if !self.has_token(&similar.0, now) {
            return Verdict::Drop;
        }
        let message = if combined {
            format!("(combined from similar events): {}", occurrence.message)
        } else {
            occurrence.message.clone()
        };
        let recorded = self.recorded.entry(identity(similar, &occurrence, combined), || Recorded {
            count: 0,
            first: now,
            name: None,
        });
        recorded.count = recorded.count.saturating_add(1);
        Verdict::Record(Box::new(Observation {
            message,
            count: recorded.count,
            first: recorded.first,
            existing: recorded.name.clone(),
            combined,
            occurrence,
        }))
    }

    /// Notes under which name an observation was written, so that the next one raises its count.
    pub(super) fn written(&mut self, observation: &Observation, name: String) {
        let key = identity(similar(&observation.occurrence), &observation.occurrence, observation.combined);
        if let Some(recorded) = self.recorded.entries.get_mut(&key) {
            recorded.name = Some(name);
        }
    }

    fn is_one_of_many(&mut self, key: &Similar, message: &str, now: Timestamp) -> bool {
        let group = self.groups.entry(key.clone(), || Group { messages: HashSet::new(), last: now });
        if seconds_between(group.last, now) > SIMILAR_WINDOW_SECONDS as f64 {
            group.messages.clear();
        }
        group.last = now;
        if group.messages.len() < MAX_SIMILAR {
            group.messages.insert(message.to_owned());
        }
        group.messages.len() >= MAX_SIMILAR
    }

    fn has_token(&mut self, object: &ObjectId, now: Timestamp) -> bool {
        let bucket = self.buckets.entry(object.clone(), || Bucket { tokens: BURST, last: now });
        let refill = seconds_between(bucket.last, now) / SECONDS_PER_TOKEN;
        bucket.tokens = (bucket.tokens + refill).min(BURST);
        bucket.last = now;
        let has = bucket.tokens >= 1.0;
        if has {
            bucket.tokens -= 1.0;
        }
        has
    }
}

fn seconds_between(earlier: Timestamp, later: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64().max(0.0)
}

fn similar(occurrence: &Occurrence) -> Similar {
    let object = (occurrence.component.clone(), occurrence.host.clone(), object_id(&occurrence.object));
    (object, occurrence.kind, occurrence.reason.clone())
}

fn identity(similar: Similar, occurrence: &Occurrence, combined: bool) -> (Similar, Option<String>) {
    (similar, (!combined).then(|| occurrence.message.clone()))
}

fn object_id(object: &ObjectReference) -> String {
    let part = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        part(&object.api_version),
        part(&object.kind),
        part(&object.namespace),
        part(&object.name),
        part(&object.uid),
        part(&object.field_path),
    ]
    .join("\u{0}")
}

#[cfg(test)]
#[allow(clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn occurrence(message: &str, second: i64) -> Occurrence {
        Occurrence {
            component: "kubelet".into(),
            host: "node".into(),
            object: ObjectReference { name: Some("pod".into()), ..Default::default() },
            kind: EventType::Normal,
            reason: "Pulled".into(),
            message: message.into(),
            time: Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(second.unsigned_abs()),
        }
    }

    fn record(correlator: &mut Correlator, message: &str, second: i64) -> Observation {
        match correlator.observe(occurrence(message, second)) {
            Verdict::Record(observation) => *observation,
            Verdict::Drop => panic!("dropped {message}"),
        }
    }

    #[test]
    fn repetitions_raise_the_count_of_the_written_event() {
        let mut correlator = Correlator::default();
        let first = record(&mut correlator, "a", 0);
        assert_eq!((first.count, first.existing.as_deref()), (1, None));
        correlator.written(&first, "pod.1".into());
        let second = record(&mut correlator, "a", 5);
        assert_eq!((second.count, second.existing.as_deref()), (2, Some("pod.1")));
        assert_eq!(second.first, Timestamp::UNIX_EPOCH);
        assert_eq!(record(&mut correlator, "b", 6).count, 1);
    }

    #[test]
    fn the_tenth_similar_message_is_combined() {
        let mut correlator = Correlator::default();
        for number in 0..9 {
            assert!(!record(&mut correlator, &number.to_string(), 0).combined);
        }
        let tenth = record(&mut correlator, "9", 1);
        assert_eq!(tenth.message, "(combined from similar events): 9");
        assert_eq!(record(&mut correlator, "10", 2).count, 2);
        assert!(!record(&mut correlator, "11", 3000).combined, "the window has passed");
    }

    #[test]
    fn a_flood_is_cut_off_and_refills_slowly() {
        let mut correlator = Correlator::default();
        for _ in 0..25 {
            record(&mut correlator, "a", 0);
        }
        assert!(matches!(correlator.observe(occurrence("a", 1)), Verdict::Drop));
        record(&mut correlator, "a", 301);
        assert!(matches!(correlator.observe(occurrence("a", 302)), Verdict::Drop));
    }
}
