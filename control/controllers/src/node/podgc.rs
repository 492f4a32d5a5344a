//! Pods that nobody will finish: bound to a Node that no longer exists, or being deleted without ever having had one.
//!
//! A Node that is missing is given 40 seconds to come back (it may be registering anew), then the server is asked; if it
//! is gone, its Pods are marked Failed and removed at once, since no agent is left to confirm their end.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Informer, Outcome, Queue, Reconciler};

use crate::{
    context::{Context, feed},
    error::{self, Error},
    pods,
};

const NAME: &str = "pod-garbage-collector";
const QUARANTINE: Duration = Duration::from_secs(40);

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// Since when a Node that Pods are bound to has been missing.
    missing: Mutex<HashMap<String, Instant>>,
}

/// Runs the controller until `cancel`. Its keys are names of Nodes; the empty one stands for Pods without a Node.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        nodes: context.informers.get(),
        pods: context.informers.get(),
        missing: Mutex::default(),
        context,
    });
    pods::index(&controller.pods);
    let synced = async { controller.nodes.synced().await && controller.pods.synced().await };
    if cancel.run_until_cancelled(synced).await != Some(true) {
        return;
    }
    let queue: Queue<String> = Queue::new();
    let nodes = feed(controller.nodes.subscribe(), &cancel, |change| {
        if change.new.is_none() {
            queue.add(change.key().name);
        }
    });
    let pods = feed(controller.pods.subscribe(), &cancel, |change| {
        let Some(pod) = &change.new else { return };
        match pods::node_of(pod) {
            Some(node) if controller.nodes.get("", node).is_none() => queue.add(node.to_owned()),
            None if pods::is_deleting(pod) => queue.add(String::new()),
            _ => {}
        }
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), 2, controller.clone(), cancel.clone());
    tokio::join!(nodes, pods, work);
}

impl Controller {
    async fn remove(&self, pod: &Pod, reason: &str) -> Result<(), Error> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
        if !pods::is_terminal(pod) {
            let condition = json!({
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": format!("PodGC: {reason}"),
                "lastTransitionTime": Time(Timestamp::now()),
            });
            let patch = json!({
                "metadata": { "uid": pod.metadata.uid },
                "status": { "phase": "Failed", "conditions": [condition] },
            });
            let patched = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
            if error::gone_is_fine(patched)?.is_none() {
                return Ok(());
            }
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default().grace_period(0)
        };
        error::gone_is_fine(api.delete(name, &params).await)?;
        Ok(())
    }
}

impl Reconciler<String> for Controller {
    type Error = Error;

    async fn reconcile(&self, node: String) -> Result<Outcome, Error> {
        if node.is_empty() {
            let pods = self.pods.list();
            for pod in pods.iter().filter(|pod| pods::is_deleting(pod) && pods::node_of(pod).is_none()) {
                self.remove(pod, "pod is terminating and was never scheduled").await?;
            }
            return Ok(Outcome::Done);
        }
        let pods = self.pods.by_index(pods::BY_NODE, &node);
        if pods.is_empty() || self.nodes.get("", &node).is_some() {
            self.missing.lock().remove(&node);
            return Ok(Outcome::Done);
        }
        let missing = self.missing.lock().entry(node.clone()).or_insert_with(Instant::now).elapsed();
        if let Some(left) = QUARANTINE.checked_sub(missing).filter(|left| !left.is_zero()) {
            return Ok(Outcome::After(left));
        }
        let api: Api<Node> = Api::all(self.context.client.clone());
        if api.get_opt(&node).await?.is_none() {
            for pod in pods {
                self.remove(&pod, "node no longer exists").await?;
            }
        }
        self.missing.lock().remove(&node);
        Ok(Outcome::Done)
    }
}
