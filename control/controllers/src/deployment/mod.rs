//! Deployment: moves an application from one Pod template to the next without an outage.
//!
//! Flow of a pass: claim the ReplicaSets; give the present template's one its revision (or create it); then one of
//! - *scale*, if the Deployment is paused or its size changed: all sets in proportion,
//! - *roll*, one step of a rolling update ([`rolling`]),
//! - *recreate*: no new Pod before the last old one is gone;
//!
//! then report ([`status`]) and drop revisions beyond the history limit. Each ReplicaSet's progress wakes the next pass.
//!
//! Guarantees: a pass acts on caches that show all earlier writes; every step keeps `maxSurge` and `maxUnavailable`.

mod revisions;
mod rolling;
mod status;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
    core::Selector,
};
use revisions::{REVISION, Revisions, TEMPLATE_HASH};
use rolling::{Goal, Scale};
use serde_json::json;
use status::{News, View};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Change, EventType, Expectations, Informer, ObjectKey, Outcome, Queue, Reconciler, Recorder,
    hash::pod_template_hash,
    informer::revision_of,
    ownership::{self, Claim, Claimer, controller_of, owner_reference, selects},
    status::{Precondition, patch_status},
};

use crate::{
    context::{Context, feed},
    error::{self, Error},
    pods, replicaset,
};

const NAME: &str = "deployment-controller";
const WORKERS: usize = 8;
const MAX_NAME: usize = 253;

struct Controller {
    context: Context,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    recorder: Recorder,
    /// Our writes to ReplicaSets and to Deployments.
    set_writes: Expectations,
    own_writes: Expectations,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        deployments: context.informers.get(),
        sets: context.informers.get(),
        pods: context.informers.get(),
        recorder: context.recorders.component(NAME),
        set_writes: Expectations::default(),
        own_writes: Expectations::default(),
        context,
    });
    pods::index(&controller.pods);
    replicaset::index(&controller.sets);
    let synced = async {
        controller.deployments.synced().await
            && controller.sets.synced().await
            && controller.pods.synced().await
    };
    if cancel.run_until_cancelled(synced).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let deployments = feed(controller.deployments.subscribe(), &cancel, |change| {
        queue.add(change.key())
    });
    let sets = feed(controller.sets.subscribe(), &cancel, |change| {
        controller
            .owners(&change)
            .into_iter()
            .for_each(|key| queue.add(key));
    });
    let pods = feed(controller.pods.subscribe(), &cancel, |change| {
        if let Some(key) = controller.recreating(&change) {
            queue.add(key);
        }
    });
    let work = wherry_reconcile::run(
        NAME,
        queue.clone(),
        WORKERS,
        controller.clone(),
        cancel.clone(),
    );
    tokio::join!(deployments, sets, pods, work);
}

