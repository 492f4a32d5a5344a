//! What is known of some resources, derived from the store and never behind it.
//!
//! A [`Follower`] holds watches of the store and takes in what they have whenever somebody reads: no task runs beside it, and
//! whoever reads after a write was answered sees that write. A reader that finds nothing new costs one comparison of
//! revisions. A follower that nobody read for so long that the store forgot what happened since begins anew.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};
use parking_lot::{MappedRwLockReadGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use wherry_store::{At, Entry, Key, Range, Store, StoreError, Watch};

/// Something derived from stored objects.
pub(crate) trait View: Default + Send + Sync + 'static {
    /// The storage resources that it is derived from.
    const RESOURCES: &'static [&'static str];

    /// An object came or changed.
    fn put(&mut self, entry: &Entry);

    /// An object went.
    fn remove(&mut self, key: &Key);
}

/// A view and what keeps it current.
pub(crate) struct Follower<V> {
    store: Arc<dyn Store>,
    state: RwLock<State<V>>,
}

struct State<V> {
    view: V,
    /// The view holds everything up to this revision.
    revision: u64,
    /// One a resource; none before the first read.
    watches: Vec<Watch>,
}

impl<V: View> Follower<V> {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, state: RwLock::new(State { view: V::default(), revision: 0, watches: Vec::new() }) }
    }

    /// The view of all that was written before this call.
    pub(crate) fn read(&self) -> MappedRwLockReadGuard<'_, V> {
        let revision = self.store.revision();
        let mut guard = self.state.read();
        if guard.revision < revision {
            drop(guard);
            let mut writing = self.state.write();
            writing.advance(self.store.as_ref(), revision);
            guard = RwLockWriteGuard::downgrade(writing);
        }
        RwLockReadGuard::map(guard, |state| &state.view)
    }
}

impl<V: View> State<V> {
    fn advance(&mut self, store: &dyn Store, revision: u64) {
        // Another reader may have been faster.
        if self.revision >= revision {
            return;
        }
        let outcome =
            if self.watches.is_empty() { self.begin(store) } else { self.take().or_else(|_| self.begin(store)) };
        match outcome {
            Ok(()) => self.revision = revision,
            // What is not known allows nothing; the next reader tries again.
            Err(error) => tracing::error!(%error, "stored objects could not be listed"),
        }
    }

    /// All objects anew, and watches from there on.
    fn begin(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        self.watches.clear();
        self.view = V::default();
        let mut watches = Vec::new();
        for resource in V::RESOURCES {
            let list = store.list(&Range::all(*resource), At::Latest)?;
            list.entries.iter().for_each(|entry| self.view.put(entry));
            watches.push(store.watch(Range::all(*resource), list.revision)?);
        }
        self.watches = watches;
        Ok(())
    }

    /// What the watches have at hand.
    fn take(&mut self) -> Result<(), StoreError> {
        for watch in &mut self.watches {
            while let Some(Some(event)) = watch.next().now_or_never() {
                let event = event?;
                if event.deleted {
                    self.view.remove(&event.entry.key);
                } else {
                    self.view.put(&event.entry);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use serde_json::json;
    use wherry_api::encode::Encoded;
    use wherry_api::selector::Attributes;
    use wherry_store::{MemoryStore, Op, Precondition, Write};

    use super::*;

    #[derive(Default)]
    struct Names(BTreeSet<String>);

    impl View for Names {
        const RESOURCES: &'static [&'static str] = &["roles", "clusterroles"];

        fn put(&mut self, entry: &Entry) {
            self.0.insert(entry.key.to_string());
        }

        fn remove(&mut self, key: &Key) {
            self.0.remove(&key.to_string());
        }
    }

    async fn write(store: &MemoryStore, resource: &str, name: &str, put: bool) {
        let object = Encoded::new(&json!({"metadata": {"name": name}})).unwrap();
        let op = if put {
            Op::Put { object, attributes: Attributes::default(), uid: "u".into() }
        } else {
            Op::Delete { object }
        };
        let write = Write { key: Key::new(resource, "", name), precondition: Precondition::Any, op, durable: false };
        store.write(write).await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_sees_every_write_that_was_answered() {
        let store = Arc::new(MemoryStore::new());
        write(&store, "roles", "old", true).await;
        let follower = Follower::<Names>::new(store.clone());
        let names = || follower.read().0.iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(), ["roles/old"]);
        write(&store, "clusterroles", "new", true).await;
        assert_eq!(names(), ["clusterroles/new", "roles/old"]);
        write(&store, "pods", "other", true).await;
        write(&store, "roles", "old", false).await;
        assert_eq!(names(), ["clusterroles/new"]);
        // The history that it has not read yet is gone: it begins anew.
        write(&store, "roles", "late", true).await;
        write(&store, "clusterroles", "new", false).await;
        store.compact(store.revision()).unwrap();
        assert_eq!(names(), ["roles/late"]);
        write(&store, "roles", "later", true).await;
        assert_eq!(names(), ["roles/late", "roles/later"]);
    }
}
