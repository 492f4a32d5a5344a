//! DaemonSet: one Pod on every node that is for it.
//!
//! Flow of a pass: claim the Pods and the revisions; sort the Pods by the node they are on or meant for; [`plan`] says which
//! nodes lack a Pod and which Pods are too many, and, where nothing is, the next step of an update; then report ([`status`])
//! and drop revisions beyond the history limit.
//!
//! Guarantees
//! - The scheduler places the Pods, each with an affinity to one node: priorities, preemption and resources hold for daemons.
//! - An update keeps `maxUnavailable`, or `maxSurge`; a Pod that keeps failing is replaced ever more slowly ([`patience`]).
//!
//! Events: a change of a Pod wakes its DaemonSet; a node whose labels or taints change wakes all.

mod patience;
mod plan;
mod status;
mod template;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec, RollingUpdateDaemonSet},
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};
use kube::Api;
use parking_lot::Mutex;
use patience::Patience;
use plan::{Bounds, Place, Places, Plan, Rules};
use template::Template;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Change, EventType, Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder,
    ownership::selects,
    status::{Precondition, patch_status},
};

use crate::{
    context::Context,
    counts::{count, portion, saturate},
    error::{self, Error},
    hand::{BURST, Failure, Hand, owners},
    history::{self, HASH, History, Keeper, Versioned},
    pods,
};

const NAME: &str = "daemonset-controller";
const WORKERS: usize = 4;

struct Controller {
    context: Context,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    hand: Hand,
    keeper: Keeper,
    recorder: Recorder,
    patience: Mutex<Patience>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let recorder = context.recorders.component(NAME);
    let controller = Arc::new(Controller {
        sets: context.informers.get(),
        pods: context.informers.get(),
        nodes: context.informers.get(),
        hand: Hand::new(&context, recorder.clone()),
        keeper: Keeper::new(&context),
        recorder,
        patience: Mutex::default(),
        context,
    });
    let (of_pods, of_nodes, of_revisions) = (controller.clone(), controller.clone(), controller.clone());
    let selected = |set: &DaemonSet, meta: &kube::api::ObjectMeta| {
        set.spec.as_ref().is_some_and(|spec| selects(&spec.selector, meta.labels.as_ref()))
    };
    Feeds::new()
        .on(&controller.sets, |change| [change.key()])
        .on(&controller.pods, move |change| owners(&of_pods.sets, change, selected))
        .on(controller.keeper.informer(), move |change| owners(&of_revisions.sets, change, selected))
        .on(&controller.nodes, move |change| {
            let sets = if is_relevant(change) { of_nodes.sets.list() } else { Vec::new() };
            sets.into_iter().map(|set| ObjectKey::of(&*set)).collect::<Vec<_>>()
        })
        .run(NAME, WORKERS, controller.clone(), cancel)
        .await;
}

/// Whether a change of a node may make it one for daemons, or no longer one.
fn is_relevant(change: &Change<Node>) -> bool {
    let (Some(old), Some(new)) = (&change.old, &change.new) else {
        return true;
    };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    old.metadata.labels != new.metadata.labels || taints(old) != taints(new)
}

/// One pass over one DaemonSet.
struct Pass<'a> {
    key: &'a ObjectKey,
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    hash: &'a str,
    template: Template,
    places: Places,
}

impl Controller {
    /// Sorts Pods by node. A node without a Pod is a place, too, and so is a name that is no node's.
    fn places(&self, template: &Template, owned: Vec<Arc<Pod>>) -> Places {
        let nodes = self.nodes.list();
        let mut places: Places = nodes
            .iter()
            .map(|node| {
                let name = node.metadata.name.clone().unwrap_or_default();
                (name, Place { fit: template.fit(node), pods: Vec::new(), exists: true })
            })
            .collect();
        for pod in owned {
            if let Some(node) = template::target(&pod) {
                places.entry(node.to_owned()).or_default().pods.push(pod);
            }
        }
        places
    }

    /// Pods that ended go, some of them not yet. Says how long the first of these has to wait.
    fn replace_ended(&self, pass: &Pass<'_>, plan: &mut Plan) -> Option<Duration> {
        let mut wait: Option<Duration> = None;
        for (node, pod) in plan.ended.drain(..) {
            let name = ObjectKey::of(&*pod);
            if pods::phase(&pod) == "Succeeded" {
                let text = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
                self.recorder.on(pass.set, EventType::Normal, "SucceededDaemonPod", text);
                plan.delete.push(pod);
                continue;
            }
            match self.patience.lock().ask(pass.key, &node, pass.hash, Instant::now()) {
                Ok(()) => {
                    let text = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
                    self.recorder.on(pass.set, EventType::Warning, "FailedDaemonPod", text);
                    plan.delete.push(pod);
                }
                Err(left) => wait = Some(wait.map_or(left, |wait| wait.min(left))),
            }
        }
        wait
    }