impl Controller {
    /// The Deployments that a change of a ReplicaSet concerns.
    fn owners(&self, change: &Change<ReplicaSet>) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        for set in change.sides() {
            let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
            match controller_of(&set.metadata) {
                Some(owner) if owner.kind == "Deployment" => {
                    keys.push(ObjectKey::new(namespace, &owner.name))
                }
                Some(_) => {}
                None => keys.extend(
                    self.deployments
                        .list_namespace(namespace)
                        .iter()
                        .filter(|deployment| {
                            let spec = deployment.spec.as_ref();
                            spec.is_some_and(|spec| {
                                selects(&spec.selector, set.metadata.labels.as_ref())
                            })
                        })
                        .map(|deployment| ObjectKey::of(&**deployment)),
                ),
            }
        }
        keys
    }

    /// The Deployment that waits for this Pod to be gone.
    fn recreating(&self, change: &Change<Pod>) -> Option<ObjectKey> {
        let pod = change.object()?;
        if change.new.is_some() && !pods::is_terminal(pod) {
            return None;
        }
        let namespace = pod.metadata.namespace.as_deref()?;
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet")?;
        let set = self.sets.get(namespace, &owner.name)?;
        let owner = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
        let deployment = self.deployments.get(namespace, &owner.name)?;
        (!Goal::of(&deployment).rolling).then(|| ObjectKey::of(&*deployment))
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    fn is_current(&self, key: &ObjectKey) -> bool {
        let is_live = |uid: &str| {
            self.sets.list_namespace(&key.namespace).iter().any(|set| {
                set.metadata.uid.as_deref() == Some(uid)
                    && set.metadata.deletion_timestamp.is_none()
            })
        };
        self.own_writes
            .satisfied(key, self.deployments.revision(), |_| false)
            && self
                .set_writes
                .satisfied(key, self.sets.revision(), is_live)
    }

    async fn claim(
        &self,
        deployment: &Deployment,
        key: &ObjectKey,
    ) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let selector = deployment
            .spec
            .as_ref()
            .map(|spec| spec.selector.clone())
            .unwrap_or_default();
        let Ok(selector) = Selector::try_from(selector) else {
            return Ok(Vec::new());
        };
        let claimer = Claimer {
            owner: &deployment.metadata,
            selector: &selector,
        };
        let api: Api<ReplicaSet> = self.api(&key.namespace);
        let mut claimed = Vec::new();
        for set in self.sets.list_namespace(&key.namespace) {
            match claimer.decide(&set.metadata) {
                Claim::Keep => claimed.push(set),
                Claim::Ignore => {}
                Claim::Release => {
                    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
                    ownership::release(&api, &*set, uid).await?;
                }
                Claim::Adopt => {
                    let fresh = self
                        .api::<Deployment>(&key.namespace)
                        .get(&key.name)
                        .await?;
                    if fresh.metadata.uid != deployment.metadata.uid
                        || fresh.metadata.deletion_timestamp.is_some()
                    {
                        return Err(Error::Replaced(key.to_string()));
                    }
                    let adopted = ownership::adopt(&api, &*set, &owner_reference(deployment)).await;
                    if let Some(adopted) = error::gone_is_fine(adopted)? {
                        self.set_writes.wrote(key, revision_of(&adopted));
                        claimed.push(Arc::new(adopted));
                    }
                }
            }
        }
        Ok(claimed)
    }

    /// Patches a ReplicaSet and puts the result in its place.
    async fn patch_set(
        &self,
        pass: &mut Pass,
        set: &ReplicaSet,
        annotations: &BTreeMap<String, String>,
        spec: serde_json::Value,
    ) -> Result<(), Error> {
        let patch = json!({ "metadata": { "uid": set.metadata.uid, "annotations": annotations }, "spec": spec });
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let api: Api<ReplicaSet> = self.api(&pass.key.namespace);
        let updated = api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        self.set_writes.wrote(&pass.key, revision_of(&updated));
        pass.put(updated);
        Ok(())
    }

    /// Gives the present template's ReplicaSet the Deployment's annotations and the newest revision.
    async fn sync_new(&self, pass: &mut Pass) -> Result<(), Error> {
        let Some(new) = pass.revisions.new.clone() else {
            return Ok(());
        };
        let existing = new.metadata.annotations.clone().unwrap_or_default();
        let missing =
            revisions::missing_annotations(&pass.deployment, &existing, pass.revisions.next());
        let wanted = pass.min_ready();
        let min_ready = new
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or(0);
        if missing.is_empty() && min_ready == wanted {
            return Ok(());
        }
        let spec = if min_ready == wanted {
            json!({})
        } else {
            json!({ "minReadySeconds": wanted })
        };
        self.patch_set(pass, &new, &missing, spec).await
    }

    /// Makes sure that the present template has a ReplicaSet.
    async fn ensure_new(&self, pass: &mut Pass) -> Result<(), Error> {
        if pass.revisions.new.is_some() {
            return Ok(());
        }
        let set = pass.new_set();
        let name = set.metadata.name.clone().unwrap_or_default();
        let size = revisions::replicas(&set);
        match self
            .api(&pass.key.namespace)
            .create(&PostParams::default(), &set)
            .await
        {
            Ok(created) => {
                self.set_writes.wrote(&pass.key, revision_of(&created));
                if size > 0 {
                    let text = format!("Scaled up replica set {name} from 0 to {size}");
                    self.recorder.on(
                        &*pass.deployment,
                        EventType::Normal,
                        "ScalingReplicaSet",
                        text,
                    );
                }
                pass.news = News::Created(name);
                pass.revisions.new = Some(Arc::new(created));
                Ok(())
            }
            Err(error) if error::already_exists(&error) => {
                self.resolve_collision(pass, &name).await
            }
            Err(error) => {
                if !error::is_namespace_terminating(&error) {
                    let text = format!(
                        "Failed to create new replica set {name:?}: {}",
                        error::message(&error)
                    );
                    self.recorder.on(
                        &*pass.deployment,
                        EventType::Warning,
                        "ReplicaSetCreateError",
                        &*text,
                    );
                    pass.news = News::NotCreated(text);
                    self.report(pass, true).await?;
                }
                Err(error.into())
            }
        }
    }

    /// The name is taken: by our own set, of which the cache does not know yet, or by another template with the same hash.
    async fn resolve_collision(&self, pass: &mut Pass, name: &str) -> Result<(), Error> {
        let set: ReplicaSet = self.api(&pass.key.namespace).get(name).await?;
        let uid = pass.deployment.metadata.uid.as_deref().unwrap_or_default();
        let ours = ownership::is_controlled_by(&set.metadata, uid);
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let wanted = pass.deployment.spec.as_ref().map(|spec| &spec.template);
        if ours
            && template
                .zip(wanted)
                .is_some_and(|(template, wanted)| revisions::same_template(template, wanted))
        {
            pass.revisions.new = Some(Arc::new(set));
            return Ok(());
        }
        let before = pass.deployment.status.clone().unwrap_or_default();
        let mut status = before.clone();
        status.collision_count = Some(before.collision_count.unwrap_or(0) + 1);
        let api: Api<Deployment> = self.api(&pass.key.namespace);
        let updated = patch_status(
            &api,
            &*pass.deployment,
            Some(&before),
            &status,
            Precondition::Version,
        )
        .await?;
        if let Some(updated) = updated {
            self.own_writes.wrote(&pass.key, revision_of(&updated));
        }
        Err(Error::HashCollision(name.to_owned()))
    }

    /// Carries out new sizes. With `record` the Deployment's size is noted even on sets whose own size stays.
    async fn scale(
        &self,
        pass: &mut Pass,
        scales: Vec<Scale>,
        record: bool,
    ) -> Result<bool, Error> {
        let annotations = revisions::size_annotations(&pass.goal);
        let mut scaled = false;
        for Scale { name, to } in scales {
            let Some(set) = pass.find(&name) else {
                continue;
            };
            let from = revisions::replicas(&set);
            let known = set.metadata.annotations.clone().unwrap_or_default();
            let noted = annotations
                .iter()
                .all(|(name, value)| known.get(name) == Some(value));
            if from == to && (noted || !record) {
                continue;
            }
            let spec = if from == to {
                json!({})
            } else {
                json!({ "replicas": to })
            };
            self.patch_set(pass, &set, &annotations, spec).await?;
            if from != to {
                scaled = true;
                let direction = if from < to { "up" } else { "down" };
                let text = format!("Scaled {direction} replica set {name} from {from} to {to}");
                self.recorder.on(
                    &*pass.deployment,
                    EventType::Normal,
                    "ScalingReplicaSet",
                    text,
                );
            }
        }
        Ok(scaled)
    }

    async fn scale_all(&self, pass: &mut Pass) -> Result<(), Error> {
        let new = pass.revisions.new.as_deref().map(revisions::sizes);
        let old = pass.old_sizes();
        let current = pass
            .deployment
            .status
            .as_ref()
            .and_then(|status| status.replicas)
            .unwrap_or(0);
        let scales = rolling::scale(&pass.goal, new.as_ref(), &old, current);
        self.scale(pass, scales, true).await?;
        Ok(())
    }

    async fn roll(&self, pass: &mut Pass) -> Result<(), Error> {
        self.ensure_new(pass).await?;
        let Some(new) = pass.revisions.new.as_deref().map(revisions::sizes) else {
            return Ok(());
        };
        let scales = rolling::roll(&pass.goal, &new, &pass.old_sizes());
        if !self.scale(pass, scales, false).await? && pass.is_complete() {
            self.clean_up(pass).await?;
        }
        Ok(())
    }

    async fn recreate(&self, pass: &mut Pass) -> Result<(), Error> {
        let down = pass
            .revisions
            .old
            .iter()
            .filter(|set| revisions::replicas(set) > 0)
            .map(|set| Scale {
                name: set.metadata.name.clone().unwrap_or_default(),
                to: 0,
            })
            .collect();
        if self.scale(pass, down, false).await? || self.has_old_pods(pass) {
            return Ok(());
        }
        self.ensure_new(pass).await?;
        let up = Scale {
            name: pass
                .revisions
                .new
                .as_ref()
                .and_then(|new| new.metadata.name.clone())
                .unwrap_or_default(),
            to: pass.goal.replicas,
        };
        self.scale(pass, vec![up], false).await?;
        if pass.is_complete() {
            self.clean_up(pass).await?;
        }
        Ok(())
    }

    fn has_old_pods(&self, pass: &Pass) -> bool {
        pass.revisions.old.iter().any(|set| {
            let counted = set
                .status
                .as_ref()
                .is_some_and(|status| status.replicas > 0);
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            counted
                || self
                    .pods
                    .by_index(pods::BY_CONTROLLER, uid)
                    .iter()
                    .any(|pod| !pods::is_terminal(pod))
        })
    }

    async fn clean_up(&self, pass: &Pass) -> Result<(), Error> {
        let api: Api<ReplicaSet> = self.api(&pass.key.namespace);
        for set in pass.revisions.expired(&pass.deployment) {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: set.metadata.uid.clone(),
                    resource_version: None,
                }),
                ..DeleteParams::background()
            };
            error::gone_is_fine(api.delete(name, &params).await)?;
            self.set_writes
                .deleted(&pass.key, set.metadata.uid.clone().unwrap_or_default());
        }
        Ok(())
    }

    /// Writes the status and the Deployment's own revision.
    async fn report(&self, pass: &Pass, rollout: bool) -> Result<Outcome, Error> {
        let view = View {
            deployment: &pass.deployment,
            revisions: &pass.revisions,
            goal: pass.goal,
            rollout,
            news: pass.news.clone(),
            now: Timestamp::now(),
        };
        let status = view.status();
        let api: Api<Deployment> = self.api(&pass.key.namespace);
        let before = pass.deployment.status.as_ref();
        let patched =
            patch_status(&api, &*pass.deployment, before, &status, Precondition::Uid).await;
        if let Some(Some(updated)) = error::gone_is_fine(patched)? {
            self.own_writes.wrote(&pass.key, revision_of(&updated));
        }
        self.sync_revision(pass, &api).await?;
        Ok(view
            .next_check(&status)
            .map_or(Outcome::Done, Outcome::After))
    }

    /// Copies the new ReplicaSet's revision to the Deployment, through the status endpoint: it is the controller's to write
    /// and no change of what the user asked for, so the generation must not move.
    async fn sync_revision(&self, pass: &Pass, api: &Api<Deployment>) -> Result<(), Error> {
        let annotation = |meta: &ObjectMeta| {
            meta.annotations
                .as_ref()
                .and_then(|all| all.get(REVISION).cloned())
        };
        let Some(revision) = pass
            .revisions
            .new
            .as_ref()
            .and_then(|new| annotation(&new.metadata))
        else {
            return Ok(());
        };
        if annotation(&pass.deployment.metadata).as_ref() == Some(&revision) {
            return Ok(());
        }
        let patch = json!({ "metadata": { "uid": pass.deployment.metadata.uid, "annotations": { REVISION: revision } } });
        let patched = api
            .patch_status(
                &pass.key.name,
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await;
        if let Some(updated) = error::gone_is_fine(patched)? {
            self.own_writes.wrote(&pass.key, revision_of(&updated));
        }
        Ok(())
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(deployment) = self.deployments.get_key(&key) else {
            self.own_writes.forget(&key);
            self.set_writes.forget(&key);
            return Ok(Outcome::Done);
        };
        if !self.is_current(&key) {
            return Ok(Outcome::Done);
        }
        let sets = self.claim(&deployment, &key).await?;
        let mut pass = Pass {
            revisions: Revisions::of(&deployment, sets),
            goal: Goal::of(&deployment),
            news: News::None,
            deployment,
            key,
        };
        if pass.deployment.metadata.deletion_timestamp.is_some() {
            return self.report(&pass, false).await;
        }
        self.sync_new(&mut pass).await?;
        if pass.is_paused() || pass.is_scaling() {
            self.scale_all(&mut pass).await?;
            if pass.is_paused() {
                self.clean_up(&pass).await?;
            }
            return self.report(&pass, false).await;
        }
        if pass.goal.rolling {
            self.roll(&mut pass).await?;
        } else {
            self.recreate(&mut pass).await?;
        }
        self.report(&pass, true).await
    }
}

