//! The driver: takes events in, decides, and lets bindings go on beside.
//!
//! One task owns the cluster's picture and the queue. It takes in all events that are there, then decides one Pod, and
//! so on; what needs the network (bindings, conditions, questions about images) runs in a bounded set of tasks whose
//! results come back to it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Pod},
        node::v1::RuntimeClass,
    },
    jiff::Timestamp,
};
use kube::Client;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use wherry_reconcile::{Change, EventType, Informer, Informers, ObjectKey, Recorder};

use crate::{
    bind,
    cluster::Cluster,
    decide::{Decision, decide},
    filters::Wake,
    pod::PodInfo,
    queue::Queue,
};

/// How many writes and questions may be under way; more decisions wait.
const IN_FLIGHT: usize = 64;
/// How long an answer about an image is waited for.
const ASK: Duration = Duration::from_secs(10);

/// What an image needs to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Wasm runtime.
    Wasm,
    /// A container runtime.
    Container,
}

/// Tells images apart before they are pulled.
#[async_trait]
pub trait ImageKinds: Send + Sync + 'static {
    /// The kind of the image; none if it cannot be told now.
    async fn kind(&self, reference: &str) -> Option<Kind>;
}

/// What a scheduler works with.
pub struct Config {
    /// Acts as system:kube-scheduler.
    pub client: Client,
    /// The process's informers.
    pub informers: Informers,
    /// Records events of the component with the scheduler's name.
    pub recorder: Recorder,
    /// Asked only where some node runs Wasm alone.
    pub kinds: Arc<dyn ImageKinds>,
    /// Pods with this `schedulerName` are scheduled.
    pub name: String,
}

/// The scheduler.
pub struct Scheduler {
    config: Config,
    classes: Informer<RuntimeClass>,
    cluster: Cluster,
    queue: Queue,
    tasks: JoinSet<Done>,
    turn: u64,
}

/// What came of a task.
enum Done {
    Bound { pod: Arc<PodInfo>, node: String, result: Result<(), kube::Error> },
    Asked { key: ObjectKey, uid: String, needs: bool },
    Reported,
}

impl Scheduler {
    /// A scheduler that has not begun.
    pub fn new(config: Config) -> Self {
        let classes = config.informers.get();
        Self { config, classes, cluster: Cluster::default(), queue: Queue::default(), tasks: JoinSet::new(), turn: 0 }
    }

    /// Schedules until `cancel`. Bindings that are under way then are given up; the next start sees what came of them.
    pub async fn run(self, cancel: CancellationToken) {
        cancel.clone().run_until_cancelled(self.drive()).await;
    }

    async fn drive(mut self) {
        let informers = &self.config.informers;
        let (all_pods, all_nodes, all_namespaces) =
            (informers.get::<Pod>(), informers.get::<Node>(), informers.get::<Namespace>());
        // A decision on half of the picture could be wrong.
        let synced = [
            all_nodes.synced().await,
            all_namespaces.synced().await,
            all_pods.synced().await,
            self.classes.synced().await,
        ];
        if synced.contains(&false) {
            return;
        }
        let (mut nodes, mut namespaces, mut pods) =
            (all_nodes.subscribe(), all_namespaces.subscribe(), all_pods.subscribe());
        loop {
            while let Some(change) = nodes.try_next() {
                self.node(change);
            }
            while let Some(change) = namespaces.try_next() {
                self.namespace(change);
            }
            while let Some(change) = pods.try_next() {
                self.pod(change);
            }
            while let Some(done) = self.tasks.try_join_next() {
                self.done(done);
            }
            let due = self.queue.release(Instant::now());
            if self.tasks.len() < IN_FLIGHT && self.next() {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                Some(change) = nodes.next() => self.node(change),
                Some(change) = namespaces.next() => self.namespace(change),
                change = pods.next() => match change {
                    Some(change) => self.pod(change),
                    None => return,
                },
                Some(done) = self.tasks.join_next() => self.done(done),
                () = until(due) => {}
            }
        }
    }

    fn node(&mut self, change: Change<Node>) {
        let key = change.key();
        let Some(node) = change.new else {
            return self.cluster.remove_node(&key.name);
        };
        let relevant = change.old.is_none_or(|old| {
            let status = |node: &Node| node.status.as_ref().map(|status| status.allocatable.clone());
            old.metadata.labels != node.metadata.labels || old.spec != node.spec || status(&old) != status(&node)
        });
        self.cluster.set_node(node);
        if relevant {
            self.queue.wake(Wake::Node, Instant::now());
        }
    }

    fn namespace(&mut self, change: Change<Namespace>) {
        let key = change.key();
        let labels = |namespace: &Arc<Namespace>| namespace.metadata.labels.clone().unwrap_or_default();
        let new = change.new.as_ref().map(labels);
        let changed = change.old.as_ref().map(labels) != new;
        self.cluster.set_namespace(&key.name, new);
        if changed {
            self.queue.wake(Wake::Namespace, Instant::now());
        }
    }

