//! The writes of a pass: Pods, and their claims before them.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use wherry_reconcile::EventType;

use super::{Controller, Pass, identity, plan::Step, retention};
use crate::{
    error::{self, Error},
    hand::BURST,
    pods,
};

impl Controller {
    /// Takes the steps, all at once; there is more than one only where their order does not matter.
    pub(super) async fn take(&self, pass: &Pass<'_>, mut steps: Vec<Step>) -> Result<(), Error> {
        steps.truncate(BURST);
        let results = join_all(steps.iter().map(|step| self.take_one(pass, step))).await;
        results.into_iter().collect()
    }

    async fn take_one(&self, pass: &Pass<'_>, step: &Step) -> Result<(), Error> {
        match step {
            Step::Create { ordinal, newest } => self.create(pass, *ordinal, *newest).await,
            Step::Delete(pod) => self.delete(pass, pod).await,
            Step::Replace(pod) => {
                let failed = pods::phase(pod) == "Failed";
                let (kind, reason, word) = if failed {
                    (EventType::Warning, "RecreatingFailedPod", "failed")
                } else {
                    (EventType::Normal, "RecreatingTerminatedPod", "terminated")
                };
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let text = format!("StatefulSet {} is recreating {word} Pod {name}", pass.key);
                self.recorder.on(pass.set, kind, reason, text);
                self.delete(pass, pod).await
            }
        }
    }

    async fn create(&self, pass: &Pass<'_>, ordinal: i32, newest: bool) -> Result<(), Error> {
        self.create_claims(pass, ordinal).await?;
        let pod = if newest {
            identity::pod(pass.set, &pass.spec.template, pass.newest(), ordinal)
        } else {
            let revision = crate::history::name_of(&pass.current);
            identity::pod(pass.set, &pass.current_template(), revision, ordinal)
        };
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &pass.key.namespace);
        let created = api.create(&PostParams::default(), &pod).await;
        let name = identity::name(&pass.key.name, ordinal);
        if let Some(created) = self.told(pass, "create", &format!("Pod {name}"), created)? {
            self.hand.wrote(pass.key, &created);
        }
        Ok(())
    }

    async fn delete(&self, pass: &Pass<'_>, pod: &Pod) -> Result<(), Error> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &pass.key.namespace);
        let deleted = match api.delete(name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or another Pod has its name: either way this one is no more.
            Err(error) if error::is_not_found(&error) || error::is_conflict(&error) => return Ok(()),
            Err(error) => Err(error),
        };
        if self.told(pass, "delete", &format!("Pod {name}"), deleted)?.is_some() {
            self.hand.deleted(pass.key, pod);
        }
        Ok(())
    }

    /// Creates the claims that an ordinal lacks. One that goes, or is about to, belonged to an earlier life: it is waited for.
    async fn create_claims(&self, pass: &Pass<'_>, ordinal: i32) -> Result<(), Error> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), &pass.key.namespace);
        let pod_name = identity::name(&pass.key.name, ordinal);
        for mut claim in identity::claims(pass.set, ordinal) {
            let name = claim.metadata.name.clone().unwrap_or_default();
            match self.claims.get(&pass.key.namespace, &name) {
                Some(known) if known.metadata.deletion_timestamp.is_some() => {
                    return Err(Error::Partial(format!("claim {name} of {pod_name} is being deleted")));
                }
                // The garbage collector is about to: it must not come between the Pod and its data.
                Some(known) if retention::goes_with_earlier(&known, &pod_name) => {
                    return Err(Error::Partial(format!("claim {name} goes with an earlier {pod_name}")));
                }
                Some(_) => {}
                None => {
                    claim.metadata.owner_references = retention::owners(pass.set, &claim, None, false);
                    match api.create(&PostParams::default(), &claim).await {
                        // The cache does not show it yet.
                        Err(error) if error::already_exists(&error) => {}
                        created => {
                            let what = format!("Claim {name} Pod {pod_name}");
                            self.told(pass, "create", &what, created)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives Pods what they lack of their identity, and claims the owners that the policy says.
    pub(super) async fn keep_identities(&self, pass: &Pass<'_>) -> Result<(), Error> {
        let ordinals = pass.goal(k8s_openapi::jiff::Timestamp::now()).ordinals;
        for (ordinal, pod) in &pass.existing {
            let mut whole = Pod::clone(pod);
            if identity::mend(pass.set, &mut whole, *ordinal) && !pods::is_deleting(pod) {
                let patch = json!({ "metadata": { "uid": pod.metadata.uid, "labels": whole.metadata.labels } });
                let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &pass.key.namespace);
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
                if let Some(pod) = error::gone_is_fine(patched)? {
                    self.hand.wrote(pass.key, &pod);
                }
            }
            self.keep_claims(pass, *ordinal, pod, !ordinals.contains(ordinal)).await?;
        }
        Ok(())
    }

    async fn keep_claims(&self, pass: &Pass<'_>, ordinal: i32, pod: &Pod, condemned: bool) -> Result<(), Error> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), &pass.key.namespace);
        for claim in identity::claims(pass.set, ordinal) {
            let name = claim.metadata.name.unwrap_or_default();
            let Some(known) = self.claims.get(&pass.key.namespace, &name) else { continue };
            if let Some(owners) = retention::owners(pass.set, &known, Some(pod), condemned) {
                let patch = json!({ "metadata": { "uid": known.metadata.uid, "ownerReferences": owners } });
                let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
                error::gone_is_fine(patched)?;
            }
        }
        Ok(())
    }

    /// Tells how a write ended, in an event. None where nobody need know.
    fn told<T>(
        &self,
        pass: &Pass<'_>,
        verb: &str,
        what: &str,
        result: Result<T, kube::Error>,
    ) -> Result<Option<T>, Error> {
        let set = &pass.key.name;
        let reason = |word: &str| format!("{word}{}{}", verb[..1].to_uppercase(), &verb[1..]);
        match result {
            Ok(value) => {
                let preposition = if what.starts_with("Claim") { "success" } else { "successful" };
                let text = format!("{verb} {what} in StatefulSet {set} {preposition}");
                self.recorder.on(pass.set, EventType::Normal, &reason("Successful"), text);
                Ok(Some(value))
            }
            Err(error) if error::is_namespace_terminating(&error) => Ok(None),
            Err(error) => {
                let text = format!("{verb} {what} in StatefulSet {set} failed error: {}", error::message(&error));
                self.recorder.on(pass.set, EventType::Warning, &reason("Failed"), text);
                Err(error.into())
            }
        }
    }
}
