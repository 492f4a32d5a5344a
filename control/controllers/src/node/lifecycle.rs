//! Whether Nodes are alive. A Node renews its Lease; one that has been silent for too long is marked Unknown, its Pods are
//! marked not Ready (so that Services drop them at once), and taints keep new Pods away and, unless every Node is silent,
//! make its Pods leave. When all are silent the fault is more likely ours.
//!
//! Silence is measured by our own clock, from the moment at which we last saw a renewal.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, NodeCondition, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Change, EventType, Filter, Informer, ObjectKey, Outcome, Queue, Reconciler, Recorder, nodes};

use super::taints;
use crate::{
    context::{Context, feed},
    error::{self, Error},
    pods,
};

const NAME: &str = "node-controller";
const WORKERS: usize = 4;
/// After this long without a sign of life a Node counts as lost. Upstream's default.
const GRACE: Duration = Duration::from_secs(50);
/// The conditions that nobody can know once a Node is silent.
const OBSERVED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    recorder: Recorder,
    /// When each Node was last heard.
    heard: Mutex<HashMap<String, Instant>>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let leases: Informer<Lease> =
        context.informers.get_filtered(Filter { namespace: Some("kube-node-lease".into()), ..Filter::default() });
    let controller = Arc::new(Controller {
        nodes: context.informers.get(),
        pods: context.informers.get(),
        recorder: context.recorders.component(NAME),
        heard: Mutex::default(),
        context,
    });
    pods::index(&controller.pods);
    let synced = async { controller.nodes.synced().await && controller.pods.synced().await && leases.synced().await };
    if cancel.run_until_cancelled(synced).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let nodes = feed(controller.nodes.subscribe(), &cancel, |change| {
        controller.observe(&change, &queue);
    });
    let renewals = feed(leases.subscribe(), &cancel, |change| {
        if let Some(lease) = &change.new {
            controller.hear(&lease.name_any());
        }
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), WORKERS, controller.clone(), cancel.clone());
    tokio::join!(nodes, renewals, work);
}

impl Controller {
    fn hear(&self, node: &str) {
        if let Some(heard) = self.heard.lock().get_mut(node) {
            *heard = Instant::now();
        }
    }

    fn observe(&self, change: &Change<Node>, queue: &Queue<ObjectKey>) {
        let Some(node) = &change.new else {
            self.heard.lock().remove(&change.key().name);
            return self.wake_all(queue);
        };
        let ready = nodes::is_ready(node);
        let was_ready = change.old.as_deref().map(nodes::is_ready);
        let beat = |node: &Node| heartbeat(node).cloned();
        if was_ready.is_none() {
            self.heard.lock().insert(node.name_any(), Instant::now());
        } else if change.old.as_deref().and_then(beat) != beat(node) {
            self.hear(&node.name_any());
        }
        queue.add(change.key());
        // The first Node to be alive, or the last, changes what becomes of the others' Pods.
        if was_ready != Some(ready) {
            self.wake_all(queue);
        }
    }

    fn wake_all(&self, queue: &Queue<ObjectKey>) {
        let nodes = self.nodes.list();
        nodes.iter().filter(|node| !nodes::is_ready(node)).for_each(|node| queue.add(ObjectKey::of(&**node)));
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.context.client.clone())
    }

    /// Marks what a silent Node reported as unknown.
    async fn mark_unknown(&self, node: &Node) -> Result<Option<Node>, Error> {
        let conditions = unknown_conditions(node, Timestamp::now());
        if conditions.is_empty() {
            return Ok(None);
        }
        let text = format!("Node {} status is now: NodeNotReady", node.name_any());
        self.recorder.on(node, EventType::Normal, "NodeNotReady", text);
        let patch = json!({ "metadata": { "uid": node.metadata.uid }, "status": { "conditions": conditions } });
        let patched =
            self.api().patch_status(&node.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await;
        Ok(error::gone_is_fine(patched)?)
    }

    /// Makes Services drop the Pods of a Node that is not Ready.
    async fn mark_pods(&self, node: &Node) -> Result<(), Error> {
        let now = Timestamp::now();
        for pod in self.pods.by_index(pods::BY_NODE, &node.name_any()) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let condition = json!({ "type": "Ready", "status": "False", "lastTransitionTime": Time(now) });
            let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
            let patched = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await;
            error::gone_is_fine(patched)?;
            self.recorder.on(&*pod, EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }

    async fn sync_taints(&self, node: &Node) -> Result<(), Error> {
        let evict = self.nodes.list().iter().any(|node| nodes::is_ready(node));
        let existing = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let wanted = taints::wanted(node, evict, Timestamp::now());
        if existing == wanted {
            return Ok(());
        }
        // The list is replaced as a whole: exactly the one that was read.
        let patch = json!({
            "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
            "spec": { "taints": if wanted.is_empty() { serde_json::Value::Null } else { json!(wanted) } },
        });
        let patched = self.api().patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        error::gone_is_fine(patched)?;
        Ok(())
    }

    fn silence(&self, node: &str) -> Duration {
        let mut heard = self.heard.lock();
        heard.entry(node.to_owned()).or_insert_with(Instant::now).elapsed()
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(mut node) = self.nodes.get_key(&key) else {
            return Ok(Outcome::Done);
        };
        let silence = self.silence(&key.name);
        if silence >= GRACE
            && let Some(updated) = self.mark_unknown(&node).await?
        {
            node = Arc::new(updated);
        }
        self.sync_taints(&node).await?;
        if nodes::condition(&node, "Ready").is_some_and(|status| status != "True") {
            self.mark_pods(&node).await?;
        }
        Ok(match GRACE.checked_sub(silence).filter(|left| !left.is_zero()) {
            Some(left) => Outcome::After(left),
            None => Outcome::Done,
        })
    }
}

fn heartbeat(node: &Node) -> Option<&Time> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    ready.last_heartbeat_time.as_ref()
}