/// One pass over one Deployment.
struct Pass {
    key: ObjectKey,
    deployment: Arc<Deployment>,
    revisions: Revisions,
    goal: Goal,
    news: News,
}

impl Pass {
    fn is_paused(&self) -> bool {
        self.deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true)
    }

    fn is_scaling(&self) -> bool {
        let sets: Vec<_> = self
            .revisions
            .all()
            .map(|set| revisions::sizes(set))
            .collect();
        rolling::is_scaling(&self.goal, &sets)
    }

    fn is_complete(&self) -> bool {
        let status = self.deployment.status.as_ref();
        status.is_some_and(|status| status::is_complete(&self.deployment, status))
    }

    fn min_ready(&self) -> i32 {
        self.deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or(0)
    }

    fn old_sizes(&self) -> Vec<rolling::Set> {
        self.revisions
            .old
            .iter()
            .map(|set| revisions::sizes(set))
            .collect()
    }

    fn find(&self, name: &str) -> Option<Arc<ReplicaSet>> {
        self.revisions
            .all()
            .find(|set| set.metadata.name.as_deref() == Some(name))
            .cloned()
    }

    fn put(&mut self, updated: ReplicaSet) {
        let updated = Arc::new(updated);
        let known = self.revisions.old.iter_mut().chain(&mut self.revisions.new);
        for set in known.filter(|set| set.metadata.uid == updated.metadata.uid) {
            *set = updated.clone();
        }
    }

    /// The ReplicaSet of the present template.
    fn new_set(&self) -> ReplicaSet {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let collisions = self
            .deployment
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        let hash = pod_template_hash(&spec.template, collisions);
        let mut template = spec.template;
        let meta = template.metadata.get_or_insert_default();
        meta.labels
            .get_or_insert_default()
            .insert(TEMPLATE_HASH.to_owned(), hash.clone());
        let labels = meta.labels.clone();
        let mut selector = spec.selector;
        selector
            .match_labels
            .get_or_insert_default()
            .insert(TEMPLATE_HASH.to_owned(), hash.clone());

        let pods = self
            .revisions
            .old
            .iter()
            .map(|set| revisions::replicas(set))
            .sum();
        let size = rolling::new_size(&self.goal, 0, pods);
        let mut annotations = revisions::missing_annotations(
            &self.deployment,
            &BTreeMap::new(),
            self.revisions.next(),
        );
        annotations.extend(revisions::size_annotations(&self.goal));
        let mut name = self.key.name.clone();
        name.truncate(MAX_NAME - hash.len() - 1);
        ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                namespace: Some(self.key.namespace.clone()),
                owner_references: Some(vec![owner_reference(&*self.deployment)]),
                labels,
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        }
    }
}
