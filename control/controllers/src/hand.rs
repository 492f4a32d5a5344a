//! A controller's hand on the Pods it owns: claiming, creating and deleting them, with the events and the bookkeeping that
//! all workload controllers share.
//!
//! Guarantees
//! - [`Hand::is_current`] tells whether the cache shows all that earlier passes did: a pass that asks it first neither creates
//!   twice nor deletes too many.
//! - A Pod is adopted only after the server has confirmed that the owner still exists.

use std::{cell::OnceCell, collections::HashSet, fmt::Display, sync::Arc};

use futures::future::join_all;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, PostParams, Preconditions},
    core::Selector,
};
use wherry_reconcile::{
    Change, EventType, Expectations, Informer, ObjectKey, Recorder,
    informer::{Kind, revision_of},
    ownership::{self, Claim, Claimer, controller_of, owner_reference},
};

use crate::{
    context::Context,
    error::{self, Error},
    pods,
};

/// The most Pods that one pass creates or deletes.
pub(crate) const BURST: usize = 500;

/// What can own Pods.
pub(crate) trait Owner: Kind<DynamicType = ()> + kube::Resource<Scope = NamespaceResourceScope> {}

impl<K: Kind<DynamicType = ()> + kube::Resource<Scope = NamespaceResourceScope>> Owner for K {}

/// Why Pods could not be managed: the reason of an event or condition, and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// A controller's hand on the Pods of the objects that it reconciles.
pub(crate) struct Hand {
    client: Client,
    pods: Informer<Pod>,
    recorder: Recorder,
    /// Pods that were created, adopted and deleted.
    expectations: Expectations,
    /// Statuses of the owners that were written.
    reports: Expectations,
    /// What keeps a Pod of this controller from vanishing before it was seen to end.
    finalizers: &'static [&'static str],
}

impl Hand {
    /// A hand that writes events with `recorder`.
    pub(crate) fn new(context: &Context, recorder: Recorder) -> Self {
        let pods: Informer<Pod> = context.informers.get();
        pods::index(&pods);
        let (expectations, reports) = <(Expectations, Expectations)>::default();
        Self { client: context.client.clone(), pods, recorder, expectations, reports, finalizers: &[] }
    }

