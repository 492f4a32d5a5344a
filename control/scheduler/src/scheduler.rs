//! The driver: takes events in, decides, and lets bindings go on beside.
//!
//! One task owns the cluster's picture and the queue. It takes in all events that are there, then decides one Pod, and
//! so on; what needs the network (bindings, conditions, questions about images) runs in a bounded set of tasks whose
//! results come back to it.

mod unplaced;

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
    node::v1::RuntimeClass,
    policy::v1::PodDisruptionBudget,
    storage::v1::StorageClass,
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
    filters::{self, Needs, Wake},
    pod::{self, PodInfo},
    queue::Queue,
    storage,
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
    budgets: Informer<PodDisruptionBudget>,
    cluster: Cluster,
    queue: Queue,
    /// Pods that have their node once their claims have their volumes, by UID.
    claiming: HashMap<String, (Arc<PodInfo>, String)>,
    tasks: JoinSet<Done>,
    turn: u64,
}

/// What came of a task.
enum Done {
    Claimed {
        pod: Arc<PodInfo>,
        node: String,
        result: Result<(), kube::Error>,
    },
    Bound {
        pod: Arc<PodInfo>,
        node: String,
        result: Result<(), kube::Error>,
    },
    Asked {
        key: ObjectKey,
        uid: String,
        needs: bool,
    },
    /// Why the Pod has no node was written; these Pods could not be asked to leave for it.
    Told {
        pod: Arc<PodInfo>,
        spared: Vec<String>,
    },
}

impl Scheduler {
    /// A scheduler that has not begun.
    pub fn new(config: Config) -> Self {
        let (classes, budgets) = (config.informers.get(), config.informers.get());
        Self {
            config,
            classes,
            budgets,
            cluster: Cluster::default(),
            queue: Queue::default(),
            claiming: HashMap::new(),
            tasks: JoinSet::new(),
            turn: 0,
        }
    }

    /// Schedules until `cancel`. Bindings that are under way then are given up; the next start sees what came of them.
    pub async fn run(self, cancel: CancellationToken) {
        cancel.clone().run_until_cancelled(self.drive()).await;
    }

