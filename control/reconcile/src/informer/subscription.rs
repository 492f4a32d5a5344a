//! A reader's view of the changes of a kind.
//!
//! A mailbox holds at most one pending change an object: a slow reader sees fewer, larger steps, never a gap. So it is
//! bounded by the number of objects, and the watch never waits for a reader.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
};

use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::ObjectKey;

/// What happened to one object: created (no `old`), deleted (no `new`) or changed.
///
/// Several steps may have been folded together. An object that was deleted and created again under the same name arrives
/// as one change whose two sides differ in their UID; one that came and went unseen arrives as a deletion.
#[derive(Debug)]
pub struct Change<K> {
    /// The state that the reader saw last; for a deletion the last state there was.
    pub old: Option<Arc<K>>,
    /// The state now.
    pub new: Option<Arc<K>>,
}

impl<K> Clone for Change<K> {
    fn clone(&self) -> Self {
        Self { old: self.old.clone(), new: self.new.clone() }
    }
}

impl<K: Resource> Change<K> {
    /// The object's key.
    pub fn key(&self) -> ObjectKey {
        self.object().map(|object| ObjectKey::of(&**object)).unwrap_or_default()
    }
}

impl<K> Change<K> {
    /// The newest state of the object, be it deleted or not.
    pub fn object(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }

    /// Both sides, the older first: what has to be told when an object moves from one owner to another.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }
}

/// What has become of an object since its reader looked last.
struct Unread<K> {
    change: Change<K>,
    /// Whether the reader knows the object. Of one that came and went unread, `change` shows what it was: that is no state that was seen.
    known: bool,
}

impl<K> Unread<K> {
    fn new(change: Change<K>) -> Self {
        Self { known: change.old.is_some(), change }
    }

    fn then(&mut self, next: Change<K>) {
        let seen = self.change.old.take().filter(|_| self.known);
        let last = next.old.or(self.change.new.take());
        let old = seen.or_else(|| last.filter(|_| next.new.is_none()));
        self.change = Change { old, new: next.new };
    }
}

struct Pending<K> {
    order: VecDeque<ObjectKey>,
    changes: HashMap<ObjectKey, Unread<K>>,
    closed: bool,
}

pub(super) struct Mailbox<K> {
    pending: Mutex<Pending<K>>,
    arrived: Notify,
}

impl<K> Default for Mailbox<K> {
    fn default() -> Self {
        Self {
            pending: Mutex::new(Pending { order: VecDeque::new(), changes: HashMap::new(), closed: false }),
            arrived: Notify::new(),
        }
    }
}

impl<K> Mailbox<K> {
    pub(super) fn push(&self, key: ObjectKey, change: Change<K>) {
        let mut pending = self.pending.lock();
        match pending.changes.entry(key) {
            Entry::Occupied(mut entry) => entry.get_mut().then(change),
            Entry::Vacant(entry) => {
                let key = entry.key().clone();
                entry.insert(Unread::new(change));
                pending.order.push_back(key);
            }
        }
        drop(pending);
        self.arrived.notify_one();
    }

    pub(super) fn close(&self) {
        self.pending.lock().closed = true;
        self.arrived.notify_one();
    }
}

/// The changes of a kind, in the order in which their objects first changed. Dropping it ends it.
pub struct Subscription<K> {
    mailbox: Arc<Mailbox<K>>,
}

impl<K> Subscription<K> {
    pub(super) fn new(mailbox: Arc<Mailbox<K>>) -> Self {
        Self { mailbox }
    }

    /// The next change; none once the informer has stopped and everything was read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change<K>> {
        loop {
            if let Some(change) = self.try_next() {
                return Some(change);
            }
            if self.mailbox.pending.lock().closed {
                return None;
            }
            self.mailbox.arrived.notified().await;
        }
    }

    /// The next change if there is one already.
    pub fn try_next(&mut self) -> Option<Change<K>> {
        let mut pending = self.mailbox.pending.lock();
        let key = pending.order.pop_front()?;
        pending.changes.remove(&key).map(|unread| unread.change)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn change(old: Option<u32>, new: Option<u32>) -> Change<u32> {
        Change { old: old.map(Arc::new), new: new.map(Arc::new) }
    }

    fn folded(changes: impl IntoIterator<Item = (Option<u32>, Option<u32>)>) -> (Option<u32>, Option<u32>) {
        let mailbox = Arc::new(Mailbox::default());
        for (old, new) in changes {
            mailbox.push(ObjectKey::new("", "x"), change(old, new));
        }
        let mut subscription = Subscription::new(mailbox);
        let change = subscription.try_next().unwrap();
        assert!(subscription.try_next().is_none());
        (change.old.map(|v| *v), change.new.map(|v| *v))
    }

    #[test]
    fn changes_of_one_object_fold() {
        assert_eq!(folded([(None, Some(1)), (Some(1), Some(2))]), (None, Some(2)));
        assert_eq!(folded([(Some(1), Some(2)), (Some(2), Some(3))]), (Some(1), Some(3)));
        assert_eq!(folded([(Some(1), Some(2)), (Some(2), None)]), (Some(1), None));
        assert_eq!(folded([(None, Some(1)), (Some(1), None)]), (Some(1), None));
        assert_eq!(folded([(Some(1), None), (None, Some(2))]), (Some(1), Some(2)));
        // What came and went unread was not seen: for the reader, the second is new.
        assert_eq!(folded([(None, Some(1)), (Some(1), None), (None, Some(2))]), (None, Some(2)));
        assert_eq!(folded([(None, Some(1)), (Some(1), None), (None, Some(2)), (Some(2), None)]), (Some(2), None));
    }

    #[tokio::test]
    async fn ends_after_the_last_change() {
        let mailbox = Arc::new(Mailbox::default());
        mailbox.push(ObjectKey::new("", "x"), change(None, Some(1)));
        mailbox.close();
        let mut subscription = Subscription::new(mailbox);
        assert!(subscription.next().await.is_some());
        assert!(subscription.next().await.is_none());
    }
}