    /// The same, with finalizers that adopted Pods are given and released ones lose.
    pub(crate) fn holding(self, finalizers: &'static [&'static str]) -> Self {
        Self { finalizers, ..self }
    }

    fn api<K: Owner>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Whether the caches show everything that earlier passes wrote, that of the owners at revision `owners`.
    pub(crate) fn is_current(&self, key: &ObjectKey, uid: &str, owners: u64) -> bool {
        if !self.reports.satisfied(key, owners, |_| false) {
            return false;
        }
        let live = OnceCell::new();
        // Looked up only where a deletion is awaited, and then once for all that are.
        let gather = || -> HashSet<String> {
            let owned = self.pods.by_index(pods::BY_CONTROLLER, uid);
            owned.iter().filter(|pod| !pods::is_deleting(pod)).filter_map(|pod| pod.metadata.uid.clone()).collect()
        };
        self.expectations.satisfied(key, self.pods.revision(), |uid| live.get_or_init(gather).contains(uid))
    }

    /// The owner is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.expectations.forget(key);
        self.reports.forget(key);
    }

    /// Notes that the owner's status was written.
    pub(crate) fn reported<K: Owner>(&self, key: &ObjectKey, owner: &K) {
        self.reports.wrote(key, revision_of(owner));
    }

    /// Notes another write to a Pod of the owner.
    pub(crate) fn wrote(&self, key: &ObjectKey, pod: &Pod) {
        self.expectations.wrote(key, revision_of(pod));
    }

    /// Notes that the deletion of a Pod of the owner was accepted.
    pub(crate) fn deleted(&self, key: &ObjectKey, pod: &Pod) {
        self.expectations.deleted(key, pod.metadata.uid.clone().unwrap_or_default());
    }

    /// The Pods among `candidates` that are the owner's, after adopting and releasing what has to be.
    pub(crate) async fn claim<K: Owner>(
        &self,
        owner: &K,
        selector: &LabelSelector,
        candidates: Vec<Arc<Pod>>,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let Ok(selector) = Selector::try_from(selector.clone()) else {
            return Ok(Vec::new());
        };
        let key = ObjectKey::of(owner);
        let claimer = Claimer { owner: owner.meta(), selector: &selector };
        let api: Api<Pod> = self.api(&key.namespace);
        let mut claimed = Vec::with_capacity(candidates.len());
        let mut confirmed = false;
        for pod in candidates {
            match claimer.decide(&pod.metadata) {
                Claim::Keep => claimed.push(pod),
                Claim::Ignore => {}
                Claim::Release => {
                    let uid = owner.meta().uid.as_deref().unwrap_or_default();
                    ownership::release(&api, &*pod, uid, self.finalizers).await?;
                }
                Claim::Adopt => {
                    if !confirmed {
                        self.confirm(owner, &key).await?;
                        confirmed = true;
                    }
                    let adopted = ownership::adopt(&api, &*pod, &owner_reference(owner), self.finalizers).await;
                    if let Some(adopted) = error::gone_is_fine(adopted)? {
                        self.wrote(&key, &adopted);
                        claimed.push(Arc::new(adopted));
                    }
                }
            }
        }
        Ok(claimed)
    }

    /// Asks the server, not the cache, whether the owner may still adopt.
    async fn confirm<K: Owner>(&self, owner: &K, key: &ObjectKey) -> Result<(), Error> {
        let fresh = self.api::<K>(&key.namespace).get(&key.name).await?;
        if fresh.meta().uid != owner.meta().uid || fresh.meta().deletion_timestamp.is_some() {
            return Err(Error::Replaced(key.to_string()));
        }
        Ok(())
    }

    /// Creates Pods in batches of 1, 2, 4, ...: when all would fail for the same reason, few are tried. Says how many there
    /// are now, and why there are no more.
    pub(crate) async fn create<K: Owner>(&self, owner: &K, pods: &[Pod]) -> (usize, Option<Failure>) {
        let mut rest = pods;
        let mut size = 1;
        let mut created = 0;
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            let results = join_all(batch.iter().map(|pod| self.create_one(owner, pod))).await;
            created += results.iter().filter(|result| result.is_ok()).count();
            if let Some(error) = results.into_iter().find_map(Result::err) {
                let failure = Failure { reason: "FailedCreate", message: error::message(&error) };
                return (created, (!error::is_namespace_terminating(&error)).then_some(failure));
            }
            rest = later;
            size *= 2;
        }
        (created, None)
    }

    async fn create_one<K: Owner>(&self, owner: &K, pod: &Pod) -> Result<(), kube::Error> {
        let key = ObjectKey::of(owner);
        match self.api::<Pod>(&key.namespace).create(&PostParams::default(), pod).await {
            Ok(created) => {
                self.wrote(&key, &created);
                let name = created.metadata.name.unwrap_or_default();
                self.recorder.on(owner, EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => {
                if !error::is_namespace_terminating(&error) {
                    let text = format!("Error creating: {}", error::message(&error));
                    self.recorder.on(owner, EventType::Warning, "FailedCreate", text);
                }
                Err(error)
            }
        }
    }

    /// Deletes Pods, all at once. Says why some could not be.
    pub(crate) async fn delete<K: Owner>(&self, owner: &K, victims: &[Arc<Pod>]) -> Option<Failure> {
        let results = join_all(victims.iter().map(|pod| self.delete_one(owner, pod))).await;
        results.into_iter().find_map(Result::err).map(|error| Failure {
            reason: "FailedDelete",
            message: format!("unable to delete pods: {}", error::message(&error)),
        })
    }

    async fn delete_one<K: Owner>(&self, owner: &K, pod: &Pod) -> Result<(), kube::Error> {
        let key = ObjectKey::of(owner);
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api::<Pod>(&key.namespace).delete(name, &params).await {
            Ok(_) => {
                self.deleted(&key, pod);
                self.recorder.on(owner, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            // Gone, or another Pod has its name: either way this one is no more.
            Err(error) if error::is_not_found(&error) || error::is_conflict(&error) => Ok(()),
            Err(error) => {
                let text = format!("Error deleting: {}", error::message(&error));
                self.recorder.on(owner, EventType::Warning, "FailedDelete", text);
                Err(error)
            }
        }
    }
}

/// The objects of the kind `K` that a change of something they own concerns: the controller where there is one, else all that
/// `select` it.
pub(crate) fn owners<K: Owner, D: kube::Resource>(
    owners: &Informer<K>,
    change: &Change<D>,
    selects: impl Fn(&K, &ObjectMeta) -> bool,
) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    for side in change.sides() {
        let meta = side.meta();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        match controller_of(meta) {
            Some(owner) if owner.kind == K::kind(&()) => keys.push(ObjectKey::new(namespace, &owner.name)),
            Some(_) => {}
            None => {
                let owners = owners.list_namespace(namespace);
                keys.extend(owners.iter().filter(|owner| selects(owner, meta)).map(|owner| ObjectKey::of(&**owner)));
            }
        }
    }
    keys
}

/// The Pod that a template describes, named after its owner.
pub(crate) fn pod_of<K: Owner>(owner: &K, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let name = owner.meta().name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: owner.meta().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}
