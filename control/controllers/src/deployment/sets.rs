//! The writes of a pass to ReplicaSets: creating, annotating, scaling, deleting.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use wherry_reconcile::{
    EventType,
    informer::revision_of,
    ownership,
    status::{Precondition, patch_status},
};

use super::{Controller, pass::Pass, revisions, rolling::Scale, status::News};
use crate::error::{self, Error};

impl Controller {
    /// Patches a ReplicaSet and puts the result in its place.
    pub(super) async fn patch_set(
        &self,
        pass: &mut Pass,
        set: &ReplicaSet,
        annotations: &BTreeMap<String, String>,
        spec: serde_json::Value,
    ) -> Result<(), Error> {
        let patch = json!({ "metadata": { "uid": set.metadata.uid, "annotations": annotations }, "spec": spec });
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let api: Api<ReplicaSet> = self.api(&pass.key.namespace);
        let updated = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        self.set_writes.wrote(&pass.key, revision_of(&updated));
        pass.put(updated);
        Ok(())
    }

    /// Gives the present template's ReplicaSet the Deployment's annotations and the newest revision.
    pub(super) async fn sync_new(&self, pass: &mut Pass) -> Result<(), Error> {
        let Some(new) = pass.revisions.new.clone() else {
            return Ok(());
        };
        let existing = new.metadata.annotations.clone().unwrap_or_default();
        let missing = revisions::missing_annotations(&pass.deployment, &existing, pass.revisions.next());
        let wanted = pass.min_ready();
        let min_ready = new.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        if missing.is_empty() && min_ready == wanted {
            return Ok(());
        }
        let spec = if min_ready == wanted { json!({}) } else { json!({ "minReadySeconds": wanted }) };
        self.patch_set(pass, &new, &missing, spec).await
    }

    /// Makes sure that the present template has a ReplicaSet.
    pub(super) async fn ensure_new(&self, pass: &mut Pass) -> Result<(), Error> {
        if pass.revisions.new.is_some() {
            return Ok(());
        }
        let set = pass.new_set();
        let name = set.metadata.name.clone().unwrap_or_default();
        let size = revisions::replicas(&set);
        match self.api(&pass.key.namespace).create(&PostParams::default(), &set).await {
            Ok(created) => {
                self.set_writes.wrote(&pass.key, revision_of(&created));
                if size > 0 {
                    let text = format!("Scaled up replica set {name} from 0 to {size}");
                    self.recorder.on(&*pass.deployment, EventType::Normal, "ScalingReplicaSet", text);
                }
                pass.news = News::Created(name);
                pass.revisions.new = Some(Arc::new(created));
                Ok(())
            }
            Err(error) if error::already_exists(&error) => self.resolve_collision(pass, &name).await,
            Err(error) => {
                if !error::is_namespace_terminating(&error) {
                    let text = format!("Failed to create new replica set {name:?}: {}", error::message(&error));
                    self.recorder.on(&*pass.deployment, EventType::Warning, "ReplicaSetCreateError", &*text);
                    pass.news = News::NotCreated(text);
                    self.report(pass, true).await?;
                }
                Err(error.into())
            }
        }
    }

    /// The name is taken: by our own set, of which the cache does not know yet, or by another template with the same hash.
    pub(super) async fn resolve_collision(&self, pass: &mut Pass, name: &str) -> Result<(), Error> {
        let set: ReplicaSet = self.api(&pass.key.namespace).get(name).await?;
        let uid = pass.deployment.metadata.uid.as_deref().unwrap_or_default();
        let ours = ownership::is_controlled_by(&set.metadata, uid);
        let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let wanted = pass.deployment.spec.as_ref().map(|spec| &spec.template);
        if ours && template.zip(wanted).is_some_and(|(template, wanted)| revisions::same_template(template, wanted)) {
            // Made by a pass that did not hear of it.
            self.set_writes.wrote(&pass.key, revision_of(&set));
            pass.revisions.new = Some(Arc::new(set));
            return Ok(());
        }
        let before = pass.deployment.status.clone().unwrap_or_default();
        let mut status = before.clone();
        status.collision_count = Some(before.collision_count.unwrap_or(0) + 1);
        let api: Api<Deployment> = self.api(&pass.key.namespace);
        let updated = patch_status(&api, &*pass.deployment, Some(&before), &status, Precondition::Version).await?;
        if let Some(updated) = updated {
            self.own_writes.wrote(&pass.key, revision_of(&updated));
        }
        Err(Error::HashCollision(name.to_owned()))
    }

    /// Carries out new sizes. With `record` the Deployment's size is noted even on sets whose own size stays.
    pub(super) async fn scale(&self, pass: &mut Pass, scales: Vec<Scale>, record: bool) -> Result<bool, Error> {
        let annotations = revisions::size_annotations(&pass.goal);
        let mut scaled = false;
        for Scale { name, to } in scales {
            let Some(set) = pass.find(&name) else {
                continue;
            };
            let from = revisions::replicas(&set);
            let known = set.metadata.annotations.clone().unwrap_or_default();
            let noted = annotations.iter().all(|(name, value)| known.get(name) == Some(value));
            if from == to && (noted || !record) {
                continue;
            }
            let spec = if from == to { json!({}) } else { json!({ "replicas": to }) };
            self.patch_set(pass, &set, &annotations, spec).await?;
            if from != to {
                scaled = true;
                let direction = if from < to { "up" } else { "down" };
                let text = format!("Scaled {direction} replica set {name} from {from} to {to}");
                self.recorder.on(&*pass.deployment, EventType::Normal, "ScalingReplicaSet", text);
            }
        }
        Ok(scaled)
    }

    pub(super) async fn clean_up(&self, pass: &Pass) -> Result<(), Error> {
        let api: Api<ReplicaSet> = self.api(&pass.key.namespace);
        for set in pass.revisions.expired(&pass.deployment) {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: set.metadata.uid.clone(), resource_version: None }),
                ..DeleteParams::background()
            };
            error::gone_is_fine(api.delete(name, &params).await)?;
            self.set_writes.deleted(&pass.key, set.metadata.uid.clone().unwrap_or_default());
        }
        Ok(())
    }
}
