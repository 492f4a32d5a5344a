//! Taint-based eviction: a Pod leaves a Node when it does not tolerate a NoExecute taint, at once or when the time that it
//! tolerates it for is over. The times are on the queue's timer heap, one entry a Pod.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{EventType, Informer, ObjectKey, Outcome, Queue, Reconciler, Recorder};

use super::taints::{self, NO_EXECUTE, Stay};
use crate::{
    context::{Context, feed},
    error::{self, Error},
    pods,
};

const NAME: &str = "taint-eviction-controller";
const WORKERS: usize = 8;

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: Recorder,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        nodes: context.informers.get(),
        pods: context.informers.get(),
        recorder: context.recorders.component(NAME),
        context,
    });
    pods::index(&controller.pods);
    let synced = async { controller.nodes.synced().await && controller.pods.synced().await };
    if cancel.run_until_cancelled(synced).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let nodes = feed(controller.nodes.subscribe(), &cancel, |change| {
        let executing = |node: &Node| {
            let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
            taints.filter(|taint| taint.effect == NO_EXECUTE).cloned().collect::<Vec<_>>()
        };
        let (old, new) = (change.old.as_deref().map(executing), change.new.as_deref().map(executing));
        if old.unwrap_or_default() != new.unwrap_or_default() {
            let pods = controller.pods.by_index(pods::BY_NODE, &change.key().name);
            pods.iter().for_each(|pod| queue.add(ObjectKey::of(&**pod)));
        }
    });
    let pods = feed(controller.pods.subscribe(), &cancel, |change| {
        let new = change.new.as_deref().filter(|pod| !pods::is_deleting(pod));
        if new.is_some_and(|pod| !controller.node_taints(pod).is_empty()) {
            queue.add(change.key());
        }
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(nodes, pods, work);
}

impl Controller {
    /// The NoExecute taints of the Pod's Node.
    fn node_taints(&self, pod: &Pod) -> Vec<k8s_openapi::api::core::v1::Taint> {
        let node = pods::node_of(pod).and_then(|name| self.nodes.get("", name));
        let taints = node.and_then(|node| node.spec.as_ref().and_then(|spec| spec.taints.clone()));
        taints.into_iter().flatten().filter(|taint| taint.effect == NO_EXECUTE).collect()
    }

    async fn evict(&self, pod: &Pod, key: &ObjectKey) -> Result<(), Error> {
        let text = format!("Marking for deletion Pod {key}");
        self.recorder.on(pod, EventType::Normal, "TaintManagerEviction", text);
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let condition = json!({
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": Time(Timestamp::now()),
        });
        let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
        let patched = api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
        if error::gone_is_fine(patched)?.is_none() {
            return Ok(());
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        error::gone_is_fine(api.delete(&key.name, &params).await)?;
        Ok(())
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get_key(&key).filter(|pod| !pods::is_deleting(pod)) else {
            return Ok(Outcome::Done);
        };
        match taints::stay(&self.node_taints(&pod), &pod, Timestamp::now()) {
            Stay::Forever => Ok(Outcome::Done),
            Stay::For(left) if left.is_zero() => self.evict(&pod, &key).await.map(|()| Outcome::Done),
            Stay::For(left) => Ok(Outcome::After(left)),
        }
    }
}
