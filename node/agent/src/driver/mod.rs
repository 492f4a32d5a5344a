//! The driver: one task that decides for every Pod of the node, and the tasks it spawns to act.
//!
//! ```text
//!  Pods, ConfigMaps, Secrets (informers) ─┐
//!  manifests of the node (statics) ───────┤
//!  outcomes of tasks (JoinSet) ───────────┼─► Record.state ─► lifecycle::plan ─► actions ─► tasks
//!  the timers ────────────────────────────┘                  └► lifecycle::status ─► a patch, if it changed
//! ```
//!
//! # Guarantees
//! - A Pod costs a record, and a task only while something is under way or a container runs (to wait for its exit).
//! - An action is applied to the state before it begins, so that nothing is begun twice.
//! - Every task belongs to the driver's `JoinSet` and ends with it.

mod act;
mod admission;
mod collect;
mod ground;
mod hook;
mod image_volumes;
mod look;
mod outcome;
mod record;
mod recover;
mod resize;
pub(crate) mod shared;
mod start;
mod statics;
mod status;
mod stop;
pub(crate) mod tokens;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Change, Informers, Subscription};

use crate::lifecycle::{self, NodeFacts, Run, Slot, add};
use crate::manifests::{Key, Manifests};
use crate::probe::ProbeKind;
use crate::shortage::LocalLimits;
use outcome::Outcome;
use record::{Record, Refresh, Uid};
use shared::{Seen, SeenContainer, Shared};

/// A Pod's plan is made again at most so often for one event; more would mean that it never settles.
const MAX_ROUNDS: usize = 16;
/// How long a status that nobody waits for is held back.
const MINOR: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    Pod(Uid),
    Write(Uid),
    Probe(Uid, Slot, u32, ProbeKind),
    Tokens(Uid),
    Look,
    Mirror(Key),
}

/// See the module's documentation.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    pods: HashMap<Uid, Record>,
    /// Which Pods name a ConfigMap, Secret or claim: (kind, namespace, name).
    users: HashMap<(&'static str, String, String), HashSet<Uid>>,
    room: resize::Room,
    looks: look::Looks,
    statics: statics::Statics,
    manifests: Option<Manifests>,
    timers: crate::timers::Timers<Timer>,
    tasks: JoinSet<Outcome>,
}

