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
    let mut ended = Ended::default();
    Feeds::new()
        .on(&controller.nodes, |change| change.new.is_none().then(|| Task::OfNode(change.key().name)))
        .on(&controller.pods, move |change| {
            let grew = ended.follow(change.old.as_deref(), change.new.as_deref());
            let too_many = (grew && ended.0 > ENDED).then_some(Task::Ended);
            let task = change.new.as_deref().and_then(|pod| adrift(pod, |node| nodes.get("", node).is_some()));
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

/// How many Pods there are that ended.
#[derive(Default)]
struct Ended(usize);

impl Ended {
    /// Takes a change into account; whether there is one more.
    fn follow(&mut self, old: Option<&Pod>, new: Option<&Pod>) -> bool {
        let (had, has) = (old.is_some_and(pods::is_terminal), new.is_some_and(pods::is_terminal));
        self.0 = (self.0 + usize::from(has)).saturating_sub(usize::from(had));
        has && !had
    }
}

/// What is to be looked at because of a Pod that nobody will finish.
fn adrift(pod: &Pod, exists: impl Fn(&str) -> bool) -> Option<Task> {
    match pods::node_of(pod) {
        Some(node) => (!exists(node)).then(|| Task::OfNode(node.to_owned())),
        None => pods::is_deleting(pod).then_some(Task::Unscheduled),
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
                for pod in pods.iter().filter(|pod| adrift(pod, |_| true) == Some(Task::Unscheduled)) {
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
    use proptest::prelude::*;

    use super::*;

    fn made(name: usize, second: i64, phase: &str, node: Option<usize>, deleting: bool) -> Pod {
        let mut pod = Pod::default();
        let time = Time(Timestamp::from_second(second).unwrap());
        pod.metadata.name = Some(format!("p{name}"));
        pod.metadata.deletion_timestamp = deleting.then(|| time.clone());
        pod.metadata.creation_timestamp = Some(time);
        pod.spec.get_or_insert_default().node_name = node.map(|node| format!("n{node}"));
        pod.status.get_or_insert_default().phase = Some(phase.to_owned());
        pod
    }

    proptest! {
        #[test]
        fn as_many_stay_as_may_and_none_that_is_older_than_who_goes(
            ages in prop::collection::vec(0i64..5, 0..12), most in 0usize..8, turn in any::<prop::sample::Index>(),
        ) {
            let pods: Vec<_> = ages.iter().enumerate().map(|(n, age)| Arc::new(made(n, *age, "Failed", None, false))).collect();
            let gone = oldest(pods.clone(), most);
            let stay: Vec<_> = pods.iter().filter(|pod| !gone.contains(pod)).cloned().collect();
            prop_assert_eq!(stay.len(), pods.len().min(most));
            let age = |pod: &Arc<Pod>| pod.metadata.creation_timestamp.clone();
            prop_assert!(gone.iter().all(|gone| stay.iter().all(|stays| age(gone) <= age(stays))));
            let mut turned = pods.clone();
            turned.rotate_left(if pods.is_empty() { 0 } else { turn.index(pods.len()) });
            prop_assert_eq!(oldest(turned, most), gone, "in whatever order they are told");
            prop_assert!(oldest(stay, most).is_empty(), "once is enough");
        }

        #[test]
        fn the_count_is_that_of_the_pods_that_ended(
            changes in prop::collection::vec((0usize..4, prop::option::of(0usize..4)), 0..40),
        ) {
            let mut pods: std::collections::BTreeMap<usize, Pod> = std::collections::BTreeMap::new();
            let mut ended = Ended::default();
            for (name, phase) in changes {
                let old = pods.remove(&name);
                let new = phase.map(|phase| made(name, 0, ["Pending", "Running", "Failed", "Succeeded"][phase], None, false));
                let before = ended.0;
                let grew = ended.follow(old.as_ref(), new.as_ref());
                prop_assert_eq!(grew, ended.0 > before);
                pods.extend(new.map(|new| (name, new)));
                prop_assert_eq!(ended.0, pods.values().filter(|pod| pods::is_terminal(pod)).count());
            }
        }

        #[test]
        fn a_pod_whose_node_is_there_is_left_to_it(node in prop::option::of(0usize..3), there in any::<[bool; 3]>(), deleting in any::<bool>()) {
            let pod = made(0, 0, "Running", node, deleting);
            let task = adrift(&pod, |name| there.iter().enumerate().any(|(n, there)| *there && format!("n{n}") == name));
            match node {
                Some(node) => prop_assert_eq!(task, (!there[node]).then(|| Task::OfNode(format!("n{node}")))),
                None => prop_assert_eq!(task.is_some(), deleting, "who waits for a node is not lost"),
            }
        }
    }

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
