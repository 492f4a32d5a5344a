//! How long a node's agent may use what it has read of ConfigMaps and Secrets: the longer, the more nodes would ask.
//!
//! The steps overlap, so that a cluster at the edge of one does not write to all its nodes for each that comes or goes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Feeds, Informer, ObjectKey, Outcome, Reconciler};

use crate::{
    context::Context,
    error::{self, Error},
};

const NAME: &str = "ttl-controller";
const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// Fewest and most nodes of a step, and its seconds.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    step: AtomicUsize,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller { nodes: context.informers.get(), step: AtomicUsize::new(0), context });
    let of_nodes = controller.clone();
    Feeds::new()
        .on(&controller.nodes, move |change| {
            let comes_or_goes = change.old.is_none() || change.new.is_none();
            if comes_or_goes && of_nodes.moves() {
                return of_nodes.nodes.list().iter().map(|node| ObjectKey::of(&**node)).collect();
            }
            change.new.iter().map(|node| ObjectKey::of(&**node)).collect::<Vec<_>>()
        })
        .run(NAME, 2, controller.clone(), cancel)
        .await;
}

/// The step for so many nodes, from the one that held so far.
fn step(nodes: usize, mut step: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

impl Controller {
    /// Whether another step holds from now on.
    fn moves(&self) -> bool {
        let before = self.step.load(Ordering::Relaxed);
        let now = step(self.nodes.list().len(), before);
        self.step.swap(now, Ordering::Relaxed) != now
    }
}

impl Reconciler<ObjectKey> for Controller {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(node) = self.nodes.get_key(&key) else { return Ok(Outcome::Done) };
        let wanted = STEPS[self.step.load(Ordering::Relaxed)].2.to_string();
        let known = node.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION));
        if known != Some(&wanted) {
            let api: Api<Node> = Api::all(self.context.client.clone());
            let patch = json!({ "metadata": { "uid": node.metadata.uid, "annotations": { ANNOTATION: wanted } } });
            error::gone_is_fine(api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        assert_eq!((step(1, 0), step(100, 0), step(101, 0)), (0, 0, 1));
        assert_eq!((step(95, 1), step(89, 1), step(5000, 0), step(1, 4)), (1, 0, 4, 0));
    }
}
