//! StatefulSet: Pods that are somebody: each has an ordinal, and by it a name, a host name and claims that outlive it.
//!
//! Flow of a pass: claim the Pods and the revisions; [`plan`] says the next steps; before a Pod is created its claims are, and
//! before one goes for good its claims are given to who takes them along ([`retention`]); then report ([`status`]) and drop
//! revisions beyond the history limit.
//!
//! Guarantees
//! - There are never two Pods of one ordinal: the names are the lock, and a Pod that is being deleted is waited for.
//! - In order (`OrderedReady`), no step is taken while a Pod before it is not available; an update keeps `maxUnavailable`.

mod identity;
mod plan;
mod retention;
mod status;
mod steps;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec},
        core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec},
    },
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};
use kube::Api;
use plan::{Goal, Update};
use status::Names;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder,
    ownership::selects,
    status::{Precondition, patch_status},
};

use crate::{
    context::Context,
    counts::{count, portion},
    error::{self, Error},
    hand::{Hand, owners},
    history::{self, History, Keeper, Versioned},
    pods,
};

const NAME: &str = "statefulset-controller";
const WORKERS: usize = 4;
/// The label of revisions that holds their hash.
const REVISION_HASH: &str = "controller.kubernetes.io/hash";

struct Controller {
    context: Context,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    hand: Hand,
    keeper: Keeper,
    recorder: Recorder,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let recorder = context.recorders.component(NAME);
    let controller = Arc::new(Controller {
        sets: context.informers.get(),
        pods: context.informers.get(),
        claims: context.informers.get(),
        hand: Hand::new(&context, recorder.clone()),
        keeper: Keeper::new(&context),
        recorder,
        context,
    });
    let (of_pods, of_revisions) = (controller.clone(), controller.clone());
    let selected = |set: &StatefulSet, meta: &kube::api::ObjectMeta| {
        set.spec.as_ref().is_some_and(|spec| selects(&spec.selector, meta.labels.as_ref()))
    };
    Feeds::new()
        .on(&controller.sets, |change| [change.key()])
        .on(&controller.pods, move |change| owners(&of_pods.sets, change, selected))
        .on(controller.keeper.informer(), move |change| owners(&of_revisions.sets, change, selected))
        .reading(&controller.claims)
        .run(NAME, WORKERS, controller.clone(), cancel)
        .await;
}

/// One pass over one StatefulSet.
struct Pass<'a> {
    key: &'a ObjectKey,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    /// The revision that Pods before an update's partition are of.
    current: Arc<ControllerRevision>,
    history: History,
    existing: BTreeMap<i32, Arc<Pod>>,
}

impl Pass<'_> {
    fn newest(&self) -> &str {
        history::name_of(&self.history.current)
    }

    /// The template of the revision before, which is what its content says.
    fn current_template(&self) -> PodTemplateSpec {
        let data = self.current.data.as_ref().map(|data| data.0["spec"]["template"].clone());
        // What is not a template was not written by us.
        data.and_then(|data| serde_json::from_value(data).ok()).unwrap_or_else(|| self.spec.template.clone())
    }

    fn goal(&self, now: Timestamp) -> Goal<'_> {
        let first = self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
        let replicas = self.spec.replicas.unwrap_or(1);
        Goal {
            ordinals: first..first.saturating_add(replicas),
            parallel: self.spec.pod_management_policy.as_deref() == Some("Parallel"),
            min_ready_seconds: self.spec.min_ready_seconds.unwrap_or(0),
            update: update(self.spec, first, replicas),
            newest: self.newest(),
            now,
        }
    }
}

fn update(spec: &StatefulSetSpec, first: i32, replicas: i32) -> Option<Update> {
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let unavailable = portion(&rolling.max_unavailable.unwrap_or(IntOrString::Int(1)), replicas, false);
    Some(Update { from: first.saturating_add(rolling.partition.unwrap_or(0)), unavailable: count(unavailable).max(1) })
}

impl Controller {
    fn is_current(&self, key: &ObjectKey, uid: &str) -> bool {
        self.keeper.is_current(key) && self.hand.is_current(key, uid, self.sets.revision())
    }

    /// The StatefulSet's Pods by ordinal: those with a name that it would give.
    async fn claim(&self, set: &StatefulSet, spec: &StatefulSetSpec, key: &ObjectKey) -> Result<Vec<Arc<Pod>>, Error> {
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        let mut candidates = pods::owned_and_orphans(&self.pods, uid, &key.namespace);
        candidates
            .retain(|pod| identity::ordinal(&key.name, pod.metadata.name.as_deref().unwrap_or_default()).is_some());
        self.hand.claim(set, &spec.selector, candidates).await
    }

    async fn report(&self, pass: &Pass<'_>, now: Timestamp) -> Result<(), Error> {
        let names = Names {
            current: history::name_of(&pass.current),
            update: pass.newest(),
            collisions: pass.history.collisions,
        };
        let status = status::status(pass.set, &pass.existing, &names, now);
        let api: Api<StatefulSet> = Api::namespaced(self.context.client.clone(), &pass.key.namespace);
        let patched = patch_status(&api, pass.set, pass.set.status.as_ref(), &status, Precondition::Uid).await;
        if let Some(Some(updated)) = error::gone_is_fine(patched)? {
            self.hand.reported(pass.key, &updated);
        }
        Ok(())
    }

    /// Looks a StatefulSet's Pods and revisions up.
    async fn pass<'a>(
        &self,
        key: &'a ObjectKey,
        set: &'a StatefulSet,
        spec: &'a StatefulSetSpec,
    ) -> Result<Pass<'a>, Error> {
        let owned = self.claim(set, spec, key).await?;
        let versioned = Versioned {
            template: &spec.template,
            selector: &spec.selector,
            hash_label: REVISION_HASH,
            collisions: set.status.as_ref().and_then(|status| status.collision_count),
        };
        let history = self.keeper.sync(set, &versioned).await?;
        let known = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current = history.old.iter().find(|revision| Some(history::name_of(revision)) == known);
        let current = current.unwrap_or(&history.current).clone();
        let existing = owned
            .into_iter()
            .filter_map(|pod| Some((identity::ordinal(&key.name, pod.metadata.name.as_deref()?)?, pod)))
            .collect();
        Ok(Pass { key, set, spec, current, history, existing })
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(set) = self.sets.get_key(&key) else {
            self.hand.forget(&key);
            self.keeper.forget(&key);
            return Ok(Outcome::Done);
        };
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        if !self.is_current(&key, &uid) {
            return Ok(Outcome::Behind);
        }
        let pass = self.pass(&key, &set, spec).await?;
        let now = Timestamp::now();
        let mut again = None;
        let mut outcome = Ok(());
        if set.metadata.deletion_timestamp.is_none() {
            let plan = plan::plan(&pass.goal(now), &pass.existing);
            again = plan.again;
            outcome = self.keep_identities(&pass).await;
            if outcome.is_ok() {
                outcome = self.take(&pass, plan.steps).await;
            }
        }
        self.report(&pass, now).await?;
        outcome?;
        let (current, live) =
            (history::name_of(&pass.current), history::hashes(pass.existing.values().map(|pod| &**pod)));
        let is_live = |revision: &ControllerRevision| {
            let name = history::name_of(revision);
            name == current || live.contains(name)
        };
        self.keeper.prune(&*set, &pass.history, spec.revision_history_limit, is_live).await?;
        // Times are kept in seconds: look a moment after the second has passed.
        Ok(again.map_or(Outcome::Done, |left| Outcome::After(left + Duration::from_millis(1))))
    }
}
