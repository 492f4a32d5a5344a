//! ReplicaSet and ReplicationController: keep a number of identical Pods running.
//!
//! One engine for both; what differs between them is in [`kinds`], and "set" means either.
//!
//! Flow of a pass: claim the Pods that the selector matches, create what is missing (in batches that double as long as they
//! succeed) or delete what is too much (the Pods that are missed least), then report.
//!
//! Guarantees
//! - No pass acts on a cache older than its own writes ([`Expectations`]), so it neither creates twice nor deletes too many.
//! - A Pod is adopted only after the server has confirmed that the set still exists.
//!
//! Events: a change of a Pod wakes its controller; an orphan wakes every set that selects it.

pub(crate) mod kinds;
mod plan;
pub(crate) mod status;

use std::{borrow::Cow, sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, PodTemplateSpec},
    },
    jiff::Timestamp,
};
use kinds::Replicated;
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, PostParams, Preconditions},
    core::Selector,
};
use plan::Plan;
use status::Failure;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Change, EventType, Expectations, Informer, ObjectKey, Outcome, Queue, Reconciler, Recorder,
    informer::revision_of,
    ownership::{self, Claim, Claimer, controller_of, owner_reference, selects},
    status::{Precondition, patch_status},
};

use crate::{
    context::{Context, feed},
    error::{self, Error},
    pods,
};

const WORKERS: usize = 8;
/// The index of sets by the UID of their controller.
pub(crate) const BY_CONTROLLER: &str = "controller";

/// Declares the index of sets that their owners read.
pub(crate) fn index<K: Replicated>(sets: &Informer<K>) {
    sets.index(BY_CONTROLLER, |set| controller_of(set.meta()).map(|owner| owner.uid.clone()).into_iter().collect());
}

struct Controller<K> {
    context: Context,
    sets: Informer<K>,
    pods: Informer<Pod>,
    recorder: Recorder,
    /// Pods that were created and deleted.
    expectations: Expectations,
    /// Statuses that were written.
    written: Expectations,
}

/// An object and how the engine sees it.
struct Subject<'a, K> {
    object: &'a K,
    set: Cow<'a, ReplicaSet>,
}

/// Runs the controller of the kind `K` until `cancel`.
pub(crate) async fn run<K: Replicated>(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        sets: context.informers.get::<K>(),
        pods: context.informers.get(),
        recorder: context.recorders.component(K::CONTROLLER),
        expectations: Expectations::default(),
        written: Expectations::default(),
        context,
    });
    pods::index(&controller.pods);
    index(&controller.sets);
    let synced = async { controller.sets.synced().await && controller.pods.synced().await };
    if cancel.run_until_cancelled(synced).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let sets = feed(controller.sets.subscribe(), &cancel, |change| queue.add(change.key()));
    let pods = feed(controller.pods.subscribe(), &cancel, |change| {
        controller.owners(&change).into_iter().for_each(|key| queue.add(key));
    });
    let work = wherry_reconcile::run(K::CONTROLLER, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(sets, pods, work);
}

