//! Assigns `spec.podCIDR`. One worker, so that no two Nodes are given the same share.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::error;
use wherry_reconcile::{
    EventType, Expectations, Informer, ObjectKey, Outcome, Queue, Reconciler, Recorder, informer::revision_of,
};

use super::cidr::Blocks;
use crate::{
    context::{Context, feed},
    error::{self, Error},
};

const NAME: &str = "node-ipam-controller";

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    recorder: Recorder,
    blocks: Blocks,
    written: Expectations,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cluster_cidr: String, node_mask: u8, cancel: CancellationToken) {
    let Some(blocks) = Blocks::new(&cluster_cidr, node_mask) else {
        error!(cluster_cidr, node_mask, "the cluster's addresses cannot be divided among nodes");
        return;
    };
    let controller = Arc::new(Controller {
        nodes: context.informers.get(),
        recorder: context.recorders.component(NAME),
        blocks,
        written: Expectations::default(),
        context,
    });
    if cancel.run_until_cancelled(controller.nodes.synced()).await != Some(true) {
        return;
    }
    let queue = Queue::new();
    let nodes = feed(controller.nodes.subscribe(), &cancel, |_| {
        // Any change may be what somebody waits for: a new Node, a share set free, or our own last write.
        let nodes = controller.nodes.list();
        nodes.iter().filter(|node| assigned(node).is_none()).for_each(|node| queue.add(ObjectKey::of(&**node)));
    });
    let work = wherry_reconcile::run(NAME, queue.clone(), 1, controller.clone(), cancel.clone());
    tokio::join!(nodes, work);
}

fn assigned(node: &Node) -> Option<&str> {
    let cidr = node.spec.as_ref()?.pod_cidr.as_deref()?;
    (!cidr.is_empty()).then_some(cidr)
}

impl Controller {
    fn is_current(&self) -> bool {
        self.written.satisfied(&ObjectKey::default(), self.nodes.revision(), |_| false)
    }

    fn taken(&self) -> HashSet<u32> {
        let nodes = self.nodes.list();
        nodes.iter().filter_map(|node| assigned(node)).flat_map(|cidr| self.blocks.touched(cidr)).collect()
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(node) = self.nodes.get_key(&key).filter(|node| assigned(node).is_none()) else {
            return Ok(Outcome::Done);
        };
        if !self.is_current() {
            return Ok(Outcome::Behind);
        }
        let Some(cidr) = self.blocks.free(&self.taken()) else {
            let text = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.recorder.on(&*node, EventType::Normal, "CIDRNotAvailable", text);
            return Ok(Outcome::Done);
        };
        let patch = json!({
            "metadata": { "uid": node.metadata.uid },
            "spec": { "podCIDR": cidr, "podCIDRs": [cidr] },
        });
        let api: Api<Node> = Api::all(self.context.client.clone());
        let patched = api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        if let Some(updated) = error::gone_is_fine(patched)? {
            self.written.wrote(&ObjectKey::default(), revision_of(&updated));
        }
        Ok(Outcome::Done)
    }
}
