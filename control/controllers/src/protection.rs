//! Storage protection: claims, volumes and volume attribute classes that somebody uses are not deleted under them.
//!
//! Admission gives each of them a finalizer. One that is being deleted loses it, and with it its life, as soon as nobody uses
//! it; one that lacks the finalizer (it was made before there was admission) gets it. Who uses what is a row of
//! [`Protected`]; upstream has a controller each (pvc-protection, pv-protection, volumeattributesclass-protection).
//!
//! Guarantee: whether somebody uses an object that is being deleted is asked of the server, not of a cache.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::VolumeAttributesClass,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Informer, ObjectKey, Outcome, Queue, Reconciler, informer::Kind};

use crate::{
    context::{Context, feed},
    error::{self, Error},
};

const WORKERS: usize = 2;

/// A kind of object that is protected while it is used.
trait Protected: Kind<DynamicType = ()> {
    /// The controller's name.
    const NAME: &'static str;
    /// The controller's service account.
    const ACCOUNT: &'static str;
    /// What keeps the object.
    const FINALIZER: &'static str;
    /// The API for objects of a namespace (empty for those of the cluster).
    fn api(client: &Client, namespace: &str) -> Api<Self>;
    /// Whether somebody uses the object.
    fn is_used(&self, client: &Client) -> impl Future<Output = Result<bool, kube::Error>> + Send;
}

impl Protected for PersistentVolumeClaim {
    const NAME: &'static str = "persistentvolumeclaim-protection-controller";
    const ACCOUNT: &'static str = "pvc-protection-controller";
    const FINALIZER: &'static str = "kubernetes.io/pvc-protection";

    fn api(client: &Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client.clone(), namespace)
    }

    async fn is_used(&self, client: &Client) -> Result<bool, kube::Error> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &self.namespace().unwrap_or_default());
        let name = self.name_any();
        Ok(pods.list(&ListParams::default()).await?.iter().any(|pod| is_bound(pod) && claims(pod).contains(&name)))
    }
}

impl Protected for PersistentVolume {
    const NAME: &'static str = "persistentvolume-protection-controller";
    const ACCOUNT: &'static str = "pv-protection-controller";
    const FINALIZER: &'static str = "kubernetes.io/pv-protection";

    fn api(client: &Client, _: &str) -> Api<Self> {
        Api::all(client.clone())
    }

    async fn is_used(&self, _: &Client) -> Result<bool, kube::Error> {
        Ok(self.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"))
    }
}

impl Protected for VolumeAttributesClass {
    const NAME: &'static str = "volumeattributesclass-protection-controller";
    const ACCOUNT: &'static str = "volumeattributesclass-protection-controller";
    const FINALIZER: &'static str = "kubernetes.io/vac-protection";

    fn api(client: &Client, _: &str) -> Api<Self> {
        Api::all(client.clone())
    }

    async fn is_used(&self, client: &Client) -> Result<bool, kube::Error> {
        let name = self.name_any();
        let claims: Api<PersistentVolumeClaim> = Api::all(client.clone());
        if claims.list(&ListParams::default()).await?.iter().any(|claim| classes(claim).contains(&name)) {
            return Ok(true);
        }
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        let volumes = volumes.list(&ListParams::default()).await?;
        Ok(volumes.iter().any(|volume| class_of(volume) == Some(&name)))
    }
}

/// Only the agent of a node uses what a Pod names.
fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
}

/// The names of the claims that a Pod uses; those of its ephemeral volumes until it has shut down.
fn claims(pod: &Pod) -> BTreeSet<String> {
    let shut_down = pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(claim.claim_name.clone()),
            (None, Some(_)) if !shut_down => Some(format!("{}-{}", pod.name_any(), volume.name)),
            _ => None,
        })
        .collect()
}