impl Driver {
    /// `manifests`: those of the node's own Pods, where it has any.
    pub(crate) fn new(shared: Arc<Shared>, manifests: Option<Manifests>) -> Self {
        Self {
            shared,
            pods: HashMap::new(),
            users: HashMap::new(),
            room: resize::Room::default(),
            looks: look::Looks::default(),
            statics: statics::Statics::default(),
            manifests,
            timers: crate::timers::Timers::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Runs until cancelled or until the informers end. Containers are left as they are.
    pub(crate) async fn run(mut self, informers: &Informers, cancel: CancellationToken) {
        let pods = informers.get::<Pod>();
        let maps = informers.get::<ConfigMap>();
        let secrets = informers.get::<Secret>();
        let claims = informers.get::<PersistentVolumeClaim>();
        if !(claims.synced().await && pods.synced().await && maps.synced().await && secrets.synced().await) {
            return;
        }
        let existing = pods.list().into_iter().filter(|pod| self.is_ours(pod));
        let (mirrors, mut existing): (Vec<_>, Vec<_>) = existing.partition(|pod| statics::is_mirror(pod));
        let mut manifests = self.manifests.take();
        let wanted = manifests.as_mut().map(Manifests::read).unwrap_or_default();
        existing.extend(self.take_up_statics(wanted, mirrors, informers.get()));
        self.recover(existing).await;
        self.settle_statics();
        self.look_again();
        let (mut pods, mut maps, mut secrets) = (pods.subscribe(), maps.subscribe(), secrets.subscribe());
        let (mut claims, mut volumes) = (claims.subscribe(), informers.get::<PersistentVolume>().subscribe());
        loop {
            let wake = self.timers.next();
            let clock = self.shared.clock.clone();
            tokio::select! {
                () = cancel.cancelled() => return,
                change = pods.next() => match change {
                    Some(change) => self.pod_changed(change),
                    None => return,
                },
                () = changed(&mut manifests) => {
                    let wanted = manifests.as_mut().map(Manifests::read).unwrap_or_default();
                    self.manifests_changed(wanted);
                }
                change = next(&mut maps) => self.object_changed("configmap", change.as_ref().and_then(Change::object).map(|map| &map.metadata)),
                change = next(&mut secrets) => self.object_changed("secret", change.as_ref().and_then(Change::object).map(|secret| &secret.metadata)),
                change = next(&mut claims) => self.object_changed("claim", change.as_ref().and_then(Change::object).map(|claim| &claim.metadata)),
                change = next(&mut volumes) => self.object_changed("claim", change.as_ref().and_then(Change::object).and_then(|volume| claim_of(volume)).as_ref()),
                Some(outcome) = self.tasks.join_next() => match outcome {
                    Ok(outcome) => self.finished(outcome),
                    Err(error) => tracing::error!(%error, "a task of the agent was lost"),
                },
                () = clock.sleep_until(wake) => {}
            }
            self.fire(self.shared.clock.now());
            self.retry_resizes();
        }
    }

    fn is_ours(&self, pod: &Pod) -> bool {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(&self.shared.node_name)
    }

    fn pod_changed(&mut self, change: Change<Pod>) {
        if change.old.iter().chain(&change.new).any(|pod| statics::is_mirror(pod)) {
            self.mirror_changed(&change);
        }
        let uid = |pod: &Arc<Pod>| pod.metadata.uid.as_deref().map(Uid::from);
        let new = change.new.filter(|pod| self.is_ours(pod) && !statics::is_mirror(pod));
        let (was, is) = (change.old.as_ref().and_then(uid), new.as_ref().and_then(uid));
        if let Some(was) = was.filter(|was| is.as_ref() != Some(was)) {
            self.pod_gone(&was);
        }
        if let (Some(pod), Some(uid)) = (new, is) {
            self.pod_known(uid, pod);
        }
    }

    fn pod_gone(&mut self, uid: &Uid) {
        if let Some(record) = self.pods.get_mut(uid) {
            record.gone = true;
            self.reconcile(uid);
        }
    }

    fn pod_known(&mut self, uid: Uid, pod: Arc<Pod>) {
        let pod = match self.pods.get(&uid) {
            Some(record) => lifecycle::in_known_order(pod, &record.pod),
            None => pod,
        };
        let pod = self.granted(&uid, pod);
        match self.pods.get_mut(&uid) {
            Some(record) => {
                let (old, new) = (&record.pod.metadata, &pod.metadata);
                let relabelled = old.labels != new.labels || old.annotations != new.annotations;
                let respecified = record.pod.spec != pod.spec;
                record.update(pod, respecified);
                // Volumes and variables may be made of them.
                if relabelled {
                    record.retry_config(self.shared.clock.now());
                    self.refresh(&uid);
                }
            }
            None => {
                // A Pod that ended before this agent ever knew it needs nothing but its deletion.
                let state = lifecycle::recover_status(&pod);
                let reference = record::pod_ref(&pod);
                let dir = self.shared.logs.pod_dir(&reference.namespace, &reference.name, &reference.uid);
                let mut record = Record::new(pod, dir, state);
                record.forget_lost_runs(self.shared.clock.now());
                self.admit(&uid, &mut record);
                self.insert(uid.clone(), record);
            }
        }
        self.reconcile(&uid);
    }

    fn insert(&mut self, uid: Uid, record: Record) {
        for key in record.objects() {
            self.users.entry(key).or_default().insert(uid.clone());
        }
        self.pods.insert(uid, record);
    }

    fn take(&mut self, uid: &Uid) -> Option<Record> {
        let record = self.pods.remove(uid)?;
        self.room.leave(uid, record.held);
        for key in record.objects() {
            if let Some(users) = self.users.get_mut(&key) {
                users.remove(uid);
                if users.is_empty() {
                    self.users.remove(&key);
                }
            }
        }
        Some(record)
    }

    /// A ConfigMap, Secret or claim changed: what waits for it is tried again, what is mounted from it is written again.
    fn object_changed(&mut self, kind: &'static str, meta: Option<&ObjectMeta>) {
        let Some(meta) = meta else { return };
        let key = (kind, meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let concerned: Vec<Uid> = self.users.get(&key).into_iter().flatten().cloned().collect();
        for uid in concerned {
            let now = self.shared.clock.now();
            let Some(record) = self.pods.get_mut(&uid).filter(|record| !record.ending()) else { continue };
            record.retry_config(now);
            self.refresh(&uid);
            self.reconcile(&uid);
        }
    }

    /// Writes the Pod's volumes again; one task at a time.
    fn refresh(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get_mut(uid).filter(|record| !record.ending()) else { return };
        if record.state.ground != lifecycle::Ground::Ready || record.volumes.is_empty() {
            return;
        }
        if record.refresh != Refresh::Idle {
            record.refresh = Refresh::Again;
            return;
        }
        record.refresh = Refresh::Running;
        let (shared, uid) = (self.shared.clone(), uid.clone());
        let (pod, reference, volumes) = (record.pod.clone(), record.reference.clone(), record.volumes.clone());
        let (ips, known) = (record.state.ips.clone(), record.tokens.clone());
        let lost = Outcome::Refreshed { uid: uid.clone(), tokens: None };
        self.spawn(lost, async move {
            let tokens = ground::refresh(&shared, &pod, &reference, ips, volumes, &known).await;
            Outcome::Refreshed { uid, tokens }
        });
    }

    fn fire(&mut self, now: Timestamp) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Pod(uid) => self.reconcile(&uid),
                Timer::Write(uid) => self.write_status(&uid, true),
                Timer::Probe(uid, slot, attempt, kind) => self.probe(&uid, slot, attempt, kind),
                Timer::Tokens(uid) => self.refresh(&uid),
                Timer::Look => self.look(),
                Timer::Mirror(key) => self.settle_mirror(&key),
            }
        }
    }

