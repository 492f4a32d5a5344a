//! What may sleep: the targets of autoscalers with `minReplicas: 0`, and the Services before them.
//!
//! A Service is before a target where it would select the target's Pods, whether there are any or not: by the labels of the
//! target's template.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscaler},
    core::v1::{PodTemplateSpec, ReplicationController, Service},
};
use wherry_reconcile::{Change, Feeds, Informer, Informers, ObjectKey, informer::Kind};

use crate::{context::Context, endpoints};

type Labels = BTreeMap<String, String>;

/// Caches of all that is needed to tell.
#[derive(Clone)]
pub(crate) struct Sleepers {
    autoscalers: Informer<HorizontalPodAutoscaler>,
    services: Informer<Service>,
    /// One for each kind that an autoscaler's target may be.
    targets: Arc<[Box<dyn Targets>]>,
}

/// The workloads of one kind.
trait Targets: Send + Sync {
    /// Has passes wait for the cache.
    fn read(&self, feeds: Feeds<ObjectKey>) -> Feeds<ObjectKey>;
    /// The same, and feeds the Services that a change may concern.
    fn feed(&self, sleepers: &Sleepers, feeds: Feeds<ObjectKey>) -> Feeds<ObjectKey>;
    /// The labels that the Pods of a target have; none where there is no such workload of this kind.
    fn labels(&self, namespace: &str, target: &CrossVersionObjectReference) -> Option<Labels>;
}

/// A cache, and where the kind has its template.
struct Kept<K: Kind> {
    cache: Informer<K>,
    template: fn(&K) -> Option<&PodTemplateSpec>,
}

impl<K: Kind<DynamicType = ()>> Kept<K> {
    fn by(informers: &Informers, template: fn(&K) -> Option<&PodTemplateSpec>) -> Box<dyn Targets> {
        Box::new(Self { cache: informers.get(), template })
    }
}

impl<K: Kind<DynamicType = ()>> Targets for Kept<K> {
    fn read(&self, feeds: Feeds<ObjectKey>) -> Feeds<ObjectKey> {
        feeds.reading(&self.cache)
    }

    fn feed(&self, sleepers: &Sleepers, feeds: Feeds<ObjectKey>) -> Feeds<ObjectKey> {
        let (sleepers, template) = (sleepers.clone(), self.template);
        feeds.on(&self.cache, move |change| {
            let labels = |side: &Option<Arc<K>>| side.as_ref().and_then(|side| labels_of(template(side)?));
            let namespace = change.key().namespace;
            if labels(&change.old) == labels(&change.new) || !sleepers.may_sleep_in(&namespace) {
                return Vec::new();
            }
            sleepers.services_in(&namespace)
        })
    }

    fn labels(&self, namespace: &str, target: &CrossVersionObjectReference) -> Option<Labels> {
        let api_version = target.api_version.as_deref().unwrap_or("v1");
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        if group != K::group(&()) || target.kind != K::kind(&()) {
            return None;
        }
        let workload = self.cache.get(namespace, &target.name)?;
        labels_of((self.template)(&workload)?)
    }
}

/// Whether its target may be scaled to zero.
pub(crate) fn may_sleep(autoscaler: &HorizontalPodAutoscaler) -> bool {
    autoscaler.spec.min_replicas == Some(0)
}

impl Sleepers {
    pub(crate) fn new(context: &Context) -> Self {
        let informers = &context.informers;
        Self {
            autoscalers: informers.get(),
            services: informers.get(),
            targets: Arc::new([
                Kept::by(informers, |workload: &Deployment| Some(&workload.spec.as_ref()?.template)),
                Kept::by(informers, |workload: &StatefulSet| Some(&workload.spec.as_ref()?.template)),
                Kept::by(informers, |workload: &ReplicaSet| workload.spec.as_ref()?.template.as_ref()),
                Kept::by(informers, |workload: &ReplicationController| workload.spec.as_ref()?.template.as_ref()),
            ]),
        }
    }

    /// Has passes wait for the caches.
    pub(crate) fn read(&self, feeds: Feeds<ObjectKey>) -> Feeds<ObjectKey> {
        let feeds = feeds.reading(&self.autoscalers).reading(&self.services);
        self.targets.iter().fold(feeds, |feeds, targets| targets.read(feeds))
    }

    /// Feeds the Services of which a change may tell that they are before something that may sleep, or no longer.
    pub(crate) fn feed_services(&self, feeds: Feeds<ObjectKey>) -> Feeds<ObjectKey> {
        let of_autoscalers = self.clone();
        let feeds =
            feeds.reading(&self.services).on(&self.autoscalers, move |change| of_autoscalers.of_autoscaler(change));
        self.targets.iter().fold(feeds, |feeds, targets| targets.feed(self, feeds))
    }

    fn of_autoscaler(&self, change: &Change<HorizontalPodAutoscaler>) -> Vec<ObjectKey> {
        let told = |side: &Option<Arc<HorizontalPodAutoscaler>>| {
            side.as_ref().map(|hpa| (hpa.spec.scale_target_ref.clone(), may_sleep(hpa)))
        };
        if told(&change.old) == told(&change.new) || !change.sides().any(|hpa| may_sleep(hpa)) {
            return Vec::new();
        }
        self.services_in(&change.key().namespace)
    }

    fn may_sleep_in(&self, namespace: &str) -> bool {
        self.autoscalers.list_namespace(namespace).iter().any(|hpa| may_sleep(hpa))
    }

    fn services_in(&self, namespace: &str) -> Vec<ObjectKey> {
        self.services.list_namespace(namespace).iter().map(|service| ObjectKey::of(&**service)).collect()
    }

    /// The autoscalers that may have what a Service leads to sleep.
    pub(crate) fn behind(&self, service: &Service) -> Vec<ObjectKey> {
        let Some(selector) = endpoints::selector(service) else { return Vec::new() };
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let autoscalers = self.autoscalers.list_namespace(namespace);
        let leads = |hpa: &&Arc<HorizontalPodAutoscaler>| {
            may_sleep(hpa)
                && self
                    .labels(namespace, &hpa.spec.scale_target_ref)
                    .is_some_and(|labels| selector.iter().all(|(name, value)| labels.get(name) == Some(value)))
        };
        autoscalers.iter().filter(leads).map(|hpa| ObjectKey::of(&**hpa)).collect()
    }

    /// The labels that the Pods of a target have.
    fn labels(&self, namespace: &str, target: &CrossVersionObjectReference) -> Option<Labels> {
        self.targets.iter().find_map(|targets| targets.labels(namespace, target))
    }
}

fn labels_of(template: &PodTemplateSpec) -> Option<Labels> {
    template.metadata.as_ref()?.labels.clone()
}
