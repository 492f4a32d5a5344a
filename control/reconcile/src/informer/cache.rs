//! The cache behind an informer: one writer (the watch), many readers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Weak},
};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{
    Kind,
    subscription::{Change, Mailbox, Subscription},
};
use crate::ObjectKey;

type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;

/// How far the watch has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) synced: bool,
    pub(super) closed: bool,
    pub(super) revision: u64,
}

struct Index<K> {
    keys: IndexFn<K>,
    entries: HashMap<String, BTreeMap<ObjectKey, Arc<K>>>,
}

impl<K> Index<K> {
    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for entry in (self.keys)(object) {
            if let Some(objects) = self.entries.get_mut(&entry) {
                objects.remove(key);
                if objects.is_empty() {
                    self.entries.remove(&entry);
                }
            }
        }
    }

    fn insert(&mut self, key: &ObjectKey, object: &Arc<K>) {
        for entry in (self.keys)(object) {
            self.entries.entry(entry).or_default().insert(key.clone(), object.clone());
        }
    }
}

struct State<K> {
    objects: BTreeMap<String, BTreeMap<String, Arc<K>>>,
    indexes: HashMap<&'static str, Index<K>>,
    subscribers: Vec<Weak<Mailbox<K>>>,
    /// Advanced in the same critical section as the objects: whoever is woken by a change reads its revision too.
    revision: u64,
    closed: bool,
}

impl<K> State<K> {
    /// Stores or removes an object and tells everyone. Called under the write lock, which orders what subscribers see.
    fn set(&mut self, key: &ObjectKey, new: Option<Arc<K>>) {
        let old = match &new {
            Some(object) => {
                self.objects.entry(key.namespace.clone()).or_default().insert(key.name.clone(), object.clone())
            }
            None => self.objects.get_mut(&key.namespace).and_then(|names| names.remove(&key.name)),
        };
        if new.is_none() && self.objects.get(&key.namespace).is_some_and(BTreeMap::is_empty) {
            self.objects.remove(&key.namespace);
        }
        if old.is_none() && new.is_none() {
            return;
        }
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(key, old);
            }
            if let Some(new) = &new {
                index.insert(key, new);
            }
        }
        self.subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(mailbox) => {
                mailbox.push(key.clone(), Change { old: old.clone(), new: new.clone() });
                true
            }
            None => false,
        });
    }
}

pub(super) struct Cache<K> {
    state: RwLock<State<K>>,
    progress: watch::Sender<Progress>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self {
            state: RwLock::new(State {
                objects: BTreeMap::new(),
                indexes: HashMap::new(),
                subscribers: Vec::new(),
                revision: 0,
                closed: false,
            }),
            progress: watch::Sender::new(Progress::default()),
        }
    }
}

