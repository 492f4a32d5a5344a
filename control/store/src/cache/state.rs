//! All objects at one revision, in persistent maps: a clone is a snapshot and costs a pointer.

use std::sync::Arc;

use imbl::OrdMap;

use crate::{Entry, Event, Key, List, Range};

/// The objects of one resource by (namespace, name).
pub(crate) type Table = OrdMap<(Arc<str>, Arc<str>), Arc<Entry>>;

/// All objects at one revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) revision: u64,
    pub(crate) tables: OrdMap<Arc<str>, Table>,
}

impl State {
    pub(crate) fn table(&self, resource: &Arc<str>) -> Option<&Table> {
        self.tables.get(resource)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.tables.get(&key.resource)?.get(&(key.namespace.clone(), key.name.clone()))
    }

    /// All objects.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.tables.values().flat_map(|table| table.values())
    }

    pub(crate) fn insert(&mut self, entry: Arc<Entry>) {
        let place = (entry.key.namespace.clone(), entry.key.name.clone());
        match self.tables.get_mut(&entry.key.resource) {
            Some(table) => {
                table.insert(place, entry);
            }
            None => {
                self.tables.insert(entry.key.resource.clone(), Table::unit(place, entry));
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(table) = self.tables.get_mut(&key.resource) {
            table.remove(&(key.namespace.clone(), key.name.clone()));
        }
    }

    /// Moves on by one event.
    pub(crate) fn apply(&mut self, event: &Event) {
        if event.deleted {
            self.remove(&event.entry.key);
        } else {
            self.insert(event.entry.clone());
        }
        self.revision = event.revision;
    }

    /// A resource's objects as they were before `events`, which are the last that happened to it, in order.
    pub(crate) fn table_before(&self, resource: &Arc<str>, events: &[Arc<Event>]) -> Table {
        let mut table = self.table(resource).cloned().unwrap_or_default();
        for event in events.iter().rev() {
            let key = &event.entry.key;
            let place = (key.namespace.clone(), key.name.clone());
            match &event.previous {
                Some(previous) => table.insert(place, previous.clone()),
                None => table.remove(&place),
            };
        }
        table
    }
}

/// The part of a table that lies in a range.
pub(crate) fn list(table: &Table, range: &Range, revision: u64) -> List {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let limit = if range.limit == 0 { usize::MAX } else { range.limit };
    if let (Some(namespace), Some(name)) = (&range.namespace, &range.name) {
        let place = (namespace.clone(), name.clone());
        let found = table.get(&place).filter(|_| range.after.as_ref().is_none_or(|after| place > *after));
        return List { revision, entries: found.cloned().into_iter().collect(), count: usize::from(found.is_some()) };
    }
    let first = range.namespace.as_ref().map(|namespace| (namespace.clone(), Arc::from("")));
    let start = match (first, &range.after) {
        (Some(first), Some(after)) if *after < first => Included(first),
        (_, Some(after)) => Excluded(after.clone()),
        (Some(first), None) => Included(first),
        (None, None) => Unbounded,
    };
    let whole = start == Unbounded && range.name.is_none();
    let mut rest = table
        .range::<_, (Arc<str>, Arc<str>)>((start, Unbounded))
        .take_while(|((namespace, _), _)| range.namespace.as_ref().is_none_or(|n| n == namespace))
        .filter(|((_, name), _)| range.name.as_ref().is_none_or(|n| n == name))
        .map(|(_, entry)| entry);
    let entries: Vec<_> = rest.by_ref().take(limit).cloned().collect();
    let count = if whole { table.len() } else { entries.len() + rest.count() };
    List { revision, entries, count }
}
