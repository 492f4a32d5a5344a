//! Garbage collection: deletes objects whose owners are gone.
//!
//! Each change of any object updates the [`graph`]; objects that might be garbage are queued by UID and looked at:
//! - all owners gone: it is deleted, by the way that its own finalizers ask for;
//! - some gone, some not: the references to those that are gone are removed;
//! - an owner is being deleted in the *foreground*: its dependents go first, then it (in a circle of owners one of them stops
//!   being waited for);
//! - an owner is being deleted as an *orphan*: its references are removed from its dependents, then it goes.
//!
//! Guarantees: an owner counts as gone only when the server says so, not because the cache lacks it; every deletion and
//! patch names the UID and the version that the decision was made on.

mod graph;

use std::sync::Arc;

use graph::{FOREGROUND, Graph, Node, ORPHAN, Owner};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Outcome, Queue, Reconciler};

use crate::{
    catalog::{Observer, Resource},
    context::Context,
    error::{self, Error},
};

const NAME: &str = "garbage-collector-controller";
const WORKERS: usize = 16;

/// The collector.
pub(crate) struct Collector {
    context: Context,
    resources: Vec<Arc<Resource>>,
    graph: Mutex<Graph>,
    queue: Queue<String>,
}

impl Collector {
    pub(crate) fn new(context: Context, resources: Vec<Arc<Resource>>) -> Arc<Self> {
        Arc::new(Self { context, resources, graph: Mutex::new(Graph::default()), queue: Queue::new() })
    }

    /// Runs the collector until `cancel`.
    pub(crate) async fn run(self: Arc<Self>, cancel: CancellationToken) {
        wherry_reconcile::run(NAME, self.queue.clone(), WORKERS, self.clone(), cancel).await;
    }

