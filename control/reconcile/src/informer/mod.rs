//! Informers: the local, always current copy of a kind.
//!
//! [`Informers::get`] starts, the first time a kind is asked for, one task that lists and watches it; every later caller
//! shares its cache. Each object is decoded once and handed out as `Arc<K>`.
//!
//! Guarantees
//! - A cache is read at one revision of the server and never goes back, except after the server itself did.
//! - A [`Subscription`] sees every object's last state; states in between may be folded into one [`Change`].
//! - A lost connection is resumed where it broke; an expired one is listed again, and what vanished in between arrives as
//!   a deletion.
//!
//! Caveat: `metadata.managedFields` is dropped; no controller reads it and it is half of many objects.

mod cache;
mod subscription;
mod watch;

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt::Debug,
    sync::Arc,
};

use cache::Cache;
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use subscription::{Change, Subscription};

use crate::ObjectKey;

/// The metadata of an object of any kind.
pub type Metadata = PartialObjectMeta<DynamicObject>;

/// What an informer can hold.
pub trait Kind: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}

impl<K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Kind for K {}

/// Which objects of a kind an informer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// A label selector.
    pub labels: Option<String>,
    /// A field selector, for example `spec.nodeName=node-1`.
    pub fields: Option<String>,
}

impl Filter {
    /// Only objects that a field selector matches.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { fields: Some(selector.into()), ..Self::default() }
    }

    /// Only objects that a label selector matches.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: Some(selector.into()), ..Self::default() }
    }
}

type Slot = (TypeId, String, Filter);

struct Running {
    informer: Box<dyn Any + Send + Sync>,
    cancel: CancellationToken,
}

struct Shared {
    client: Client,
    cancel: CancellationToken,
    tasks: TaskTracker,
    running: Mutex<HashMap<Slot, Running>>,
}

/// The informers of a process, one a kind. Cheap to clone.
#[derive(Clone)]
pub struct Informers {
    shared: Arc<Shared>,
}

impl Informers {
    /// Informers that read through `client` until `cancel` is cancelled.
    pub fn new(client: Client, cancel: CancellationToken) -> Self {
        Self {
            shared: Arc::new(Shared { client, cancel, tasks: TaskTracker::new(), running: Mutex::new(HashMap::new()) }),
        }
    }

    /// The informer of all objects of a kind.
    pub fn get<K: Kind<DynamicType = ()>>(&self) -> Informer<K> {
        self.get_filtered(Filter::default())
    }

    /// The informer of some objects of a kind: what an agent on another machine watches.
    pub fn get_filtered<K: Kind<DynamicType = ()>>(&self, filter: Filter) -> Informer<K> {
        self.start(Api::all(self.shared.client.clone()), filter)
    }

    /// The informer of only the metadata of a kind that is known at run time.
    pub fn metadata(&self, resource: &ApiResource) -> Informer<Metadata> {
        self.start(Api::all_with(self.shared.client.clone(), resource), Filter::default())
    }

    /// Ends the metadata informer of a kind that the server serves no more. Its cache stays readable.
    pub fn stop_metadata(&self, resource: &ApiResource) {
        let api: Api<Metadata> = Api::all_with(self.shared.client.clone(), resource);
        let slot = slot(&api, &Filter::default());
        if let Some(running) = self.shared.running.lock().remove(&slot) {
            running.cancel.cancel();
        }
    }

    /// Resolves once every watch has ended after cancellation.
    pub async fn closed(&self) {
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn start<K: Kind>(&self, api: Api<K>, filter: Filter) -> Informer<K> {
        let mut running = self.shared.running.lock();
        let slot = slot(&api, &filter);
        if let Some(found) = running.get(&slot).and_then(|entry| entry.informer.downcast_ref::<Informer<K>>()) {
            return found.clone();
        }
        let cancel = self.shared.cancel.child_token();
        let cache = Arc::new(Cache::default());
        let informer = Informer { cache: cache.clone() };
        self.shared.tasks.spawn(watch::drive(api, filter, cache, cancel.clone()));
        running.insert(slot, Running { informer: Box::new(informer.clone()), cancel });
        informer
    }
}

/// What tells two informers apart: the decoded type, the resource (its URL) and the filter.
fn slot<K: Kind>(api: &Api<K>, filter: &Filter) -> Slot {
    (TypeId::of::<K>(), api.resource_url().to_owned(), filter.clone())
}

/// A handle to the cache of one kind. Cheap to clone; reads never wait for the network.
pub struct Informer<K> {
    cache: Arc<Cache<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { cache: self.cache.clone() }
    }
}

impl<K: Kind> Informer<K> {
    /// The object of this name, if it is known to exist.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.cache.get(namespace, name)
    }

    /// The object of this key.
    pub fn get_key(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.cache.get(&key.namespace, &key.name)
    }

    /// All objects, ordered by name within a namespace.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.cache.list()
    }

    /// The objects of one namespace, ordered by name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.cache.list_namespace(namespace)
    }

    /// Keeps a secondary index from now on: `keys` names the index keys of an object. Asking again for an index of the
    /// same name leaves the first one in place, so that every user of a shared informer may declare what it needs.
    pub fn index(&self, name: &'static str, keys: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        self.cache.index(name, Box::new(keys));
    }

    /// The objects that the index `name` holds under `key`; none if there is no such index.
    pub fn by_index(&self, name: &'static str, key: &str) -> Vec<Arc<K>> {
        self.cache.by_index(name, key)
    }

    /// All changes from now on, preceded by one change for every object that exists.
    pub fn subscribe(&self) -> Subscription<K> {
        self.cache.subscribe()
    }

    /// Waits until the first list is complete. False if the informer was stopped before that.
    pub async fn synced(&self) -> bool {
        self.reached(|progress| progress.synced).await
    }

    /// The newest revision of the server that this cache reflects.
    pub fn revision(&self) -> u64 {
        self.cache.revision()
    }

    /// Waits until the cache reflects `revision`, for example that of one's own write. False if stopped before that.
    pub async fn at(&self, revision: u64) -> bool {
        self.reached(move |progress| progress.synced && progress.revision >= revision).await
    }

    async fn reached(&self, done: impl Fn(&cache::Progress) -> bool) -> bool {
        let mut progress = self.cache.watch_progress();
        let result = progress.wait_for(|progress| progress.closed || done(progress)).await;
        result.is_ok_and(|progress| done(&progress))
    }
}

/// The revision of an object as a number; 0 where it has none.
pub fn revision_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