    async fn drive(mut self) {
        let informers = &self.config.informers;
        let (all_pods, all_nodes, all_namespaces) =
            (informers.get::<Pod>(), informers.get::<Node>(), informers.get::<Namespace>());
        let (all_claims, all_volumes, all_classes) = (
            informers.get::<PersistentVolumeClaim>(),
            informers.get::<PersistentVolume>(),
            informers.get::<StorageClass>(),
        );
        // A decision on half of the picture could be wrong.
        let synced = [
            all_nodes.synced().await,
            all_namespaces.synced().await,
            all_pods.synced().await,
            self.classes.synced().await,
            self.budgets.synced().await,
            all_claims.synced().await,
            all_volumes.synced().await,
            all_classes.synced().await,
        ];
        if synced.contains(&false) {
            return;
        }
        let (mut nodes, mut namespaces, mut pods) =
            (all_nodes.subscribe(), all_namespaces.subscribe(), all_pods.subscribe());
        let (mut claims, mut volumes, mut classes) =
            (all_claims.subscribe(), all_volumes.subscribe(), all_classes.subscribe());
        loop {
            while let Some(change) = nodes.try_next() {
                self.node(change);
            }
            while let Some(change) = namespaces.try_next() {
                self.namespace(change);
            }
            while let Some(change) = classes.try_next() {
                self.class(change);
            }
            while let Some(change) = volumes.try_next() {
                self.volume(change);
            }
            while let Some(change) = claims.try_next() {
                self.claim(change);
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
                Some(change) = classes.next() => self.class(change),
                Some(change) = volumes.next() => self.volume(change),
                Some(change) = claims.next() => self.claim(change),
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

    fn class(&mut self, change: Change<StorageClass>) {
        self.cluster.storage.set_class(change.key().name, change.new);
        self.queue.wake(Wake::Volume, Instant::now());
    }

    fn volume(&mut self, change: Change<PersistentVolume>) {
        self.cluster.storage.set_volume(change.key().name, change.new);
        self.queue.wake(Wake::Volume, Instant::now());
    }

    fn claim(&mut self, change: Change<PersistentVolumeClaim>) {
        use wherry_reconcile::storage::{SELECTED_NODE, annotation, is_bound};
        let key = change.key();
        let selected = |claim: &Arc<PersistentVolumeClaim>| annotation(claim, SELECTED_NODE).is_some();
        let refused = change.new.as_ref().is_none_or(|new| !is_bound(new) && !selected(new))
            && change.old.as_ref().is_some_and(selected);
        self.cluster.storage.set_claim(key.clone(), change.new);
        self.queue.wake(Wake::Volume, Instant::now());
        let uses =
            |pod: &PodInfo| pod.key.namespace == key.namespace && pod.claims.iter().any(|claim| claim.name == key.name);
        let concerned: Vec<String> =
            self.claiming.iter().filter(|(_, (pod, _))| uses(pod)).map(|(uid, _)| uid.clone()).collect();
        for uid in concerned {
            if refused {
                self.give_up(&uid, &key.name);
            } else {
                self.claimed(&uid);
            }
        }
    }

    /// Binds a Pod whose claims all have their volumes.
    fn claimed(&mut self, uid: &str) {
        let Some((pod, _)) = self.claiming.get(uid) else { return };
        if !Needs::new(&self.cluster, pod).is_ok_and(|needs| needs.unbound.is_empty()) {
            return;
        }
        if let Some((pod, node)) = self.claiming.remove(uid) {
            self.bind_pod(pod, node);
        }
    }

    /// A claim of a Pod gets no volume on the Pod's node: another is looked for.
    fn give_up(&mut self, uid: &str, claim: &str) {
        let Some((pod, _)) = self.claiming.remove(uid) else { return };
        let message =
            format!("running PreBind plugin \"VolumeBinding\": binding volumes: provisioning failed for PVC {claim:?}");
        self.config.recorder.on(&*pod.pod, EventType::Warning, "FailedScheduling", message);
        self.retry(&pod);
    }

    /// A Pod that was decided does not get its node: another decision follows.
    fn retry(&mut self, pod: &Arc<PodInfo>) {
        let now = Instant::now();
        if self.cluster.remove(&pod.uid) {
            self.queue.wake(Wake::PodGone, now);
        }
        let waits = self.queue.retry(&pod.key, &pod.uid, now);
        if let Some(node) = pod.nominated.as_ref().filter(|_| waits) {
            self.cluster.nominations.set(pod.clone(), node);
        }
    }

    fn pod(&mut self, change: Change<Pod>) {
        let (now, key) = (Instant::now(), change.key());
        let uid = |pod: &Arc<Pod>| pod.metadata.uid.clone().unwrap_or_default();
        let Change { mut old, new } = change;
        let replaced = old.as_ref().map(uid).filter(|old| new.as_ref().map(uid).as_ref() != Some(old));
        if let Some(replaced) = replaced {
            self.leave(&key, &replaced, now);
            old = None;
        }
        let Some(pod) = new else { return };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let info = Arc::new(PodInfo::new(pod.clone()));
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.leave(&key, &info.uid, now);
        }
        if let Some(node) = info.node_name.clone() {
            self.queue.remove(&key);
            self.settles(&info.uid, &node, now);
            let moved = self.cluster.place_of(&info.uid) != Some(&*node)
                || old.is_none_or(|old| old.metadata.labels != pod.metadata.labels);
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
            self.queue.set(info.clone(), now);
            self.nominated(info, old.as_deref(), now);
        }
    }

    /// Takes in where a waiting Pod is awaited. What was decided here and is not written yet is known better.
    fn nominated(&mut self, pod: Arc<PodInfo>, old: Option<&Pod>, now: Instant) {
        let before = old.map(pod::nominated);
        if before == Some(pod.nominated.clone()) {
            if let Some(node) = self.cluster.nominations.of(&pod.uid).map(str::to_owned) {
                self.cluster.nominations.set(pod, &node);
            }
        } else if let Some(node) = pod.nominated.clone() {
            self.cluster.nominations.set(pod, &node);
        } else if self.cluster.nominations.of(&pod.uid).is_some() {
            self.await_nowhere(&pod.uid, now);
            self.queue.nudge(&pod.key, &pod.uid, now);
        }
    }

    /// A Pod takes no place any more, and needs none.
    fn leave(&mut self, key: &ObjectKey, uid: &str, now: Instant) {
        self.queue.remove(key);
        self.claiming.remove(uid);
        self.await_nowhere(uid, now);
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
            Decision::None { message, wake, resolvable } => self.unplaced(pod, message, wake, &resolvable),
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
        let needs = Needs::new(&self.cluster, &pod).unwrap_or_default();
        let writes = self.cluster.nodes.get(&node).map(|to| filters::writes(&self.cluster, &needs, to));
        let now = Instant::now();
        self.settles(&pod.uid, &node, now);
        self.cluster.place(pod.clone(), &node);
        self.queue.wake(Wake::PodPlaced, now);
        if needs.unbound.is_empty() {
            return self.bind_pod(pod, node);
        }
        let client = self.config.client.clone();
        self.tasks.spawn(async move {
            let result = storage::write(client, writes.unwrap_or_default(), &node).await;
            Done::Claimed { pod, node, result }
        });
    }

    fn bind_pod(&mut self, pod: Arc<PodInfo>, node: String) {
        let client = self.config.client.clone();
        self.tasks.spawn(async move {
            let result = bind::bind(client, &pod, &node).await;
            Done::Bound { pod, node, result }
        });
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Claimed { pod, node, result: Ok(()) }) => {
                // It may have gone meanwhile.
                if self.cluster.place_of(&pod.uid).is_some() {
                    let uid = pod.uid.clone();
                    self.claiming.insert(uid.clone(), (pod, node));
                    self.claimed(&uid);
                }
            }
            Ok(Done::Claimed { pod, result: Err(error), .. }) => {
                debug!(pod = %pod.key, %error, "cannot claim volumes");
                self.retry(&pod);
            }
            Ok(Done::Bound { pod, node, result: Ok(()) }) => {
                debug!(pod = %pod.key, node, "bound");
                let message = format!("Successfully assigned {} to {node}", pod.key);
                self.config.recorder.on(&*pod.pod, EventType::Normal, "Scheduled", message);
            }
            Ok(Done::Bound { pod, result: Err(error), .. }) => {
                warn!(pod = %pod.key, %error, "cannot bind");
                if !bind::is_stale(&error) {
                    let message = format!("binding rejected: {error}");
                    self.config.recorder.on(&*pod.pod, EventType::Warning, "FailedScheduling", message);
                }
                self.retry(&pod);
            }
            Ok(Done::Asked { key, uid, needs }) => self.queue.learned(&key, &uid, needs),
            Ok(Done::Told { pod, spared }) => self.told(&pod, &spared),
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
