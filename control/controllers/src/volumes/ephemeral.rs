//! Generic ephemeral volumes: the claim that a Pod's `ephemeral` volume describes, made for the Pod and owned by it. With the Pod
//! it goes, by way of the garbage collector.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{EventType, Informer, ObjectKey, Outcome, Queue, Reconciler, Recorder, ownership};

use crate::{
    context::{Context, feed},
    error::{self, Error},
};

const NAME: &str = "ephemeral_volume";
const WORKERS: usize = 4;

struct Controller {
    context: Context,
    recorder: Recorder,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        recorder: context.recorders.component(NAME),
        pods: context.informers.get(),
        claims: context.informers.get(),
        context,
    });
    let synced = async { controller.pods.synced().await && controller.claims.synced().await };
    if cancel.run_until_cancelled(synced).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let pods = feed(controller.pods.subscribe(), &cancel, |change| {
        if change.new.as_ref().is_some_and(|pod| ephemeral(pod).next().is_some()) {
            queue.add(change.key());
        }
    });
    // A claim that was deleted under its Pod is made again.
    let claims = feed(controller.claims.subscribe(), &cancel, |change| {
        let Some(old) = change.old.as_ref().filter(|_| change.new.is_none()) else { return };
        if let Some(owner) = ownership::controller_of(&old.metadata).filter(|owner| owner.kind == "Pod") {
            queue.add(ObjectKey::new(old.metadata.namespace.clone().unwrap_or_default(), owner.name.clone()));
        }
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(pods, claims, work);
}

fn ephemeral(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|volume| volume.ephemeral.is_some())
}

/// The claim of a Pod's ephemeral volume.
fn claim(pod: &Pod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let meta = template.metadata.clone().unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", pod.metadata.name.as_deref()?, volume.name)),
            namespace: pod.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            owner_references: Some(vec![ownership::owner_reference(pod)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get_key(&key) else { return Ok(Outcome::Done) };
        let ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if pod.metadata.deletion_timestamp.is_some() || matches!(ended, Some("Succeeded" | "Failed")) {
            return Ok(Outcome::Done);
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.context.client.clone(), &key.namespace);
        for (volume, wanted) in ephemeral(&pod).filter_map(|volume| Some((volume, claim(&pod, volume)?))) {
            let name = wanted.metadata.name.clone().unwrap_or_default();
            if let Some(known) = self.claims.get(&key.namespace, &name) {
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                if !ownership::is_controlled_by(&known.metadata, uid) {
                    let text = format!(
                        "ephemeral volume {}: PVC \"{}/{name}\" was not created for pod \"{key}\" (pod is not the owner)",
                        volume.name, key.namespace
                    );
                    self.recorder.on(&*pod, EventType::Warning, "FailedBinding", text);
                }
                continue;
            }
            match api.create(&PostParams::default(), &wanted).await {
                Ok(_) => {}
                Err(error) if error::already_exists(&error) || error::is_namespace_terminating(&error) => {}
                Err(error) => {
                    let text =
                        format!("ephemeral volume {}: create PVC {name}: {}", volume.name, error::message(&error));
                    self.recorder.on(&*pod, EventType::Warning, "FailedBinding", text);
                    return Err(error.into());
                }
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_claim_is_named_after_both_and_owned_by_the_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "e", "emptyDir": {}}, {"name": "v", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            }}}]},
        }))
        .unwrap();
        let claims: Vec<_> = ephemeral(&pod).filter_map(|volume| claim(&pod, volume)).collect();
        assert_eq!(claims.len(), 1);
        assert_eq!(claims[0].metadata.name.as_deref(), Some("p-v"));
        assert!(ownership::is_controlled_by(&claims[0].metadata, "u"));
        assert_eq!(claims[0].metadata.labels.as_ref().unwrap()["a"], "b");
    }
}
