//! The plain data of the store: keys, entries, writes, ranges and events.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use wherry_api::{encode::Encoded, selector::Attributes};

/// Where an object lives. Ordered by resource, namespace, name: the order of lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The group-resource under which the object is stored: `pods`, `deployments.apps`.
    pub resource: Arc<str>,
    /// Empty for cluster-scoped objects.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub fn new(resource: impl Into<Arc<str>>, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { resource: resource.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.resource, self.name)
        } else {
            write!(f, "{}/{}/{}", self.resource, self.namespace, self.name)
        }
    }
}

/// One version of one object. Immutable and shared: lists, watchers and caches hold the same bytes.
#[derive(Debug)]
pub struct Entry {
    /// Where the object lives.
    pub key: Key,
    /// The revision of the write that made this version: the object's `resourceVersion`.
    pub revision: u64,
    /// The revision of the write that created the object.
    pub created: u64,
    /// The object's JSON, its `resourceVersion` included.
    pub json: Bytes,
    /// What selectors look at.
    pub attributes: Attributes,
    /// The object's `metadata.uid`.
    pub uid: Arc<str>,
    /// The object's protobuf message, once a reader has made it; the store never does.
    pub message: OnceLock<Bytes>,
}

// A revision belongs to one write, so key and revision name the content.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.revision == other.revision && self.key == other.key
    }
}

impl Eq for Entry {}

/// What must hold for a [`Write`] to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such object.
    Absent,
    /// The object is at this revision.
    Revision(u64),
    /// Nothing. A delete still needs an object to delete.
    Any,
}

/// What a [`Write`] does.
#[derive(Debug, Clone)]
pub enum Op {
    /// Creates the object or replaces it.
    Put {
        /// The new content.
        object: Encoded,
        /// What selectors look at.
        attributes: Attributes,
        /// The object's `metadata.uid`.
        uid: Arc<str>,
    },
    /// Removes the object.
    Delete {
        /// The object as it was last: what watchers are shown, with the revision of the delete.
        object: Encoded,
    },
}

/// One change to one object.
#[derive(Debug, Clone)]
pub struct Write {
    /// Which object.
    pub key: Key,
    /// What must hold.
    pub precondition: Precondition,
    /// What to do.
    pub op: Op,
    /// Whether to wait until the change would survive a power cut.
    pub durable: bool,
}

/// Which objects: those of one resource, of one namespace, or of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The storage group-resource.
    pub resource: Arc<str>,
    /// Only this namespace.
    pub namespace: Option<Arc<str>>,
    /// Only objects of this name.
    pub name: Option<Arc<str>>,
    /// Only what comes after this (namespace, name) in order: where the page before ended. Lists only.
    pub after: Option<(Arc<str>, Arc<str>)>,
    /// At most this many objects; 0 means all. Lists only.
    pub limit: usize,
}

impl Range {
    /// All objects of a resource.
    pub fn all(resource: impl Into<Arc<str>>) -> Self {
        Self { resource: resource.into(), namespace: None, name: None, after: None, limit: 0 }
    }

    /// Narrowed to a namespace.
    pub fn namespace(mut self, namespace: impl Into<Arc<str>>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Narrowed to a name.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Continued after an object.
    pub fn after(mut self, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        self.after = Some((namespace.into(), name.into()));
        self
    }

    /// Cut off after so many objects.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Whether an object of this resource lies in the range, pages aside.
    pub fn contains(&self, key: &Key) -> bool {
        self.resource == key.resource
            && self.namespace.as_ref().is_none_or(|n| *n == key.namespace)
            && self.name.as_ref().is_none_or(|n| *n == key.name)
    }
}

/// As of when to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest committed revision.
    Latest,
    /// Exactly this revision, if the history reaches back so far.
    Exact(u64),
    /// The newest committed revision, which must be no older than this.
    NotOlderThan(u64),
}

/// The objects of a range at one revision.
#[derive(Debug, Clone)]
pub struct List {
    /// The revision at which the list is true.
    pub revision: u64,
    /// The objects, ordered by namespace and name.
    pub entries: Vec<Arc<Entry>>,
    /// How many objects the range holds past `after`, `limit` aside.
    pub count: usize,
}

/// One change, as watchers see it.
#[derive(Debug)]
pub struct Event {
    /// The revision of the change.
    pub revision: u64,
    /// The object after the change; of a deleted one, its last state with the revision of the delete.
    pub entry: Arc<Entry>,
    /// The object before the change; none if it was created.
    pub previous: Option<Arc<Entry>>,
    /// Whether the object is gone.
    pub deleted: bool,
}