    async fn carry_out(&self, pass: &Pass<'_>, mut plan: Plan) -> Option<Failure> {
        plan.delete.truncate(BURST);
        plan.create.truncate(BURST);
        let lacking: Vec<Pod> = plan.create.iter().map(|node| pass.template.pod_for(node)).collect();
        let (_, not_created) = self.hand.create(pass.set, &lacking).await;
        let not_deleted = self.hand.delete(pass.set, &plan.delete).await;
        not_created.or(not_deleted)
    }

    async fn report(&self, pass: &Pass<'_>, rules: &Rules<'_>, history: &History) -> Result<(), Error> {
        let status = status::status(pass.set, &pass.places, rules, history.collisions);
        let api: Api<DaemonSet> = Api::namespaced(self.context.client.clone(), &pass.key.namespace);
        let patched = patch_status(&api, pass.set, pass.set.status.as_ref(), &status, Precondition::Uid).await;
        if let Some(Some(updated)) = error::gone_is_fine(patched)? {
            self.hand.reported(pass.key, &updated);
        }
        Ok(())
    }

    fn is_current(&self, key: &ObjectKey, uid: &str) -> bool {
        self.keeper.is_current(key) && self.hand.is_current(key, uid, self.sets.revision())
    }
}

/// How many Pods an update may take down or add, of so many nodes.
fn bounds(spec: &DaemonSetSpec, nodes: i32) -> Option<Bounds> {
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return None;
    }
    let RollingUpdateDaemonSet { max_surge, max_unavailable } = strategy.rolling_update.unwrap_or_default();
    let surge = count(portion(&max_surge.unwrap_or(IntOrString::Int(0)), nodes, true));
    let unavailable = count(portion(&max_unavailable.unwrap_or(IntOrString::Int(1)), nodes, true));
    // Something has to move.
    Some(Bounds { surge, unavailable: if surge == 0 { unavailable.max(1) } else { unavailable } })
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(set) = self.sets.get_key(&key) else {
            self.hand.forget(&key);
            self.keeper.forget(&key);
            self.patience.lock().forget(&key);
            return Ok(Outcome::Done);
        };
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        if !self.is_current(&key, &uid) {
            return Ok(Outcome::Behind);
        }
        let candidates = pods::owned_and_orphans(&self.pods, &uid, &key.namespace);
        let owned = self.hand.claim(&*set, &spec.selector, candidates).await?;
        let versioned = Versioned {
            template: &spec.template,
            selector: &spec.selector,
            hash_label: HASH,
            collisions: set.status.as_ref().and_then(|status| status.collision_count),
        };
        let history = self.keeper.sync(&*set, &versioned).await?;
        let live = history::hashes(owned.iter().map(|pod| &**pod));
        let hash = history::hash_of(&history.current, HASH);
        let template = Template::of(&set, hash);
        let places = self.places(&template, owned);
        let pass = Pass { key: &key, set: &set, spec, hash, template, places };

        let desired = saturate(pass.places.values().filter(|place| place.fit.run).count());
        let is_updated = |pod: &Pod| template::is_updated(&set, hash, pod);
        let rules = Rules {
            rolling: bounds(pass.spec, desired),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            now: Timestamp::now(),
            is_updated: &is_updated,
        };
        let mut plan = plan::plan(&pass.places, &rules);
        let wait = self.replace_ended(&pass, &mut plan);
        let failure = self.carry_out(&pass, plan).await;
        self.report(&pass, &rules, &history).await?;
        if let Some(failure) = failure {
            return Err(Error::Partial(failure.message));
        }
        let is_live = |revision: &_| live.contains(history::hash_of(revision, HASH));
        self.keeper.prune(&*set, &history, spec.revision_history_limit, is_live).await?;
        // Times are kept in seconds: look a moment after the second has passed.
        let available = status::next_available(&pass.places, &rules).map(|left| left + Duration::from_millis(1));
        Ok(available.into_iter().chain(wait).min().map_or(Outcome::Done, Outcome::After))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(surge: Option<&str>, unavailable: Option<&str>) -> DaemonSetSpec {
        let text = |text: Option<&str>| text.map(|text| IntOrString::String(text.to_owned()));
        let mut spec = DaemonSetSpec::default();
        let rolling = RollingUpdateDaemonSet { max_surge: text(surge), max_unavailable: text(unavailable) };
        spec.update_strategy.get_or_insert_default().rolling_update = Some(rolling);
        spec
    }

    #[test]
    fn bounds_are_portions_of_the_nodes() {
        assert_eq!(bounds(&spec(None, None), 10), Some(Bounds { surge: 0, unavailable: 1 }));
        assert_eq!(bounds(&spec(None, Some("15%")), 10), Some(Bounds { surge: 0, unavailable: 2 }));
        assert_eq!(bounds(&spec(Some("25%"), Some("0%")), 10), Some(Bounds { surge: 3, unavailable: 0 }));
        let mut on_delete = spec(None, None);
        on_delete.update_strategy.get_or_insert_default().type_ = Some("OnDelete".to_owned());
        assert_eq!(bounds(&on_delete, 10), None);
    }
}
