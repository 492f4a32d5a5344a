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
use wherry_reconcile::{Change, Feeds, Informer, ObjectKey};

use crate::{context::Context, endpoints};

type Labels = BTreeMap<String, String>;

/// Caches of all that is needed to tell.
#[derive(Clone)]
pub(crate) struct Sleepers {
    autoscalers: Informer<HorizontalPodAutoscaler>,
    services: Informer<Service>,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<ReplicationController>,
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
            deployments: informers.get(),
            replica_sets: informers.get(),
            stateful_sets: informers.get(),
            replication_controllers: informers.get(),
        }
    }

    /// Has passes wait for the caches.
    pub(crate) fn read(&self, feeds: Feeds<ObjectKey>) -> Feeds<ObjectKey> {
        feeds
            .reading(&self.autoscalers)
            .reading(&self.services)
            .reading(&self.deployments)
            .reading(&self.replica_sets)
            .reading(&self.stateful_sets)
            .reading(&self.replication_controllers)
    }

    /// Feeds the Services of which a change may tell that they are before something that may sleep, or no longer.
    pub(crate) fn feed_services(&self, feeds: Feeds<ObjectKey>) -> Feeds<ObjectKey> {
        let (of_autoscalers, of_deployments, of_sets) = (self.clone(), self.clone(), self.clone());
        let (of_stateful_sets, of_replication_controllers) = (self.clone(), self.clone());
        self.read(feeds)
            .on(&self.autoscalers, move |change| of_autoscalers.of_autoscaler(change))
            .on(&self.deployments, move |change| {
                let labels = |side: &Arc<Deployment>| side.spec.as_ref().and_then(|spec| labels_of(&spec.template));
                of_deployments.of_target(change, labels)
            })
            .on(&self.replica_sets, move |change| {
                let labels = |side: &Arc<ReplicaSet>| side.spec.as_ref()?.template.as_ref().and_then(labels_of);
                of_sets.of_target(change, labels)
            })
            .on(&self.stateful_sets, move |change| {
                let labels = |side: &Arc<StatefulSet>| side.spec.as_ref().and_then(|spec| labels_of(&spec.template));
                of_stateful_sets.of_target(change, labels)
            })
            .on(&self.replication_controllers, move |change| {
                let labels =
                    |side: &Arc<ReplicationController>| side.spec.as_ref()?.template.as_ref().and_then(labels_of);
                of_replication_controllers.of_target(change, labels)
            })
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

    fn of_target<K: wherry_reconcile::informer::Kind>(
        &self,
        change: &Change<K>,
        labels: impl Fn(&Arc<K>) -> Option<Labels>,
    ) -> Vec<ObjectKey> {
        let sides = [&change.old, &change.new].map(|side| side.as_ref().and_then(&labels));
        let namespace = change.key().namespace;
        if sides[0] == sides[1] || !self.autoscalers.list_namespace(&namespace).iter().any(|hpa| may_sleep(hpa)) {
            return Vec::new();
        }
        self.services_in(&namespace)
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
        let api_version = target.api_version.as_deref().unwrap_or("v1");
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let name = target.name.as_str();
        match (group, target.kind.as_str()) {
            ("apps", "Deployment") => labels_of(&self.deployments.get(namespace, name)?.spec.as_ref()?.template),
            ("apps", "StatefulSet") => labels_of(&self.stateful_sets.get(namespace, name)?.spec.as_ref()?.template),
            ("apps", "ReplicaSet") => {
                labels_of(self.replica_sets.get(namespace, name)?.spec.as_ref()?.template.as_ref()?)
            }
            ("", "ReplicationController") => {
                labels_of(self.replication_controllers.get(namespace, name)?.spec.as_ref()?.template.as_ref()?)
            }
            _ => None,
        }
    }
}

fn labels_of(template: &PodTemplateSpec) -> Option<Labels> {
    template.metadata.as_ref()?.labels.clone()
}
