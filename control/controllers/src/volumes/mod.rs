//! PersistentVolumes and PersistentVolumeClaims: brings claims and volumes together, makes the volumes of the built-in class
//! `local-path`, lets them grow, and does with a volume whose claim is gone what its reclaim policy says.
//!
//! What to do is decided by [`claim`] and [`volume`], which are pure; what both sides of a binding look like is [`binding`].
//! A binding is four writes: the volume and its phase, the claim and its status. Each is conditional on the version that was
//! decided on, and any of them may be the last before a crash: the next look goes on from there.
//!
//! One worker: two claims must not be decided on side by side. Upstream: the persistent volume controller, with the expand
//! controller's part of [`local_path`]; generic ephemeral volumes are [`ephemeral`].

mod binding;
mod claim;
pub(crate) mod ephemeral;
mod local_path;
mod volume;

use std::{fmt, sync::Arc};

use k8s_openapi::api::{
    core::v1::{Node, PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{EventType, Informer, ObjectKey, Outcome, Queue, Reconciler, Recorder, storage};

use crate::{
    context::{Context, feed},
    error::{self, Error},
};

const NAME: &str = "persistentvolume-controller";
const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";

/// An Event to come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    kind: EventType,
    reason: &'static str,
    message: String,
}

impl Told {
    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Normal, reason, message: message.into() }
    }

    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Warning, reason, message: message.into() }
    }
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    Claim(ObjectKey),
    Volume(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(key) => write!(f, "claim {key}"),
            Self::Volume(name) => write!(f, "volume {name}"),
        }
    }
}

struct Controller {
    context: Context,
    recorder: Recorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    queue: Queue<Subject>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        recorder: context.recorders.component(NAME),
        claims: context.informers.get(),
        volumes: context.informers.get(),
        classes: context.informers.get(),
        nodes: context.informers.get(),
        queue: Queue::new(),
        context,
    });
    let synced = async {
        controller.claims.synced().await
            && controller.volumes.synced().await
            && controller.classes.synced().await
            && controller.nodes.synced().await
    };
    if cancel.run_until_cancelled(synced).await != Some(true) {
        return;
    }
    let queue = &controller.queue;
    let claims = feed(controller.claims.subscribe(), &cancel, |change| {
        queue.add(Subject::Claim(change.key()));
        // The volume that it has, or had.
        let names = change.sides().map(|claim| storage::volume_name(claim)).filter(|name| !name.is_empty());
        names.for_each(|name| queue.add(Subject::Volume(name.to_owned())));
        if change.new.is_none() {
            let held =
                |volume: &PersistentVolume| storage::reference(volume).is_some_and(|held| is_of(held, &change.key()));
            for volume in controller.volumes.list().iter().filter(|volume| held(volume)) {
                queue.add(Subject::Volume(volume.metadata.name.clone().unwrap_or_default()));
            }
        }
    });
    let volumes = feed(controller.volumes.subscribe(), &cancel, |change| {
        queue.add(Subject::Volume(change.key().name));
        for held in change.sides().filter_map(|volume| storage::reference(volume)) {
            queue.add(Subject::Claim(key_of(held)));
        }
        let free = change.new.as_ref().is_some_and(|volume| storage::reference(volume).is_none());
        if free {
            controller.wake(|_| true);
        }
        // Whoever names it.
        let name = change.key().name;
        controller.wake_all(|claim| storage::volume_name(claim) == name);
    });
    let classes = feed(controller.classes.subscribe(), &cancel, |change| {
        let name = change.key().name;
        controller.wake(|claim| storage::class_of(claim) == name);
    });
    let nodes = feed(controller.nodes.subscribe(), &cancel, |change| {
        let dir = |node: &Arc<Node>| node.metadata.annotations.as_ref()?.get(storage::LOCAL_PATH_DIR).cloned();
        if change.old.as_ref().and_then(dir) != change.new.as_ref().and_then(dir) || change.new.is_none() {
            let name = change.key().name;
            controller.wake(|claim| storage::annotation(claim, storage::SELECTED_NODE) == Some(&name));
        }
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), 1, controller.clone(), cancel.clone());
    tokio::join!(claims, volumes, classes, nodes, work);
}

fn key_of(held: &k8s_openapi::api::core::v1::ObjectReference) -> ObjectKey {
    ObjectKey::new(held.namespace.clone().unwrap_or_default(), held.name.clone().unwrap_or_default())
}

fn is_of(held: &k8s_openapi::api::core::v1::ObjectReference, key: &ObjectKey) -> bool {
    key_of(held) == *key
}

impl Reconciler<Subject> for Controller {
    type Error = Error;

    async fn reconcile(&self, subject: Subject) -> Result<Outcome, Error> {
        let done = match subject {
            Subject::Claim(key) => self.claim(&key).await,
            Subject::Volume(name) => self.volume(&name).await,
        };
        match done {
            // What was decided on is gone: that wakes whom it concerns.
            Err(Error::Api(error)) if error::is_not_found(&error) => Ok(Outcome::Done),
            other => other.map(|()| Outcome::Done),
        }
    }
}