    /// Plans and acts until nothing is left to do, then tells the API what changed.
    fn reconcile(&mut self, uid: &Uid) {
        let now = self.shared.clock.now();
        for round in 0.. {
            let Some(record) = self.pods.get_mut(uid) else { return };
            let plan = lifecycle::plan(&record.pod, &record.want(), &record.state, now);
            if plan.actions.is_empty() || round == MAX_ROUNDS {
                if round == MAX_ROUNDS {
                    tracing::error!(pod = %record.reference.name, actions = ?plan.actions, "a Pod's plan does not settle");
                }
                self.timers.set(&Timer::Pod(uid.clone()), plan.wake);
                break;
            }
            for action in plan.actions {
                if let Some(record) = self.pods.get_mut(uid) {
                    lifecycle::apply(&mut record.state, &action, now);
                }
                self.act(uid, action);
            }
        }
        self.end_resize(uid);
        self.compute_status(uid, now);
        self.account(uid);
        self.release_images(uid);
        self.write_status(uid, false);
    }

    fn compute_status(&mut self, uid: &Uid, now: Timestamp) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let base = status::base(&record.pod, &record.status);
        let node = NodeFacts { host_ips: self.shared.network.node_ips() };
        record.status = lifecycle::status(&record.pod, &record.state, record.ending(), &base, &node, now);
        record.state.phase = record.status.phase.as_deref().map(lifecycle::Phase::parse).unwrap_or_default();
        let seen = Seen {
            pod: record.pod.clone(),
            dir: record.dir.clone(),
            network: record.network.clone(),
            containers: record.seen(now),
        };
        let key = (record.reference.namespace.clone(), record.reference.name.clone());
        let mut view = self.shared.view.write();
        // A newer Pod of the same name is what readers mean.
        if !(record.gone && view.get(&key).is_some_and(|known| known.pod.metadata.uid != record.pod.metadata.uid)) {
            view.insert(key, seen);
        }
    }

    /// Starts a patch where the API does not have the newest status. `due`: also what nobody waits for.
    fn write_status(&mut self, uid: &Uid, due: bool) {
        let now = self.shared.clock.now();
        let Some(record) = self.pods.get_mut(uid) else { return };
        if record.gone || record.writing.in_flight {
            return;
        }
        let Some(shown) = record.shown.clone() else {
            // Nobody can be told.
            self.reported(uid);
            return;
        };
        let wanted = status::own(&record.status);
        let Some(patch) = status::diff(&record.writing.written, &wanted) else {
            self.drop_resize_note(uid);
            self.reported(uid);
            return;
        };
        let timer = Timer::Write(uid.clone());
        let minor = status::is_minor(&patch, &record.writing.written, &wanted);
        let wait =
            record.writing.not_before.filter(|at| now < *at).or_else(|| (minor && !due).then(|| add(now, MINOR)));
        if wait.is_some() {
            self.timers.set(&timer, wait);
            return;
        }
        record.writing.in_flight = true;
        let (shared, uid) = (self.shared.clone(), uid.clone());
        let lost = Outcome::Written { uid: uid.clone(), wanted: wanted.clone(), result: Err(status::WriteError::Gone) };
        self.timers.set(&timer, None);
        self.spawn(lost, async move {
            let result = status::write(&shared, &shown, patch).await;
            Outcome::Written { uid, wanted, result }
        });
    }

    /// The API has the newest status: the object of a Pod that ended may go.
    fn reported(&mut self, uid: &Uid) {
        let Some(record) = self.pods.get_mut(uid) else { return };
        let over = !record.state.is_live()
            && matches!(record.state.ground, lifecycle::Ground::Gone | lifecycle::Ground::Missing);
        if over && record.ending() && !record.state.reported_end {
            record.state.reported_end = true;
            self.reconcile(uid);
        }
    }

    /// Spawns a task; `lost` stands for its outcome should it panic.
    fn spawn(&mut self, lost: Outcome, task: impl Future<Output = Outcome> + Send + 'static) {
        self.tasks.spawn(async move {
            AssertUnwindSafe(task).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(?lost, "a task of the agent panicked");
                lost
            })
        });
    }
}