/// The conditions that have to become Unknown.
fn unknown_conditions(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let known = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    OBSERVED
        .iter()
        .filter_map(|kind| {
            let before = known.iter().find(|condition| condition.type_ == *kind);
            if before.is_some_and(|before| before.status == "Unknown") {
                return None;
            }
            let (reason, message) = match before {
                Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            let heartbeat = before.and_then(|before| before.last_heartbeat_time.clone());
            Some(NodeCondition {
                type_: (*kind).to_owned(),
                status: "Unknown".into(),
                reason: Some(reason.into()),
                message: Some(message.into()),
                last_heartbeat_time: heartbeat.or_else(|| node.metadata.creation_timestamp.clone()),
                last_transition_time: Some(Time(now)),
            })
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use k8s_openapi::api::core::v1::NodeStatus;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn silence_is_told_of_all_that_is_observed_and_of_nothing_else(
            known in prop::collection::btree_map(0usize..6, (0usize..3, prop::option::of(0i64..9)), 0..6),
        ) {
            let kinds = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable", "Foreign"];
            let at = |second| Time(Timestamp::from_second(second).unwrap());
            let conditions: Vec<_> = known.iter().map(|(kind, (status, beat))| NodeCondition {
                type_: kinds[*kind].into(),
                status: ["True", "False", "Unknown"][*status].into(),
                last_heartbeat_time: beat.map(at),
                ..Default::default()
            }).collect();
            let mut node = Node::default();
            node.metadata.creation_timestamp = Some(at(0));
            node.status.get_or_insert_default().conditions = Some(conditions.clone());
            let told = unknown_conditions(&node, Timestamp::from_second(20).unwrap());
            // What a merge by type makes of it.
            let mut merged = conditions.clone();
            merged.retain(|before| !told.iter().any(|now| now.type_ == before.type_));
            let spared = merged.clone();
            merged.extend(told.clone());
            prop_assert!(spared.iter().all(|c| c.status == "Unknown" || !OBSERVED.contains(&c.type_.as_str())), "{:?}", spared);
            node.status.get_or_insert_default().conditions = Some(merged);
            for kind in OBSERVED {
                prop_assert_eq!(nodes::condition(&node, kind), Some("Unknown"));
            }
            prop_assert!(!nodes::is_ready(&node));
            for now in &told {
                let before = conditions.iter().find(|before| before.type_ == now.type_);
                let beat = before.and_then(|before| before.last_heartbeat_time.clone()).unwrap_or(at(0));
                prop_assert_eq!(now.last_heartbeat_time.clone(), Some(beat), "when it was last heard stays known");
            }
            prop_assert!(unknown_conditions(&node, Timestamp::from_second(30).unwrap()).is_empty(), "once is enough");
        }
    }

    #[test]
    fn unknown_is_told_once_and_with_its_reason() {
        let mut node = Node {
            status: Some(NodeStatus {
                conditions: Some(vec![NodeCondition {
                    type_: "Ready".into(),
                    status: "True".into(),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let conditions = unknown_conditions(&node, Timestamp::UNIX_EPOCH);
        let reasons: Vec<_> = conditions.iter().map(|condition| condition.reason.as_deref().unwrap()).collect();
        assert_eq!(reasons[0], "NodeStatusUnknown");
        assert!(reasons[1..].iter().all(|reason| *reason == "NodeStatusNeverUpdated"));
        node.status.as_mut().unwrap().conditions = Some(conditions);
        assert!(unknown_conditions(&node, Timestamp::UNIX_EPOCH).is_empty());
    }
}
