//! What a client sees of all Pods: one watch, and what it has told so far.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Client, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// When each Pod was first seen to have a node, and to be Ready, by name. What is gone is not in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) bound: HashMap<String, Instant>,
    pub(crate) ready: HashMap<String, Instant>,
}

/// A running watch, and tasks that live as long.
pub(crate) struct Watch {
    seen: watch::Receiver<Seen>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Watch {
    /// Watches all Pods; each state of each is handed on where somebody wants it.
    pub(crate) fn start(client: &Client, hand_on: Option<mpsc::UnboundedSender<Pod>>) -> Self {
        let (tell, seen) = watch::channel(Seen::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(look(Api::all(client.clone()), tell, hand_on));
        Self { seen, tasks }
    }

    /// Lets another task run beside; should it end, the next wait fails.
    pub(crate) fn beside(&mut self, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until what is seen is as wanted.
    pub(crate) async fn wait(&mut self, limit: Duration, wanted: impl Fn(&Seen) -> bool) -> anyhow::Result<Seen> {
        let seen = self.seen.clone();
        tokio::select! {
            seen = self.seen.wait_for(|seen| wanted(seen)) => Ok(seen.context("the watch ended")?.clone()),
            ended = self.tasks.join_next() => match ended {
                Some(Ok(Err(error))) => Err(error),
                other => bail!("what runs beside the watch ended: {other:?}"),
            },
            () = tokio::time::sleep(limit) => {
                let seen = seen.borrow();
                bail!("after {limit:?} {} Pods have nodes and {} are Ready", seen.bound.len(), seen.ready.len())
            }
        }
    }
}

/// Whether a Pod has the condition Ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn look(
    pods: Api<Pod>,
    tell: watch::Sender<Seen>,
    hand_on: Option<mpsc::UnboundedSender<Pod>>,
) -> anyhow::Result<()> {
    let mut events = watcher::watcher(pods, watcher::Config::default()).boxed();
    while let Some(event) = events.try_next().await.context("watch the Pods")? {
        let now = Instant::now();
        match event {
            Event::Apply(pod) | Event::InitApply(pod) => {
                let name = pod.name_any();
                let bound = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
                tell.send_if_modified(|seen| {
                    let newly_bound = note(&mut seen.bound, &name, bound, now);
                    let newly_ready = note(&mut seen.ready, &name, is_ready(&pod), now);
                    newly_bound || newly_ready
                });
                if let Some(hand_on) = &hand_on {
                    hand_on.send(pod).context("nobody takes Pods any more")?;
                }
            }
            Event::Delete(pod) => tell.send_modify(|seen| {
                seen.bound.remove(&pod.name_any());
                seen.ready.remove(&pod.name_any());
            }),
            Event::Init | Event::InitDone => {}
        }
    }
    bail!("the watch of the Pods ended")
}

/// Notes since when something is so. Says whether it changed.
fn note(since: &mut HashMap<String, Instant>, name: &str, is_so: bool, now: Instant) -> bool {
    match (since.contains_key(name), is_so) {
        (false, true) => since.insert(name.to_owned(), now).is_none(),
        (true, false) => since.remove(name).is_some(),
        _ => false,
    }
}
