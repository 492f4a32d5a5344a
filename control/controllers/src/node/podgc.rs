//! Pods that nobody will finish: bound to a Node that no longer exists, or being deleted without ever having had one; and Pods
//! that ended, where nobody takes them away and there are too many.
//!
//! A Node that is missing is given 40 seconds to come back (it may be registering anew), then the server is asked; if it
//! is gone, its Pods are marked Failed and removed at once, since no agent is left to confirm their end.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

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
use wherry_reconcile::{Feeds, Informer, Outcome, Reconciler};

use crate::{
    context::Context,
    error::{self, Error},
    pods,
};

const NAME: &str = "pod-garbage-collector";
const QUARANTINE: Duration = Duration::from_secs(40);
/// How many Pods that ended may stay for whoever wants to look at them.
const ENDED: usize = 12_500;
/// The index of Pods that ended, under one key.
const BY_END: &str = "ended";

/// Work.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Task {
    /// Pods of this Node.
    OfNode(String),
    /// Pods being deleted that have no Node.
    Unscheduled,
    /// The oldest Pods that ended.
    Ended,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfNode(node) => f.write_str(node),
            Self::Unscheduled => f.write_str("Pods without a node"),
            Self::Ended => f.write_str("Pods that ended"),
        }
    }
}

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// Since when a Node that Pods are bound to has been missing.
    missing: Mutex<HashMap<String, Instant>>,
}

/// Runs the controller until `cancel`.
pub(crate) async fn run(context: Context, cancel: CancellationToken) {
    let controller = Arc::new(Controller {
        nodes: context.informers.get(),
        pods: context.informers.get(),
        missing: Mutex::default(),
        context,
    });
    pods::index(&controller.pods);
    controller.pods.index(BY_END, |pod| pods::is_terminal(pod).then(String::new).into_iter().collect());
    let nodes = controller.nodes.clone();
    let mut ended: usize = 0;
    Feeds::new()
        .on(&controller.nodes, |change| change.new.is_none().then(|| Task::OfNode(change.key().name)))
        .on(&controller.pods, move |change| {
            let had_ended = change.old.as_deref().is_some_and(pods::is_terminal);
            let has_ended = change.new.as_deref().is_some_and(pods::is_terminal);
            ended = (ended + usize::from(has_ended)).saturating_sub(usize::from(had_ended));
            let too_many = (has_ended && !had_ended && ended > ENDED).then_some(Task::Ended);
            let pod = change.new.as_ref();
            let task = pod.and_then(|pod| match pods::node_of(pod) {
                Some(node) if nodes.get("", node).is_none() => Some(Task::OfNode(node.to_owned())),
                None if pods::is_deleting(pod) => Some(Task::Unscheduled),
                _ => None,
            });
            too_many.into_iter().chain(task)
        })
        .run(NAME, 2, controller.clone(), cancel)
        .await;
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

/// The Pods that go so that `most` stay: those that were made first.
fn oldest(mut ended: Vec<Arc<Pod>>, most: usize) -> Vec<Arc<Pod>> {
    let surplus = ended.len().saturating_sub(most);
    let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    ended.sort_by(|a, b| (age(a), &a.metadata.name).cmp(&(age(b), &b.metadata.name)));
    ended.truncate(surplus);
    ended
}

impl Controller {
    async fn remove_of_node(&self, node: String) -> Result<Outcome, Error> {
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

impl Reconciler<Task> for Controller {
    type Error = Error;

    async fn reconcile(&self, task: Task) -> Result<Outcome, Error> {
        match task {
            Task::OfNode(node) => return self.remove_of_node(node).await,
            Task::Unscheduled => {
                let pods = self.pods.list();
                for pod in pods.iter().filter(|pod| pods::is_deleting(pod) && pods::node_of(pod).is_none()) {
                    self.remove(pod, "pod is terminating and was never scheduled").await?;
                }
            }
            Task::Ended => {
                for pod in oldest(self.pods.by_index(BY_END, ""), ENDED) {
                    self.remove(&pod, "too many ended").await?;
                }
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_first_made_go() {
        let pod = |name: &str, second: i64| {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name.to_owned());
            pod.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
            Arc::new(pod)
        };
        let gone = oldest(vec![pod("b", 2), pod("c", 3), pod("a", 1)], 1);
        assert_eq!(gone.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(oldest(vec![pod("a", 1)], 1).is_empty());
    }
}
