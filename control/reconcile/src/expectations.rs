//! What a controller has written and its informer may not show yet.
//!
//! A controller that acts on a cache older than its own writes creates too many objects or deletes the wrong ones. Upstream
//! counts events to avoid that; here the server's revisions say it exactly: a creation is seen once the cache has reached
//! the revision that the server answered, a deletion once the object is gone or marked.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;

use crate::ObjectKey;

#[derive(Debug, Default)]
struct Expected {
    revision: u64,
    deletions: HashSet<String>,
}

/// The outstanding writes of a controller, by the key of the object on whose behalf they were made.
#[derive(Debug, Default)]
pub struct Expectations {
    expected: Mutex<HashMap<ObjectKey, Expected>>,
}

impl Expectations {
    /// Notes that the server stored a write at `revision`.
    pub fn wrote(&self, key: &ObjectKey, revision: u64) {
        let mut expected = self.expected.lock();
        let entry = expected.entry(key.clone()).or_default();
        entry.revision = entry.revision.max(revision);
    }

    /// Notes that the server accepted the deletion of the object with this UID.
    pub fn deleted(&self, key: &ObjectKey, uid: impl Into<String>) {
        let mut expected = self.expected.lock();
        expected.entry(key.clone()).or_default().deletions.insert(uid.into());
    }

    /// Whether a cache at `revision` shows all writes; `is_live(uid)` tells whether it still holds an object unmarked.
    pub fn satisfied(&self, key: &ObjectKey, revision: u64, is_live: impl Fn(&str) -> bool) -> bool {
        let mut expected = self.expected.lock();
        let Some(entry) = expected.get_mut(key) else {
            return true;
        };
        entry.deletions.retain(|uid| is_live(uid));
        let satisfied = entry.revision <= revision && entry.deletions.is_empty();
        if satisfied {
            expected.remove(key);
        }
        satisfied
    }

    /// Drops what is expected: the object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.expected.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_revision_and_deletions() {
        let expectations = Expectations::default();
        let key = ObjectKey::new("default", "web");
        assert!(expectations.satisfied(&key, 0, |_| true));
        expectations.wrote(&key, 7);
        expectations.wrote(&key, 5);
        expectations.deleted(&key, "a");
        assert!(!expectations.satisfied(&key, 6, |_| false));
        assert!(!expectations.satisfied(&key, 6, |_| false));
        assert!(expectations.satisfied(&key, 7, |_| false));
        expectations.deleted(&key, "b");
        assert!(!expectations.satisfied(&key, 9, |uid| uid == "b"));
        assert!(expectations.satisfied(&key, 9, |_| false));
        assert!(expectations.satisfied(&key, 0, |_| true), "nothing is expected any more");
    }
}