impl Controller {
    /// Looks again at claims that have no volume yet.
    fn wake(&self, concerned: impl Fn(&PersistentVolumeClaim) -> bool) {
        self.wake_all(|claim| !storage::is_bound(claim) && concerned(claim));
    }

    fn wake_all(&self, concerned: impl Fn(&PersistentVolumeClaim) -> bool) {
        for claim in self.claims.list().iter().filter(|claim| concerned(claim)) {
            self.queue.add(Subject::Claim(ObjectKey::of(&**claim)));
        }
    }

    fn claims(&self, key: &ObjectKey) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }

    fn volumes(&self) -> Api<PersistentVolume> {
        Api::all(self.context.client.clone())
    }

    fn tell_claim(&self, claim: &PersistentVolumeClaim, told: Told) {
        self.recorder.on(claim, told.kind, told.reason, told.message);
    }

    async fn claim(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(claim) = self.claims.get_key(key) else { return Ok(()) };
        let class = self.classes.get("", storage::class_of(&claim));
        match claim::decide(&claim, &self.volumes.list(), class.as_ref()) {
            // It would be taken from it at once.
            claim::Decision::Bind(_) | claim::Decision::Provision(_)
                if claim.metadata.deletion_timestamp.is_some() && !storage::is_bound(&claim) =>
            {
                Ok(())
            }
            claim::Decision::Bind(volume) => {
                let claim = self.bind(&volume, &claim).await?;
                self.grow(&volume, &claim, class.as_deref()).await
            }
            claim::Decision::Pending(told) => {
                if let Some(told) = told {
                    self.tell_claim(&claim, told);
                }
                self.claim_phase(key, &claim, "Pending").await.map(drop)
            }
            claim::Decision::Lost(told) => {
                if self.claim_phase(key, &claim, "Lost").await? {
                    self.tell_claim(&claim, told);
                }
                Ok(())
            }
            claim::Decision::Provision(class) => {
                self.claim_phase(key, &claim, "Pending").await?;
                self.provision(key, &claim, &class).await
            }
        }
    }

    /// Whether that was news.
    async fn claim_phase(&self, key: &ObjectKey, claim: &PersistentVolumeClaim, phase: &str) -> Result<bool, Error> {
        if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(false);
        }
        self.claim_status(key, claim, json!({ "phase": phase })).await?;
        Ok(true)
    }

    async fn claim_status(
        &self,
        key: &ObjectKey,
        claim: &PersistentVolumeClaim,
        status: Value,
    ) -> Result<PersistentVolumeClaim, Error> {
        let meta = &claim.metadata;
        let patch = json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "status": status});
        let api = self.claims(key);
        Ok(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    async fn volume_status(&self, volume: &PersistentVolume, phase: &str, told: Option<&Told>) -> Result<bool, Error> {
        if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(false);
        }
        let meta = &volume.metadata;
        let message = told.map(|told| told.message.clone());
        let patch = json!({
            "metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version},
            "status": {"phase": phase, "message": message, "reason": null},
        });
        let name = meta.name.as_deref().unwrap_or_default();
        self.volumes().patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(true)
    }

    /// The claim as it is then.
    async fn bind(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<PersistentVolumeClaim, Error> {
        let key = ObjectKey::of(claim);
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let volume = match storage::bound(volume, claim) {
            Some(bound) => self.volumes().replace(name, &PostParams::default(), &bound).await?,
            None => volume.clone(),
        };
        self.volume_status(&volume, "Bound", None).await?;
        let claim = match binding::claim(claim, &volume) {
            Some(bound) => self.claims(&key).replace(&key.name, &PostParams::default(), &bound).await?,
            None => claim.clone(),
        };
        match binding::status(&claim, &volume) {
            Some(status) => self.claim_status(&key, &claim, status).await,
            None => Ok(claim),
        }
    }

    /// Has a volume made for the claim, by us or by whoever is the class's provisioner.
    async fn provision(
        &self,
        key: &ObjectKey,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<(), Error> {
        let claim = self.announce(key, claim, &class.provisioner).await?;
        if class.provisioner != storage::LOCAL_PATH {
            let told = format!(
                "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
                class.provisioner
            );
            self.tell_claim(&claim, Told::normal("ExternalProvisioning", told));
            return Ok(());
        }
        let failed = |why: String| Told::warning("ProvisioningFailed", why);
        let Some(node) = storage::annotation(&claim, storage::SELECTED_NODE) else {
            let class = class.metadata.name.as_deref().unwrap_or_default();
            let why = format!(
                "failed to provision volume with StorageClass {class:?}: volumes of a node's disk are made where the first Pod runs: its volumeBindingMode must be WaitForFirstConsumer"
            );
            self.tell_claim(&claim, failed(why));
            return Ok(());
        };
        let Some(node) = self.nodes.get("", node) else {
            self.tell_claim(&claim, failed(format!("failed to get target node: node {node:?} not found")));
            // The scheduler chooses again.
            let patch = json!({"metadata": {
                "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
                "annotations": {storage::SELECTED_NODE: null},
            }});
            self.claims(key).patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            return Ok(());
        };
        let volume = match local_path::volume(&claim, class, &node) {
            Ok(volume) => volume,
            Err(why) => {
                let class = class.metadata.name.as_deref().unwrap_or_default();
                self.tell_claim(
                    &claim,
                    failed(format!("failed to provision volume with StorageClass {class:?}: {why}")),
                );
                return Ok(());
            }
        };
        match self.volumes().create(&PostParams::default(), &volume).await {
            Ok(_) => {}
            Err(error) if error::already_exists(&error) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let name = volume.metadata.name.unwrap_or_default();
        let told = format!("Successfully provisioned volume {name} using {}", storage::LOCAL_PATH);
        self.tell_claim(&claim, Told::normal("ProvisioningSucceeded", told));
        Ok(())
    }

    /// Writes on the claim who is to make its volume.
    async fn announce(
        &self,
        key: &ObjectKey,
        claim: &PersistentVolumeClaim,
        provisioner: &str,
    ) -> Result<PersistentVolumeClaim, Error> {
        if storage::annotation(claim, storage::PROVISIONER) == Some(provisioner) {
            return Ok(claim.clone());
        }
        let patch = json!({"metadata": {
            "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
            "annotations": {storage::PROVISIONER: provisioner, BETA_PROVISIONER: provisioner},
        }});
        Ok(self.claims(key).patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Gives a bound claim the size that it has come to ask for. A directory needs nothing done to it.
    async fn grow(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
        class: Option<&StorageClass>,
    ) -> Result<(), Error> {
        let wanted = storage::requested(claim);
        let has = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
        let has = has.and_then(|size| wherry_api::quantity::Quantity::parse(&size.0).ok()).unwrap_or(wanted);
        if wanted <= has || class.is_none_or(|class| class.allow_volume_expansion != Some(true)) {
            return Ok(());
        }
        if storage::local_path_node(volume).is_none() {
            let told = Told::normal("ExternalExpanding", "waiting for an external controller to expand this PVC");
            self.tell_claim(claim, told);
            return Ok(());
        }
        let key = ObjectKey::of(claim);
        let size = wanted.to_string();
        if storage::capacity(volume) < wanted {
            let patch = json!({"metadata": {"uid": volume.metadata.uid}, "spec": {"capacity": {"storage": size}}});
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            self.volumes().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        self.claim_status(&key, claim, json!({"capacity": {"storage": size}})).await?;
        self.tell_claim(claim, Told::normal("VolumeResizeSuccessful", "Resize volume succeeded"));
        Ok(())
    }

    async fn volume(&self, name: &str) -> Result<(), Error> {
        let Some(volume) = self.volumes.get("", name) else { return Ok(()) };
        let held = storage::reference(&volume);
        let mut claim = held.and_then(|held| self.claims.get_key(&key_of(held)));
        // A claim that the cache does not show may have been made just now.
        if let Some(held) =
            held.filter(|held| held.uid.is_some() && claim.as_ref().is_none_or(|claim| claim.metadata.uid != held.uid))
        {
            let key = key_of(held);
            claim = self.claims(&key).get_opt(&key.name).await?.map(Arc::new);
        }
        match volume::decide(&volume, claim.as_deref()) {
            volume::Decision::Phase(phase) => self.volume_status(&volume, phase, None).await.map(drop),
            volume::Decision::AskClaim => {
                if let Some(held) = held {
                    self.queue.add(Subject::Claim(key_of(held)));
                }
                Ok(())
            }
            volume::Decision::Unbind(freed) => {
                let freed = self.volumes().replace(name, &PostParams::default(), &freed).await?;
                self.volume_status(&freed, "Available", None).await.map(drop)
            }
            volume::Decision::Release(reclaim) => self.release(&volume, reclaim).await,
        }
    }

    async fn release(&self, volume: &PersistentVolume, reclaim: volume::Reclaim) -> Result<(), Error> {
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if !matches!(phase, "Released" | "Failed") {
            // The write wakes us again.
            return self.volume_status(volume, "Released", None).await.map(drop);
        }
        match reclaim {
            volume::Reclaim::Keep => Ok(()),
            volume::Reclaim::Fail(told) => {
                if self.volume_status(volume, "Failed", Some(&told)).await? {
                    self.recorder.on(volume, told.kind, told.reason, told.message);
                }
                Ok(())
            }
            volume::Reclaim::Delete if volume.metadata.deletion_timestamp.is_some() => Ok(()),
            volume::Reclaim::Delete => {
                let preconditions = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                let name = volume.metadata.name.as_deref().unwrap_or_default();
                error::gone_is_fine(self.volumes().delete(name, &params).await)?;
                Ok(())
            }
        }
    }
}
