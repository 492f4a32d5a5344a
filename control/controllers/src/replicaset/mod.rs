//! ReplicaSet and ReplicationController: keep a number of identical Pods running.
//!
//! One engine for both; what differs between them is in [`kinds`], and "set" means either.
//!
//! Flow of a pass: claim the Pods that the selector matches, create what is missing (in batches that double as long as they
//! succeed) or delete what is too much (the Pods that are missed least), then report.
//!
//! Guarantees
//! - No pass acts on a cache older than its own writes ([`Hand`]), so it neither creates twice nor deletes too many.
//! - A Pod is adopted only after the server has confirmed that the set still exists.
//!
//! Events: a change of a Pod wakes its controller; an orphan wakes every set that selects it.

pub(crate) mod kinds;
mod plan;
pub(crate) mod status;

use std::{borrow::Cow, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    jiff::Timestamp,
};
use kinds::Replicated;
use kube::Api;
use plan::Plan;
pub(crate) use plan::least_missed;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Change, Feeds, Informer, ObjectKey, Outcome, Reconciler,
    ownership::{self, controller_of, selects},
    status::{Precondition, patch_status},
};

use crate::{
    context::Context,
    counts::count,
    error::{self, Error},
    hand::{Failure, Hand, owners, pod_of},
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
    hand: Hand,
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
        hand: Hand::new(&context, context.recorders.component(K::CONTROLLER)),
        context,
    });
    index(&controller.sets);
    let of_pods = controller.clone();
    Feeds::new()
        .on(&controller.sets, |change| [change.key()])
        .on(&controller.pods, move |change| {
            if !is_relevant(change) {
                return Vec::new();
            }
            owners(&of_pods.sets, change, |set, pod| {
                set.view().spec.as_ref().is_some_and(|spec| selects(&spec.selector, pod.labels.as_ref()))
            })
        })
        .run(K::CONTROLLER, WORKERS, controller.clone(), cancel)
        .await;
}

/// Whether its set may have something to do or to report because a Pod changed. Most changes tell other things (its node, its address, its
/// containers, an annotation), and a pass looks at all Pods of a set. Whom to delete is decided by the Pods as they are then.
fn is_relevant(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return true };
    let (before, after) = (&old.metadata, &new.metadata);
    let counted =
        |pod: &Pod| (pods::is_terminal(pod), pods::is_deleting(pod), pods::is_ready(pod), pods::ready_since(pod));
    before.uid != after.uid
        || before.labels != after.labels
        || before.owner_references != after.owner_references
        || counted(old) != counted(new)
}

impl<K: Replicated> Controller<K> {
    fn api<T>(&self, namespace: &str) -> Api<T>
    where
        T: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), namespace)
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

    async fn manage(&self, subject: &Subject<'_, K>, active: &[Arc<Pod>]) -> Option<Failure> {
        let set = &subject.set;
        let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        match plan::plan(count(wanted), active, || self.related(set), Timestamp::now()) {
            Plan::Nothing => None,
            Plan::Create(lacking) => {
                let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
                let pods = vec![pod_of(subject.object, &template); lacking];
                self.hand.create(subject.object, &pods).await.1
            }
            Plan::Delete(victims) => self.hand.delete(subject.object, &victims).await,
        }
    }
}

impl<K: Replicated> Reconciler<ObjectKey> for Controller<K> {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(object) = self.sets.get_key(&key) else {
            self.hand.forget(&key);
            return Ok(Outcome::Done);
        };
        let subject = Subject { object: &*object, set: object.view() };
        let set = &subject.set;
        let uid = set.metadata.uid.clone().unwrap_or_default();
        if !self.hand.is_current(&key, &uid, self.sets.revision()) {
            return Ok(Outcome::Behind);
        }
        let candidates = pods::owned_and_orphans(&self.pods, &uid, &key.namespace);
        let terminating = candidates
            .iter()
            .filter(|pod| ownership::is_controlled_by(&pod.metadata, &uid) && pods::is_terminating(pod))
            .count();
        let active = candidates.into_iter().filter(|pod| pods::is_active(pod)).collect();
        let active = match &set.spec {
            Some(spec) => self.hand.claim(&*object, &spec.selector, active).await?,
            None => Vec::new(),
        };

        let failure = match set.metadata.deletion_timestamp {
            None => self.manage(&subject, &active).await,
            Some(_) => None,
        };
        let now = Timestamp::now();
        let status = status::status(set, &active, terminating, failure.as_ref(), now);
        let reported = K::report(status);
        let old = object.reported();
        let patched = patch_status(&self.api::<K>(&key.namespace), &*object, old, &reported, Precondition::Uid).await;
        if let Some(Some(updated)) = error::gone_is_fine(patched)? {
            self.hand.reported(&key, &updated);
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_what_is_counted_concerns_a_set() {
        let pod = json!({
            "metadata": {"name": "p", "uid": "1", "labels": {"app": "a"}},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-28T10:00:00Z"},
            ]},
        });
        let concerns = |path: &str, value: Value| {
            let mut changed = pod.clone();
            let (parent, field) = path.rsplit_once('/').unwrap_or_default();
            changed
                .pointer_mut(parent)
                .and_then(Value::as_object_mut)
                .map(|parent| parent.insert(field.to_owned(), value));
            assert_ne!(changed, pod, "{path}");
            let read = |pod: &Value| serde_json::from_value::<Pod>(pod.clone()).ok().map(Arc::new);
            is_relevant(&Change { old: read(&pod), new: read(&changed) })
        };
        for (path, value) in [
            ("/metadata/annotations", json!({"controller.kubernetes.io/pod-deletion-cost": "1"})),
            ("/metadata/resourceVersion", json!("2")),
            ("/spec", json!({"nodeName": "n", "containers": []})),
            ("/status/podIP", json!("10.128.0.2")),
            ("/status/phase", json!("Pending")),
        ] {
            assert!(!concerns(path, value), "{path}");
        }
        for (path, value) in [
            ("/metadata/uid", json!("2")),
            ("/metadata/labels", json!({"app": "b"})),
            (
                "/metadata/ownerReferences",
                json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "3"}]),
            ),
            ("/metadata/deletionTimestamp", json!("2026-11-28T10:00:01Z")),
            ("/status/phase", json!("Failed")),
            ("/status/conditions/0/status", json!("False")),
            ("/status/conditions/0/lastTransitionTime", json!("2026-11-28T10:00:05Z")),
        ] {
            assert!(concerns(path, value), "{path}");
        }
    }
}
