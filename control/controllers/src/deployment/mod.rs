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

mod pass;
mod revisions;
mod rolling;
mod sets;
mod status;

use std::sync::Arc;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::Pod,
    },
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{ObjectMeta, Patch, PatchParams},
    core::Selector,
};
use pass::Pass;
use revisions::{REVISION, Revisions};
use rolling::{Goal, Scale};
use serde_json::json;
use status::{News, View};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{
    Change, Expectations, Feeds, Informer, ObjectKey, Outcome, Reconciler, Recorder,
    informer::revision_of,
    ownership::{self, Claim, Claimer, controller_of, owner_reference, selects},
    status::{Precondition, patch_status},
};

use crate::{
    context::Context,
    error::{self, Error},
    hand::owners,
    pods, replicaset,
};

const NAME: &str = "deployment-controller";
const WORKERS: usize = 8;

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
    let (of_sets, of_pods) = (controller.clone(), controller.clone());
    Feeds::new()
        .on(&controller.deployments, |change| [change.key()])
        .on(&controller.sets, move |change| {
            owners(&of_sets.deployments, change, |deployment, set| {
                deployment.spec.as_ref().is_some_and(|spec| selects(&spec.selector, set.labels.as_ref()))
            })
        })
        .on(&controller.pods, move |change| of_pods.recreating(change))
        .run(NAME, WORKERS, controller.clone(), cancel)
        .await;
}

impl Controller {
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
            self.sets
                .list_namespace(&key.namespace)
                .iter()
                .any(|set| set.metadata.uid.as_deref() == Some(uid) && set.metadata.deletion_timestamp.is_none())
        };
        self.own_writes.satisfied(key, self.deployments.revision(), |_| false)
            && self.set_writes.satisfied(key, self.sets.revision(), is_live)
    }

    async fn claim(&self, deployment: &Deployment, key: &ObjectKey) -> Result<Vec<Arc<ReplicaSet>>, Error> {
        let selector = deployment.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
        let Ok(selector) = Selector::try_from(selector) else {
            return Ok(Vec::new());
        };
        let claimer = Claimer { owner: &deployment.metadata, selector: &selector };
        let api: Api<ReplicaSet> = self.api(&key.namespace);
        let mut claimed = Vec::new();
        for set in self.sets.list_namespace(&key.namespace) {
            match claimer.decide(&set.metadata) {
                Claim::Keep => claimed.push(set),
                Claim::Ignore => {}
                Claim::Release => {
                    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
                    ownership::release(&api, &*set, uid, &[]).await?;
                }
                Claim::Adopt => {
                    let fresh = self.api::<Deployment>(&key.namespace).get(&key.name).await?;
                    if fresh.metadata.uid != deployment.metadata.uid || fresh.metadata.deletion_timestamp.is_some() {
                        return Err(Error::Replaced(key.to_string()));
                    }
                    let adopted = ownership::adopt(&api, &*set, &owner_reference(deployment), &[]).await;
                    if let Some(adopted) = error::gone_is_fine(adopted)? {
                        self.set_writes.wrote(key, revision_of(&adopted));
                        claimed.push(Arc::new(adopted));
                    }
                }
            }
        }
        Ok(claimed)
    }

    async fn scale_all(&self, pass: &mut Pass) -> Result<(), Error> {
        let new = pass.revisions.new.as_deref().map(revisions::sizes);
        let old = pass.old_sizes();
        let current = pass.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
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
            .map(|set| Scale { name: set.metadata.name.clone().unwrap_or_default(), to: 0 })
            .collect();
        if self.scale(pass, down, false).await? || self.has_old_pods(pass) {
            return Ok(());
        }
        self.ensure_new(pass).await?;
        let up = Scale {
            name: pass.revisions.new.as_ref().and_then(|new| new.metadata.name.clone()).unwrap_or_default(),
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
            let counted = set.status.as_ref().is_some_and(|status| status.replicas > 0);
            let uid = set.metadata.uid.as_deref().unwrap_or_default();
            counted || self.pods.by_index(pods::BY_CONTROLLER, uid).iter().any(|pod| !pods::is_terminal(pod))
        })
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
        let patched = patch_status(&api, &*pass.deployment, before, &status, Precondition::Uid).await;
        if let Some(Some(updated)) = error::gone_is_fine(patched)? {
            self.own_writes.wrote(&pass.key, revision_of(&updated));
        }
        self.sync_revision(pass, &api).await?;
        Ok(view.next_check(&status).map_or(Outcome::Done, Outcome::After))
    }

    /// Copies the new ReplicaSet's revision to the Deployment, through the status endpoint: it is the controller's to write
    /// and no change of what the user asked for, so the generation must not move.
    async fn sync_revision(&self, pass: &Pass, api: &Api<Deployment>) -> Result<(), Error> {
        let annotation = |meta: &ObjectMeta| meta.annotations.as_ref().and_then(|all| all.get(REVISION).cloned());
        let Some(revision) = pass.revisions.new.as_ref().and_then(|new| annotation(&new.metadata)) else {
            return Ok(());
        };
        if annotation(&pass.deployment.metadata).as_ref() == Some(&revision) {
            return Ok(());
        }
        let patch =
            json!({ "metadata": { "uid": pass.deployment.metadata.uid, "annotations": { REVISION: revision } } });
        let patched = api.patch_status(&pass.key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
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
            return Ok(Outcome::Behind);
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