/// The claim that a volume is bound to, by its name.
fn claim_of(volume: &PersistentVolume) -> Option<ObjectMeta> {
    let held = wherry_reconcile::storage::reference(volume)?;
    Some(ObjectMeta { name: held.name.clone(), namespace: held.namespace.clone(), ..ObjectMeta::default() })
}

/// Waits until the manifests have changed; for ever where there are none.
async fn changed(manifests: &mut Option<Manifests>) {
    match manifests {
        Some(manifests) => manifests.changed().await,
        None => std::future::pending().await,
    }
}

/// The next change; for ever where there is none.
async fn next<K: wherry_reconcile::informer::Kind>(subscription: &mut Subscription<K>) -> Option<Change<K>> {
    match subscription.next().await {
        Some(change) => Some(change),
        None => std::future::pending().await,
    }
}

impl Record {
    fn update(&mut self, pod: Arc<Pod>, respecified: bool) {
        self.pod = pod;
        self.state.grow(&self.pod);
        if respecified {
            self.requests = resize::Held::of(&self.pod);
            self.limits = LocalLimits::of(&self.pod);
            // Another manifest may be one that can be honoured.
            if matches!(self.state.ground, lifecycle::Ground::Failed { .. }) {
                self.state.ground = lifecycle::Ground::Failed { retry_at: Timestamp::UNIX_EPOCH };
            }
            for container in self.state.containers_mut() {
                if let Run::Waiting { until, why: Some(why) } = &mut container.run
                    && why.reason != "CrashLoopBackOff"
                {
                    *until = None;
                }
            }
        }
    }

    /// What waits for its configuration is tried again at once.
    fn retry_config(&mut self, now: Timestamp) {
        for container in self.state.containers_mut() {
            match &mut container.run {
                Run::Waiting { until, why: Some(why) }
                    if why.reason == "CreateContainerConfigError"
                        && until.is_some_and(|until| until != Timestamp::MAX) =>
                {
                    *until = None;
                }
                Run::Starting { .. } => self.outdated = true,
                _ => {}
            }
        }
        match &mut self.state.ground {
            lifecycle::Ground::Failed { retry_at } if *retry_at != Timestamp::MAX => *retry_at = now,
            lifecycle::Ground::Making => self.outdated = true,
            _ => {}
        }
    }

    fn seen(&self, now: Timestamp) -> Vec<SeenContainer> {
        let seen = |(slot, container): (Slot, &lifecycle::ContainerState)| SeenContainer {
            name: lifecycle::name(&self.pod, slot).to_owned(),
            attempts: container.attempts,
            live: self.runs.get(&slot).map(|run| (run.id.clone(), run.runtime.clone())),
            waiting: match &container.run {
                Run::Waiting { why, .. } | Run::Starting { why, .. } => {
                    let default = if self.state.init.is_empty() { "ContainerCreating" } else { "PodInitializing" };
                    Some(why.as_ref().map_or_else(|| default.to_owned(), |why| why.at(now).reason.clone()))
                }
                _ => None,
            },
        };
        self.state.slots().map(seen).collect()
    }
}