    fn resource_of(&self, owner: &OwnerReference) -> Option<&Arc<Resource>> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.resources.iter().find(|resource| resource.is(group, &owner.kind))
    }

    /// Asks the server whether an owner that the graph does not know exists.
    async fn is_gone(&self, node: &Node, owner: &OwnerReference) -> Result<bool, Error> {
        let Some(resource) = self.resource_of(owner) else {
            return Err(Error::Partial(format!("no kind {} in {}", owner.kind, owner.api_version)));
        };
        // A cluster-scoped object cannot be owned by a namespaced one: such an owner cannot be looked up.
        if resource.namespaced && node.namespace.is_empty() {
            return Err(Error::Partial(format!("{} names the namespaced owner {}", node.name, owner.name)));
        }
        let api = resource.objects(&self.context.client, &node.namespace);
        let found = error::gone_is_fine(api.get(&owner.name).await)?;
        Ok(found.is_none_or(|found| found.metadata.uid.as_ref() != Some(&owner.uid)))
    }

    async fn collect(&self, node: &Node) -> Result<(), Error> {
        let mut solid = false;
        let mut waiting = Vec::new();
        let mut dangling = Vec::new();
        for owner in &node.owners {
            let kind = self.graph.lock().classify(node, owner);
            match kind {
                Owner::Solid => solid = true,
                Owner::Waiting => waiting.push(owner.uid.clone()),
                Owner::Unknown if self.is_gone(node, owner).await? => dangling.push(owner.uid.clone()),
                Owner::Unknown => solid = true,
            }
        }
        if solid {
            dangling.extend(waiting);
            return self.disown(node, &dangling).await;
        }
        if node.owners.is_empty() {
            return Ok(());
        }
        let (has_dependents, is_in_circle) = {
            let graph = self.graph.lock();
            (graph.dependents(&node.uid).next().is_some(), graph.dependents(&node.uid).any(Node::awaits_dependents))
        };
        if !waiting.is_empty() && is_in_circle {
            // Its owner waits for it, and it would wait for a dependent that waits as well: perhaps, over others, for the owner.
            // Somebody has to stop being waited for, or all wait for ever.
            return self.unblock(node, waiting.len()).await;
        }
        let policy = match () {
            () if !waiting.is_empty() && has_dependents => PropagationPolicy::Foreground,
            () if node.has(ORPHAN) => PropagationPolicy::Orphan,
            () if node.has(FOREGROUND) => PropagationPolicy::Foreground,
            () => PropagationPolicy::Background,
        };
        self.delete(node, policy).await
    }

    async fn delete(&self, node: &Node, policy: PropagationPolicy) -> Result<(), Error> {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: Some(node.uid.clone()),
                resource_version: Some(node.version.clone()),
            }),
            ..DeleteParams::default()
        };
        let api = node.resource.objects(&self.context.client, &node.namespace);
        error::gone_is_fine(api.delete(&node.name, &params).await)?;
        Ok(())
    }

    /// Lets the owners of an object go before it does, and deletes it in the foreground.
    async fn unblock(&self, node: &Node, waiting: usize) -> Result<(), Error> {
        let blocking = node.owners.iter().filter(|owner| owner.block_owner_deletion == Some(true)).count();
        if blocking == 0 {
            return self.delete(node, PropagationPolicy::Foreground).await;
        }
        tracing::debug!(name = node.name, waiting, "a circle of owners is broken");
        let owners = node.owners.iter().cloned();
        let owners: Vec<_> =
            owners.map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner }).collect();
        // The change brings the object here again.
        self.patch(node, json!({ "ownerReferences": owners })).await
    }

    /// Removes references to the owners with these UIDs.
    async fn disown(&self, node: &Node, owners: &[String]) -> Result<(), Error> {
        if owners.is_empty() {
            return Ok(());
        }
        let kept: Vec<_> = node.owners.iter().filter(|owner| !owners.contains(&owner.uid)).collect();
        let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
        self.patch(node, json!({ "ownerReferences": kept })).await
    }

    async fn remove_finalizer(&self, node: &Node, finalizer: &str) -> Result<(), Error> {
        let kept: Vec<_> = node.finalizers.iter().filter(|known| *known != finalizer).collect();
        let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
        self.patch(node, json!({ "finalizers": kept })).await
    }

    async fn patch(&self, node: &Node, mut metadata: Value) -> Result<(), Error> {
        metadata["uid"] = json!(node.uid);
        metadata["resourceVersion"] = json!(node.version);
        let api = node.resource.objects(&self.context.client, &node.namespace);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        error::gone_is_fine(api.patch(&node.name, &PatchParams::default(), &patch).await)?;
        Ok(())
    }

    /// The dependents of an owner that waits for them: they are looked at; when none blocks it any more, it may go.
    async fn await_dependents(&self, node: &Node) -> Result<(), Error> {
        let (blocked, dependents) = {
            let graph = self.graph.lock();
            let pending = graph.dependents(&node.uid).filter(|dependent| !dependent.deleting);
            (graph.is_blocked(&node.uid), pending.map(|dependent| dependent.uid.clone()).collect::<Vec<_>>())
        };
        if !blocked {
            return self.remove_finalizer(node, FOREGROUND).await;
        }
        dependents.into_iter().for_each(|uid| self.queue.add(uid));
        Ok(())
    }

    async fn orphan_dependents(&self, node: &Node) -> Result<(), Error> {
        let dependents: Vec<Node> = self.graph.lock().dependents(&node.uid).cloned().collect();
        for dependent in dependents {
            self.disown(&dependent, std::slice::from_ref(&node.uid)).await?;
        }
        self.remove_finalizer(node, ORPHAN).await
    }
}

impl Observer for Collector {
    fn observe(&self, resource: &Arc<Resource>, old: Option<&ObjectMeta>, new: Option<&ObjectMeta>) {
        let mut graph = self.graph.lock();
        let mut look = Vec::new();
        // A name that was taken by another object: the earlier one is gone.
        if let Some(uid) = old.and_then(|old| old.uid.as_ref())
            && new.and_then(|new| new.uid.as_ref()) != Some(uid)
        {
            look.extend(graph.remove(uid));
        }
        if let Some(new) = new {
            look.extend(graph.put(Node::of(resource, new)));
        }
        drop(graph);
        look.into_iter().for_each(|uid| self.queue.add(uid));
    }
}

impl Reconciler<String> for Collector {
    type Error = Error;

    async fn reconcile(&self, uid: String) -> Result<Outcome, Error> {
        let Some(node) = self.graph.lock().get(&uid).cloned() else {
            return Ok(Outcome::Done);
        };
        if node.orphans_dependents() {
            self.orphan_dependents(&node).await?;
        } else if node.awaits_dependents() {
            self.await_dependents(&node).await?;
        } else if !node.deleting {
            self.collect(&node).await?;
        }
        Ok(Outcome::Done)
    }
}