impl<K: Kind> Cache<K> {
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.state.read().objects.get(namespace)?.get(name).cloned()
    }

    pub(super) fn list(&self) -> Vec<Arc<K>> {
        let state = self.state.read();
        state.objects.values().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        state.objects.get(namespace).map(|names| names.values().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn index(&self, name: &'static str, keys: IndexFn<K>) {
        let mut state = self.state.write();
        let State { objects, indexes, .. } = &mut *state;
        indexes.entry(name).or_insert_with(|| {
            let mut index = Index { keys, entries: HashMap::new() };
            for object in objects.values().flat_map(BTreeMap::values) {
                index.insert(&ObjectKey::of(&**object), object);
            }
            index
        });
    }

    pub(super) fn by_index(&self, name: &'static str, key: &str) -> Vec<Arc<K>> {
        let state = self.state.read();
        state
            .indexes
            .get(name)
            .and_then(|index| index.entries.get(key))
            .map(|objects| objects.values().cloned().collect())
            .unwrap_or_default()
    }

    pub(super) fn subscribe(&self) -> Subscription<K> {
        let mailbox = Arc::new(Mailbox::default());
        let mut state = self.state.write();
        for object in state.objects.values().flat_map(BTreeMap::values) {
            mailbox.push(ObjectKey::of(&**object), Change { old: None, new: Some(object.clone()) });
        }
        if state.closed {
            mailbox.close();
        }
        state.subscribers.push(Arc::downgrade(&mailbox));
        Subscription::new(mailbox)
    }

    pub(super) fn revision(&self) -> u64 {
        self.state.read().revision
    }

    pub(super) fn watch_progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Takes a complete list as the new state: objects that are not in it are gone, unchanged ones are left alone.
    pub(super) fn replace(&self, objects: Vec<K>, revision: u64) {
        let mut state = self.state.write();
        state.revision = revision;
        let mut seen = HashSet::with_capacity(objects.len());
        for object in objects {
            let key = ObjectKey::of(&object);
            let known = state.objects.get(&key.namespace).and_then(|names| names.get(&key.name));
            let unchanged = known.is_some_and(|known| same_version(&**known, &object));
            if !unchanged {
                state.set(&key, Some(Arc::new(object)));
            }
            seen.insert(key);
        }
        let gone: Vec<ObjectKey> = state
            .objects
            .values()
            .flat_map(BTreeMap::values)
            .map(|object| ObjectKey::of(&**object))
            .filter(|key| !seen.contains(key))
            .collect();
        for key in gone {
            state.set(&key, None);
        }
        drop(state);
        self.progress.send_modify(|progress| {
            progress.synced = true;
            progress.revision = revision;
        });
    }

    /// Takes an added or changed object.
    pub(super) fn apply(&self, object: K) {
        let revision = super::revision_of(&object);
        let key = ObjectKey::of(&object);
        let mut state = self.state.write();
        state.revision = state.revision.max(revision);
        state.set(&key, Some(Arc::new(object)));
        drop(state);
        self.announce(revision);
    }

    /// Takes an object's deletion; `last` is its final state.
    pub(super) fn delete(&self, last: K) {
        let revision = super::revision_of(&last);
        let key = ObjectKey::of(&last);
        let mut state = self.state.write();
        state.revision = state.revision.max(revision);
        state.set(&key, None);
        drop(state);
        self.announce(revision);
    }

    /// Notes that everything up to `revision` has been seen.
    pub(super) fn advance(&self, revision: u64) {
        let mut state = self.state.write();
        state.revision = state.revision.max(revision);
        drop(state);
        self.announce(revision);
    }

    fn announce(&self, revision: u64) {
        self.progress.send_if_modified(|progress| {
            let newer = revision > progress.revision;
            progress.revision = progress.revision.max(revision);
            newer
        });
    }

    /// Ends every subscription and every wait.
    pub(super) fn close(&self) {
        let mut state = self.state.write();
        state.closed = true;
        for mailbox in state.subscribers.iter().filter_map(Weak::upgrade) {
            mailbox.close();
        }
        drop(state);
        self.progress.send_modify(|progress| progress.closed = true);
    }
}

fn same_version<K: Kind>(a: &K, b: &K) -> bool {
    let (a, b) = (a.meta(), b.meta());
    a.resource_version.is_some() && a.resource_version == b.resource_version && a.uid == b.uid
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn object(name: &str, version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("default".into()),
                name: Some(name.into()),
                uid: Some(name.into()),
                resource_version: Some(version.into()),
                labels: Some([("app".to_owned(), format!("v{version}"))].into()),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn by_app(object: &ConfigMap) -> Vec<String> {
        object.metadata.labels.iter().flat_map(|labels| labels.values().cloned()).collect()
    }

    #[test]
    fn replace_deletes_what_is_gone_and_keeps_what_is_unchanged() {
        let cache = Cache::default();
        cache.replace(vec![object("a", "1"), object("b", "2")], 2);
        let kept = cache.get("default", "a").unwrap();
        let mut changes = cache.subscribe();
        while changes.try_next().is_some() {}
        cache.replace(vec![object("a", "1"), object("c", "7")], 9);
        assert!(Arc::ptr_eq(&kept, &cache.get("default", "a").unwrap()));
        assert_eq!(cache.revision(), 9);
        let mut seen = Vec::new();
        while let Some(change) = changes.try_next() {
            seen.push((change.key(), change.new.is_some()));
        }
        seen.sort();
        assert_eq!(seen, vec![(ObjectKey::new("default", "b"), false), (ObjectKey::new("default", "c"), true)]);
    }

    #[test]
    fn an_index_follows_changes() {
        let cache = Cache::default();
        cache.apply(object("a", "1"));
        cache.index("app", Box::new(by_app));
        assert_eq!(cache.by_index("app", "v1").len(), 1);
        cache.apply(object("a", "2"));
        assert!(cache.by_index("app", "v1").is_empty());
        assert_eq!(cache.by_index("app", "v2").len(), 1);
        cache.delete(object("a", "3"));
        assert!(cache.by_index("app", "v2").is_empty());
        assert_eq!(cache.revision(), 3);
    }
}
