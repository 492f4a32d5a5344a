//! PodDisruptionBudget: how many Pods of a set may be taken away at a time by those who ask first.
//!
//! The controller counts ([`budget`]) and writes `status.disruptionsAllowed`; the eviction subresource of the server spends it,
//! one Pod at a time, and notes the Pod in `status.disruptedPods` until it is seen ending. Both write at a resource version: who
//! comes second looks again.
//!
//! Events: a change of a Pod that may change a count wakes the budgets that select it, and a change of how many replicas are wanted those
//! of the namespace that count by it.

mod budget;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::{Pod, ReplicationController},
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::{Api, Resource};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Change, EventType, Expectations, Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder,
    informer::revision_of,
    ownership::{controller_of, selects},
    status::{Precondition, patch_status},
};

use crate::{
    context::Context,
    error::{self, Error},
    pods,
};

const NAME: &str = "disruption-controller";
const EVENTS: &str = "controllermanager";

struct Controller {
    context: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    replication_controllers: Informer<ReplicationController>,
    stateful_sets: Informer<StatefulSet>,
    recorder: Recorder,
    written: Expectations,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let informers = &context.informers;
    let controller = Arc::new(Controller {
        budgets: informers.get(),
        pods: informers.get(),
        deployments: informers.get(),
        replica_sets: informers.get(),
        replication_controllers: informers.get(),
        stateful_sets: informers.get(),
        recorder: context.recorders.component(EVENTS),
        written: Expectations::default(),
        context,
    });
    let budgets = controller.budgets.clone();
    Feeds::new()
        .on(&controller.budgets, |change| [change.key()])
        .on(&controller.pods, move |change| if is_relevant(change) { concerned(&budgets, change) } else { Vec::new() })
        .on(&controller.deployments, scaled(&controller.budgets, |set: &Deployment| set.spec.as_ref()?.replicas))
        .on(&controller.replica_sets, scaled(&controller.budgets, |set: &ReplicaSet| set.spec.as_ref()?.replicas))
        .on(
            &controller.replication_controllers,
            scaled(&controller.budgets, |set: &ReplicationController| set.spec.as_ref()?.replicas),
        )
        .on(&controller.stateful_sets, scaled(&controller.budgets, |set: &StatefulSet| set.spec.as_ref()?.replicas))
        .run(NAME, 4, controller.clone(), cancel)
        .await;
}

/// The budgets that count by what owners want, where an owner has come, wants another number of `replicas`, or is gone. It may be seen after
/// the Pods that it has.
fn scaled<K: Resource<DynamicType = ()> + 'static>(
    budgets: &Informer<PodDisruptionBudget>,
    replicas: fn(&K) -> Option<i32>,
) -> impl FnMut(&Change<K>) -> Vec<ObjectKey> + Send + 'static {
    let budgets = budgets.clone();
    move |change| {
        let wanted = |side: &Option<Arc<K>>| side.as_ref().map(|set| replicas(set));
        if wanted(&change.old) == wanted(&change.new) {
            return Vec::new();
        }
        let all = budgets.list_namespace(&change.key().namespace);
        all.iter().filter(|budget| budget::needs_scale(budget)).map(|budget| ObjectKey::of(&**budget)).collect()
    }
}

/// Whether a change of a Pod may change a count.
fn is_relevant(change: &Change<Pod>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return true };
    let seen = |pod: &Pod| {
        let owner = controller_of(&pod.metadata).map(|owner| owner.uid.clone());
        (pods::is_ready(pod), pods::is_terminal(pod), pods::is_deleting(pod), owner)
    };
    old.metadata.labels != new.metadata.labels || seen(old) != seen(new)
}

fn concerned(budgets: &Informer<PodDisruptionBudget>, change: &Change<Pod>) -> Vec<ObjectKey> {
    let namespace = change.object().and_then(|pod| pod.metadata.namespace.clone()).unwrap_or_default();
    let all = budgets.list_namespace(&namespace);
    all.iter()
        .filter(|budget| change.sides().any(|pod| is_covered(budget, pod)))
        .map(|budget| ObjectKey::of(&**budget))
        .collect()
}

/// Whether a budget selects a Pod; none without a selector.
fn is_covered(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()))
}

impl Controller {
    /// How many Pods the owners of `pods` want; those of which it cannot be told are an error. Pods without an owner count
    /// nothing.
    fn scale(&self, namespace: &str, pods: &[Arc<Pod>]) -> Result<i32, String> {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            if scales.contains_key(&owner.uid) {
                continue;
            }
            let (uid, scale) = self.scale_of(namespace, &owner.kind, &owner.name).ok_or_else(|| {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                format!("found no controllers for pod {name:?}")
            })?;
            scales.insert(uid, scale);
        }
        Ok(scales.values().fold(0, |sum: i32, scale| sum.saturating_add(*scale)))
    }

    fn scale_of(&self, namespace: &str, kind: &str, name: &str) -> Option<(String, i32)> {
        let uid = |meta: &kube::api::ObjectMeta| meta.uid.clone().unwrap_or_default();
        match kind {
            "ReplicaSet" => {
                let set = self.replica_sets.get(namespace, name)?;
                let owner = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
                if let Some(deployment) = owner.and_then(|owner| self.deployments.get(namespace, &owner.name)) {
                    return Some((uid(&deployment.metadata), deployment.spec.as_ref()?.replicas.unwrap_or(1)));
                }
                Some((uid(&set.metadata), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "StatefulSet" => {
                let set = self.stateful_sets.get(namespace, name)?;
                Some((uid(&set.metadata), set.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            "ReplicationController" => {
                let controller = self.replication_controllers.get(namespace, name)?;
                Some((uid(&controller.metadata), controller.spec.as_ref()?.replicas.unwrap_or(1)))
            }
            _ => None,
        }
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(budget) = self.budgets.get_key(&key) else {
            self.written.forget(&key);
            return Ok(Outcome::Done);
        };
        if !self.written.satisfied(&key, self.budgets.revision(), |_| false) {
            return Ok(Outcome::Behind);
        }
        let now = Timestamp::now();
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|pod| is_covered(&budget, pod));
        let scale = if budget::needs_scale(&budget) { self.scale(&key.namespace, &pods) } else { Ok(0) };
        let mut again = None;
        let status = match &scale {
            Ok(scale) => {
                let disrupted = budget::disrupted(&budget, &pods, now);
                for pod in &disrupted.overdue {
                    let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
                    self.recorder.on(&**pod, EventType::Warning, "NotDeleted", text);
                }
                again = disrupted.again;
                let healthy = budget::healthy(&pods, &disrupted);
                budget::status(&budget, budget::needs(&budget, pods.len(), *scale), healthy, disrupted, now)
            }
            Err(why) => {
                let text = format!("Failed to calculate the number of expected pods: {why}");
                self.recorder.on(&*budget, EventType::Warning, "CalculateExpectedPodCountFailed", text);
                budget::unknown(&budget, why, now)
            }
        };
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.context.client.clone(), &key.namespace);
        // An eviction may have spent some of what the cache shows.
        let patched = patch_status(&api, &*budget, budget.status.as_ref(), &status, Precondition::Version).await;
        if let Some(Some(updated)) = error::gone_is_fine(patched)? {
            self.written.wrote(&key, revision_of(&updated));
        }
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }
}