/// The names of the attribute classes that a claim has, had or is to get.
fn classes(claim: &PersistentVolumeClaim) -> BTreeSet<String> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    let status = claim.status.as_ref();
    let present = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let target = status
        .and_then(|status| status.modify_volume_status.as_ref())
        .and_then(|modify| modify.target_volume_attributes_class_name.clone());
    [wanted, present, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn class_of(volume: &PersistentVolume) -> Option<&String> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_ref()
}

struct Controller<K> {
    client: Client,
    objects: Informer<K>,
}

impl<K: Protected> Reconciler<ObjectKey> for Controller<K> {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(object) = self.objects.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let mut finalizers = object.finalizers().to_vec();
        let deleting = object.meta().deletion_timestamp.is_some();
        match (deleting, finalizers.iter().any(|known| known == K::FINALIZER)) {
            (true, true) if !object.is_used(&self.client).await? => finalizers.retain(|known| known != K::FINALIZER),
            (false, false) => finalizers.push(K::FINALIZER.to_owned()),
            _ => return Ok(Outcome::Done),
        }
        let meta = object.meta();
        let patch = json!({ "metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers,
        } });
        let patched =
            K::api(&self.client, &key.namespace).patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        match error::gone_is_fine(patched) {
            // It has changed meanwhile, and that will wake us.
            Err(error) if error::is_conflict(&error) => Ok(Outcome::Done),
            other => other.map(|_| Outcome::Done).map_err(Error::from),
        }
    }
}

/// Runs the controllers until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let pods = context.informers.get::<Pod>();
    let claims_informer = context.informers.get::<PersistentVolumeClaim>();
    let volumes = context.informers.get::<PersistentVolume>();
    let (claim_queue, volume_queue, class_queue) = (Queue::new(), Queue::new(), Queue::new());
    // A Pod that goes or ends may have been the last to use its claims.
    let from_pods = feed(pods.subscribe(), &cancel, |change| {
        for pod in change.sides() {
            let namespace = pod.namespace().unwrap_or_default();
            claims(pod).into_iter().for_each(|name| claim_queue.add(ObjectKey::new(namespace.clone(), name)));
        }
    });
    let from_claims = feed(claims_informer.subscribe(), &cancel, |change| {
        let names = change.sides().flat_map(|claim| classes(claim));
        names.for_each(|name| class_queue.add(ObjectKey::new("", name)));
    });
    let from_volumes = feed(volumes.subscribe(), &cancel, |change| {
        let names = change.sides().filter_map(|volume| class_of(volume).cloned());
        names.for_each(|name| class_queue.add(ObjectKey::new("", name)));
    });
    tokio::join!(
        from_pods,
        from_claims,
        from_volumes,
        protect::<PersistentVolumeClaim>(&context, claim_queue.clone(), &cancel),
        protect::<PersistentVolume>(&context, volume_queue, &cancel),
        protect::<VolumeAttributesClass>(&context, class_queue.clone(), &cancel),
    );
}

async fn protect<K: Protected>(context: &Context, queue: Queue<ObjectKey>, cancel: &CancellationToken) {
    let controller =
        Arc::new(Controller { client: context.acting_as(K::ACCOUNT).client, objects: context.informers.get::<K>() });
    let changes = feed(controller.objects.subscribe(), cancel, |change| queue.add(change.key()));
    let work = wherry_reconcile::run(K::NAME, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(changes, work);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn pod(deleted: bool) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "mine"}},
                {"name": "b", "ephemeral": {}},
                {"name": "c", "emptyDir": {}},
            ]},
        }))
        .unwrap();
        if deleted {
            pod.metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
            pod.metadata.deletion_grace_period_seconds = Some(0);
        }
        pod
    }

    #[test]
    fn a_pod_uses_its_claims_and_until_its_end_those_made_for_it() {
        let names = |pod: &Pod| claims(pod).into_iter().collect::<Vec<_>>();
        assert_eq!(names(&pod(false)), ["mine", "p-b"]);
        assert_eq!(names(&pod(true)), ["mine"]);
        assert!(!is_bound(&pod(false)));
    }
}
