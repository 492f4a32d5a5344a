//! All resources that the server has, as discovery tells, and the changes of all of them.
//!
//! The garbage collector and the namespace controller need only metadata, of every kind. Kinds that other controllers
//! decode anyway are read from the shared informers; for the rest a metadata informer each is enough.
//!
//! Caveat: discovery is read once at start; kinds that come into being at run time are for whoever serves them to announce.

use std::{fmt, sync::Arc, time::Duration};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::{CronJob, Job},
    core::v1::{
        Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Service,
    },
    discovery::v1::EndpointSlice,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client,
    api::ObjectMeta,
    core::ApiResource,
    discovery::{Discovery, Scope},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use wherry_reconcile::{Backoff, Informer, Metadata, informer::Kind};

use crate::context::{Context, feed};

/// One resource of the server.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) api: ApiResource,
    pub(crate) namespaced: bool,
    pub(crate) verbs: Vec<String>,
}

impl Resource {
    pub(crate) fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }

    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.api.group == group && self.api.kind == kind
    }

    /// Whether the kind's changes are watched. Events come and go by themselves, own nothing and are owned by nothing.
    pub(crate) fn is_watched(&self) -> bool {
        self.can("list") && self.can("watch") && self.can("delete") && !self.is("", "Event")
    }

    /// The API for the objects of a namespace, or for cluster-scoped ones.
    pub(crate) fn objects(&self, client: &Client, namespace: &str) -> Api<Metadata> {
        if self.namespaced {
            Api::namespaced_with(client.clone(), namespace, &self.api)
        } else {
            Api::all_with(client.clone(), &self.api)
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.api.plural, self.api.group)
    }
}

/// Asks the server what it has; every kind once, in its preferred version.
pub(crate) async fn discover(client: &Client) -> Result<Vec<Arc<Resource>>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let resources = discovery
        .groups()
        // The same objects as core/v1 Events.
        .filter(|group| group.name() != "events.k8s.io")
        .flat_map(|group| group.recommended_resources())
        .map(|(api, capabilities)| {
            Arc::new(Resource {
                namespaced: capabilities.scope == Scope::Namespaced,
                verbs: capabilities.operations,
                api,
            })
        })
        .collect();
    Ok(resources)
}

/// [`discover`], tried until it succeeds; none once cancelled.
pub(crate) async fn discover_until(client: &Client, cancel: &CancellationToken) -> Option<Vec<Arc<Resource>>> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
    loop {
        match cancel.run_until_cancelled(discover(client)).await? {
            Ok(resources) => return Some(resources),
            Err(error) => warn!(%error, "the server's resources could not be discovered"),
        }
        cancel.run_until_cancelled(tokio::time::sleep(backoff.next_delay())).await?;
    }
}

/// Learns of every change of every kind.
pub(crate) trait Observer: Send + Sync + 'static {
    /// An object came, changed or went.
    fn observe(&self, resource: &Arc<Resource>, old: Option<&ObjectMeta>, new: Option<&ObjectMeta>);
}

/// Tells the observers of all changes until `cancel`.
pub(crate) async fn watch_all(
    context: &Context,
    resources: &[Arc<Resource>],
    observers: Vec<Arc<dyn Observer>>,
    cancel: &CancellationToken,
) {
    let mut feeds = JoinSet::new();
    for resource in resources.iter().filter(|resource| resource.is_watched()) {
        let feed = Feed { resource: resource.clone(), observers: observers.clone(), cancel: cancel.clone() };
        let informers = &context.informers;
        match (&*resource.api.group, &*resource.api.kind) {
            ("", "Pod") => feeds.spawn(feed.run(informers.get::<Pod>())),
            ("", "Service") => feeds.spawn(feed.run(informers.get::<Service>())),
            ("", "Endpoints") => feeds.spawn(feed.run(informers.get::<Endpoints>())),
            ("", "Node") => feeds.spawn(feed.run(informers.get::<Node>())),
            ("", "Namespace") => feeds.spawn(feed.run(informers.get::<Namespace>())),
            ("", "PersistentVolume") => feeds.spawn(feed.run(informers.get::<PersistentVolume>())),
            ("", "PersistentVolumeClaim") => feeds.spawn(feed.run(informers.get::<PersistentVolumeClaim>())),
            ("", "ReplicationController") => feeds.spawn(feed.run(informers.get::<ReplicationController>())),
            ("apps", "ReplicaSet") => feeds.spawn(feed.run(informers.get::<ReplicaSet>())),
            ("apps", "ControllerRevision") => feeds.spawn(feed.run(informers.get::<ControllerRevision>())),
            ("apps", "DaemonSet") => feeds.spawn(feed.run(informers.get::<DaemonSet>())),
            ("apps", "StatefulSet") => feeds.spawn(feed.run(informers.get::<StatefulSet>())),
            ("autoscaling", "HorizontalPodAutoscaler") => {
                feeds.spawn(feed.run(informers.get::<HorizontalPodAutoscaler>()))
            }
            ("batch", "CronJob") => feeds.spawn(feed.run(informers.get::<CronJob>())),
            ("policy", "PodDisruptionBudget") => feeds.spawn(feed.run(informers.get::<PodDisruptionBudget>())),
            ("batch", "Job") => feeds.spawn(feed.run(informers.get::<Job>())),
            ("apps", "Deployment") => feeds.spawn(feed.run(informers.get::<Deployment>())),
            ("discovery.k8s.io", "EndpointSlice") => feeds.spawn(feed.run(informers.get::<EndpointSlice>())),
            _ => feeds.spawn(feed.run(informers.metadata(&resource.api))),
        };
    }
    while feeds.join_next().await.is_some() {}
}

struct Feed {
    resource: Arc<Resource>,
    observers: Vec<Arc<dyn Observer>>,
    cancel: CancellationToken,
}

impl Feed {
    async fn run<K: Kind>(self, informer: Informer<K>) {
        feed(informer.subscribe(), &self.cancel, |change| {
            let old = change.old.as_deref().map(K::meta);
            let new = change.new.as_deref().map(K::meta);
            for observer in &self.observers {
                observer.observe(&self.resource, old, new);
            }
        })
        .await;
    }
}