impl<K: Replicated> Controller<K> {
    /// The sets that a change of a Pod concerns.
    fn owners(&self, change: &Change<Pod>) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        for pod in change.sides() {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            match controller_of(&pod.metadata) {
                Some(owner) if owner.kind == K::kind(&()) => keys.push(ObjectKey::new(namespace, &owner.name)),
                Some(_) => {}
                None => keys.extend(
                    self.sets
                        .list_namespace(namespace)
                        .iter()
                        .filter(|set| {
                            set.view()
                                .spec
                                .as_ref()
                                .is_some_and(|spec| selects(&spec.selector, pod.metadata.labels.as_ref()))
                        })
                        .map(|set| ObjectKey::of(&**set)),
                ),
            }
        }
        keys
    }

    fn api<T>(&self, namespace: &str) -> Api<T>
    where
        T: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    /// The Pods that are this set's, after adopting and releasing what has to be.
    async fn claim(
        &self,
        subject: &Subject<'_, K>,
        key: &ObjectKey,
        candidates: Vec<Arc<Pod>>,
    ) -> Result<Vec<Arc<Pod>>, Error> {
        let set = &subject.set;
        let Some(selector) = set.spec.as_ref().and_then(|spec| Selector::try_from(spec.selector.clone()).ok()) else {
            return Ok(Vec::new());
        };
        let claimer = Claimer { owner: &set.metadata, selector: &selector };
        let api: Api<Pod> = self.api(&key.namespace);
        let mut claimed = Vec::with_capacity(candidates.len());
        let mut confirmed = false;
        for pod in candidates {
            match claimer.decide(&pod.metadata) {
                Claim::Keep => claimed.push(pod),
                Claim::Ignore => {}
                Claim::Release => {
                    let uid = set.metadata.uid.as_deref().unwrap_or_default();
                    ownership::release(&api, &*pod, uid).await?;
                }
                Claim::Adopt => {
                    if !confirmed {
                        self.confirm(subject, key).await?;
                        confirmed = true;
                    }
                    let adopted = ownership::adopt(&api, &*pod, &owner_reference(subject.object)).await;
                    if let Some(adopted) = error::gone_is_fine(adopted)? {
                        self.expectations.wrote(key, revision_of(&adopted));
                        claimed.push(Arc::new(adopted));
                    }
                }
            }
        }
        Ok(claimed)
    }

    /// Asks the server, not the cache, whether the set may still adopt.
    async fn confirm(&self, subject: &Subject<'_, K>, key: &ObjectKey) -> Result<(), Error> {
        let fresh = self.api::<K>(&key.namespace).get(&key.name).await?;
        if fresh.meta().uid != subject.object.meta().uid || fresh.meta().deletion_timestamp.is_some() {
            return Err(Error::Replaced(key.to_string()));
        }
        Ok(())
    }

    /// The Pods of all sets with this set's owner.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.clone().unwrap_or_default();
        match controller_of(&set.metadata) {
            None => self.pods.by_index(pods::BY_CONTROLLER, &uid),
            Some(owner) => self
                .sets
                .by_index(BY_CONTROLLER, &owner.uid)
                .iter()
                .filter_map(|sibling| sibling.meta().uid.as_deref())
                .flat_map(|uid| self.pods.by_index(pods::BY_CONTROLLER, uid))
                .collect(),
        }
    }

    async fn manage(&self, subject: &Subject<'_, K>, key: &ObjectKey, active: &[Arc<Pod>]) -> Option<Failure> {
        let set = &subject.set;
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        match plan::plan(wanted, active, &self.related(set), Timestamp::now()) {
            Plan::Nothing => None,
            Plan::Create(count) => self.create(subject, key, count).await,
            Plan::Delete(victims) => self.delete(subject, key, victims).await,
        }
    }

    /// Creates Pods in batches of 1, 2, 4, ...: when all would fail for the same reason, few are tried.
    async fn create(&self, subject: &Subject<'_, K>, key: &ObjectKey, mut count: usize) -> Option<Failure> {
        let pod = new_pod(subject);
        let mut batch = 1;
        while count > 0 {
            let size = batch.min(count);
            let results = join_all((0..size).map(|_| self.create_one(subject.object, key, &pod))).await;
            if let Some(error) = results.into_iter().find_map(Result::err) {
                return (!error::is_namespace_terminating(&error))
                    .then(|| Failure { reason: "FailedCreate", message: error::message(&error) });
            }
            count -= size;
            batch = size * 2;
        }
        None
    }

    async fn create_one(&self, object: &K, key: &ObjectKey, pod: &Pod) -> Result<(), kube::Error> {
        match self.api::<Pod>(&key.namespace).create(&PostParams::default(), pod).await {
            Ok(created) => {
                self.expectations.wrote(key, revision_of(&created));
                let name = created.metadata.name.unwrap_or_default();
                self.recorder.on(object, EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                Ok(())
            }
            Err(error) => {
                if !error::is_namespace_terminating(&error) {
                    let text = format!("Error creating: {}", error::message(&error));
                    self.recorder.on(object, EventType::Warning, "FailedCreate", text);
                }
                Err(error)
            }
        }
    }

    async fn delete(&self, subject: &Subject<'_, K>, key: &ObjectKey, victims: Vec<Arc<Pod>>) -> Option<Failure> {
        let results = join_all(victims.iter().map(|pod| self.delete_one(subject.object, key, pod))).await;
        results.into_iter().find_map(Result::err).map(|error| Failure {
            reason: "FailedDelete",
            message: format!("unable to delete pods: {}", error::message(&error)),
        })
    }

    async fn delete_one(&self, object: &K, key: &ObjectKey, pod: &Pod) -> Result<(), kube::Error> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match self.api::<Pod>(&key.namespace).delete(name, &params).await {
            Ok(_) => {
                self.expectations.deleted(key, pod.metadata.uid.clone().unwrap_or_default());
                self.recorder.on(object, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            // Gone, or another Pod has its name: either way this one is no more.
            Err(error) if error::is_not_found(&error) || error::is_conflict(&error) => Ok(()),
            Err(error) => {
                let text = format!("Error deleting: {}", error::message(&error));
                self.recorder.on(object, EventType::Warning, "FailedDelete", text);
                Err(error)
            }
        }
    }

    /// Whether the caches show everything that earlier passes wrote. If not, what is missing will wake us.
    fn is_current(&self, key: &ObjectKey, uid: &str) -> bool {
        let owned = self.pods.by_index(pods::BY_CONTROLLER, uid);
        let is_live =
            |uid: &str| owned.iter().any(|pod| pod.metadata.uid.as_deref() == Some(uid) && !pods::is_deleting(pod));
        self.written.satisfied(key, self.sets.revision(), |_| false)
            && self.expectations.satisfied(key, self.pods.revision(), is_live)
    }
}

impl<K: Replicated> Reconciler<ObjectKey> for Controller<K> {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(object) = self.sets.get_key(&key) else {
            self.expectations.forget(&key);
            self.written.forget(&key);
            return Ok(Outcome::Done);
        };
        let subject = Subject { object: &*object, set: object.view() };
        let set = &subject.set;
        let uid = set.metadata.uid.clone().unwrap_or_default();
        if !self.is_current(&key, &uid) {
            return Ok(Outcome::Done);
        }
        let candidates = pods::owned_and_orphans(&self.pods, &uid, &key.namespace);
        let terminating = candidates
            .iter()
            .filter(|pod| ownership::is_controlled_by(&pod.metadata, &uid) && pods::is_terminating(pod))
            .count();
        let active = candidates.into_iter().filter(|pod| pods::is_active(pod)).collect();
        let active = self.claim(&subject, &key, active).await?;

        let failure = match set.metadata.deletion_timestamp {
            None => self.manage(&subject, &key, &active).await,
            Some(_) => None,
        };
        let now = Timestamp::now();
        let status = status::status(set, &active, terminating, failure.as_ref(), now);
        let reported = K::report(status);
        let old = object.reported();
        let patched = patch_status(&self.api::<K>(&key.namespace), &*object, old, &reported, Precondition::Uid).await;
        if let Some(Some(updated)) = error::gone_is_fine(patched)? {
            self.written.wrote(&key, revision_of(&updated));
        }
        if let Some(failure) = failure {
            return Err(Error::Partial(failure.message));
        }
        let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        Ok(match status::next_available(&active, min_ready, now) {
            // Times are kept in seconds: look a moment after the second has passed.
            Some(left) => Outcome::After(left + Duration::from_millis(1)),
            None => Outcome::Done,
        })
    }
}

/// The Pod that the template describes.
fn new_pod<K: Replicated>(subject: &Subject<'_, K>) -> Pod {
    let set = &subject.set;
    let template: PodTemplateSpec = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner_reference(subject.object)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