    fn pod(&mut self, change: Change<Pod>) {
        let (now, key) = (Instant::now(), change.key());
        let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone().unwrap_or_default();
        let replaced = change.old.as_ref().map(uid).filter(|old| change.new.as_ref().map(uid).as_ref() != Some(old));
        if let Some(old) = replaced {
            self.leave(&key, &old, now);
        }
        let Some(pod) = change.new else { return };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let info = Arc::new(PodInfo::new(pod.clone()));
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.leave(&key, &info.uid, now);
        }
        if let Some(node) = info.node_name.clone() {
            self.queue.remove(&key);
            let moved = self.cluster.place_of(&info.uid) != Some(&*node)
                || change.old.is_none_or(|old| old.metadata.labels != pod.metadata.labels);
            self.cluster.place(info, &node);
            if moved {
                self.queue.wake(Wake::PodPlaced, now);
            }
            return;
        }
        let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or("default-scheduler");
        if info.terminating || name != self.config.name {
            return self.leave(&key, &info.uid, now);
        }
        // A Pod that is assumed on a node is known better here than at the server.
        if self.cluster.place_of(&info.uid).is_none() {
            self.queue.set(info, now);
        }
    }

    /// A Pod takes no place any more, and needs none.
    fn leave(&mut self, key: &ObjectKey, uid: &str, now: Instant) {
        self.queue.remove(key);
        if self.cluster.remove(uid) {
            self.queue.wake(Wake::PodGone, now);
        }
    }

    /// Decides the next Pod. False if none waits.
    fn next(&mut self) -> bool {
        let Some((pod, needs)) = self.queue.pop() else {
            return false;
        };
        if needs.is_none() && self.cluster.known().any(|node| node.is_wasm_only()) && !self.is_wasm(&pod) {
            self.ask(&pod);
            return true;
        }
        let pod = match needs {
            Some(true) => Arc::new(PodInfo::clone(&pod).needing_containers(true)),
            _ => pod,
        };
        self.turn = self.turn.wrapping_add(1);
        match decide(&self.cluster, &pod, self.turn) {
            Decision::Node(node) => self.bind(pod, node),
            Decision::None { message, wake } => {
                self.queue.unschedulable(&pod.key, &pod.uid, wake, Instant::now());
                self.report(pod, message);
            }
        }
        true
    }

    /// Whether the Pod's RuntimeClass says Wasm.
    fn is_wasm(&self, pod: &PodInfo) -> bool {
        let name = pod.pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref());
        let class = name.and_then(|name| self.classes.get("", name));
        class.is_some_and(|class| wherry_api::runtime_class::is_wasm(&class.handler))
    }

    fn ask(&mut self, pod: &PodInfo) {
        let (kinds, images) = (self.config.kinds.clone(), pod.images.clone());
        let (key, uid) = (pod.key.clone(), pod.uid.clone());
        self.tasks.spawn(async move {
            let any = async {
                for image in &images {
                    if kinds.kind(image).await == Some(Kind::Container) {
                        return true;
                    }
                }
                false
            };
            // What cannot be told may go anywhere; the agent says what is wrong.
            let needs = tokio::time::timeout(ASK, any).await.unwrap_or(false);
            Done::Asked { key, uid, needs }
        });
    }

    fn bind(&mut self, pod: Arc<PodInfo>, node: String) {
        self.cluster.place(pod.clone(), &node);
        self.queue.wake(Wake::PodPlaced, Instant::now());
        let client = self.config.client.clone();
        self.tasks.spawn(async move {
            let result = bind::bind(client, &pod, &node).await;
            Done::Bound { pod, node, result }
        });
    }

    fn report(&mut self, pod: Arc<PodInfo>, message: String) {
        self.config.recorder.on(&*pod.pod, EventType::Warning, "FailedScheduling", message.clone());
        let Some(patch) = bind::condition(&pod.pod, &message, Timestamp::now()) else {
            return;
        };
        let client = self.config.client.clone();
        self.tasks.spawn(async move {
            match bind::report(client, &pod, patch).await {
                Err(error) if !bind::is_stale(&error) => {
                    warn!(pod = %pod.key, %error, "cannot write why the Pod has no node");
                }
                _ => {}
            }
            Done::Reported
        });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let now = Instant::now();
        match done {
            Ok(Done::Bound { pod, node, result: Ok(()) }) => {
                debug!(pod = %pod.key, node, "bound");
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.config.recorder.on(&*pod.pod, EventType::Normal, "Scheduled", message);
            }
            Ok(Done::Bound { pod, result: Err(error), .. }) => {
                warn!(pod = %pod.key, %error, "cannot bind");
                if self.cluster.remove(&pod.uid) {
                    self.queue.wake(Wake::PodGone, now);
                }
                if !bind::is_stale(&error) {
                    let message = format!("binding rejected: {error}");
                    self.config.recorder.on(&*pod.pod, EventType::Warning, "FailedScheduling", message);
                }
                self.queue.retry(&pod.key, &pod.uid, now);
            }
            Ok(Done::Asked { key, uid, needs }) => self.queue.learned(&key, &uid, needs),
            Ok(Done::Reported) => {}
            Err(error) => warn!(%error, "a task of the scheduler failed"),
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
