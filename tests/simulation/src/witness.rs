//! Who sees every revision of the store and says when one breaks what must hold always.
//!
//! What controllers know is late by as much as watches, outages and retries make it. So where they must act on
//! what they know, the invariant allows for what happened within [`KNOWN`], which is longer than any of these lasts: what
//! was asked for in that time, and what was lost in it by no doing of theirs. Everything else is exact.

mod budgets;
mod jobs;
mod loops;
mod rollouts;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hasher as _},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use wherry_store::{Entry, Key};

use crate::{tree, world};

/// By then everybody who is to know knows.
pub(crate) const KNOWN: Duration = Duration::from_secs(400);

/// What the simulation keeps of objects; of the other kinds only that something changed is noted.
const KEPT: [&str; 9] = [
    "pods",
    "nodes",
    "namespaces",
    "replicasets.apps",
    "deployments.apps",
    "statefulsets.apps",
    "daemonsets.apps",
    "jobs.batch",
    "poddisruptionbudgets.policy",
];
/// What changes without end.
const RESTLESS: [&str; 3] = ["events", "events.events.k8s.io", "leases.coordination.k8s.io"];

/// Where an object lives: resource, namespace, name.
pub(crate) type Place = (String, String, String);

/// A Pod that served and does no more.
struct Loss {
    at: Duration,
    namespace: String,
    labels: Value,
    /// The ReplicaSet (or other controller) that it belonged to.
    controller: String,
    cause: Cause,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    /// The eviction API let it go.
    Eviction,
    /// The ReplicaSet controller had too many.
    ReplicaSet,
    /// Anything else.
    Other,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Place, Value>,
    revision: u64,
    /// When something changed that does not change without end.
    changed: Duration,
    writes: u64,
    /// Of all that was written, in its order.
    digest: DefaultHasher,
    violation: Option<String>,
    /// Pods whose eviction the server is looking at or has granted: their UIDs, and since when.
    evictions: BTreeMap<(String, String), (String, Duration)>,
    /// Who asked last to delete a Pod.
    dismissed: BTreeMap<(String, String), String>,
    losses: VecDeque<Loss>,
    jobs: jobs::Truth,
    /// How many creations of Pods were not heard of, by namespace.
    unheard: BTreeMap<String, i64>,
    budgets: budgets::History,
    rollouts: rollouts::History,
    lately: loops::Lately,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Witness {
    state: Mutex<State>,
}

/// A request whose answer matters.
pub(crate) struct Asked((String, String));

impl Witness {
    /// The server is about to be asked this.
    pub(crate) fn asked(&self, user: &str, method: &Method, path: &str) -> Option<Asked> {
        let mut parts = path.strip_prefix("/api/v1/namespaces/")?.split('/');
        let (namespace, "pods", name) = (parts.next()?, parts.next()?, parts.next()?) else { return None };
        let pod = (namespace.to_owned(), name.to_owned());
        let mut state = self.state.lock();
        match (method, parts.next()) {
            (&Method::POST, Some("eviction")) => {
                let uid = state.get("pods", namespace, name).map_or("", tree::uid).to_owned();
                state.evictions.insert(pod.clone(), (uid, world::elapsed()));
                Some(Asked(pod))
            }
            (&Method::DELETE, None) => {
                state.dismissed.insert(pod, user.to_owned());
                None
            }
            _ => None,
        }
    }

    /// The server answered.
    pub(crate) fn answered(&self, asked: Asked, status: StatusCode) {
        let mut state = self.state.lock();
        if status.is_success() {
            state.note_eviction(&asked.0);
        } else if status != StatusCode::INTERNAL_SERVER_ERROR {
            state.evictions.remove(&asked.0);
        }
    }

    /// The server was asked this, and whoever asked does not know what became of it.
    pub(crate) fn unheard(&self, method: &Method, path: &str) {
        let namespace = path.strip_prefix("/api/v1/namespaces/").and_then(|rest| rest.strip_suffix("/pods"));
        if let (&Method::POST, Some(namespace)) = (method, namespace) {
            *self.state.lock().unheard.entry(namespace.to_owned()).or_default() += 1;
        }
    }

    /// The store has a new revision.
    pub(crate) fn see(&self, entry: &Arc<Entry>, deleted: bool) {
        self.state.lock().see(entry, deleted);
    }

    /// Reports what the simulation itself found.
    pub(crate) fn accuse(&self, what: String) {
        self.state.lock().accuse(what);
    }

    /// What was broken first.
    pub(crate) fn violation(&self) -> Option<String> {
        self.state.lock().violation.clone()
    }

    /// How long nothing has changed.
    pub(crate) fn quiet(&self) -> Duration {
        world::elapsed().saturating_sub(self.state.lock().changed)
    }

    /// How many writes there were.
    pub(crate) fn writes(&self) -> u64 {
        self.state.lock().writes
    }

    /// A number that tells two histories apart.
    pub(crate) fn digest(&self) -> u64 {
        self.state.lock().digest.finish()
    }

    /// All objects of a kind that is kept.
    pub(crate) fn all(&self, resource: &str) -> Vec<Value> {
        self.state.lock().all(resource).cloned().collect()
    }

    /// How many Pods of a Job may have succeeded once it is complete.
    pub(crate) fn successes(&self, job: &Value) -> RangeInclusive<i64> {
        self.state.lock().successes(job)
    }

    /// How many Pods a budget demands.
    pub(crate) fn demand(&self, budget: &Value) -> i64 {
        self.state.lock().demand(budget)
    }
}

impl State {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(resource.to_owned(), namespace.to_owned(), name.to_owned()))
    }

    fn all<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a Value> {
        let first = (resource.to_owned(), String::new(), String::new());
        self.objects.range(first..).take_while(move |(place, _)| place.0 == resource).map(|(_, object)| object)
    }

    fn accuse(&mut self, what: String) {
        let what = format!("at {:?}, revision {}: {what}", world::elapsed(), self.revision);
        tracing::error!("{what}");
        self.violation.get_or_insert(what);
    }

    fn see(&mut self, entry: &Arc<Entry>, deleted: bool) {
        let Key { resource, namespace, name } = &entry.key;
        self.revision = entry.revision;
        self.writes += 1;
        self.digest.write(&entry.json);
        if !RESTLESS.contains(&&**resource) {
            self.changed = world::elapsed();
        }
        let place = (resource.to_string(), namespace.to_string(), name.to_string());
        self.note_write(&place);
        if !KEPT.contains(&&**resource) {
            tracing::trace!(target: "store", revision = entry.revision, key = %entry.key, deleted, "written");
            return;
        }
        let new = (!deleted).then(|| serde_json::from_slice::<Value>(&entry.json).unwrap_or_default());
        tracing::debug!(target: "store", "{} {}: {}", entry.revision, entry.key, digest(new.as_ref()));
        let old = match &new {
            Some(new) => self.objects.insert(place, new.clone()),
            None => self.objects.remove(&place),
        };
        let (old, new) = (old.as_ref(), new.as_ref());
        match &**resource {
            "pods" => self.pod(old, new),
            "replicasets.apps" => self.replica_set(old, new),
            "jobs.batch" => self.job(old, new),
            _ => {}
        }
        self.note_bounds();
    }

    fn pod(&mut self, old: Option<&Value>, new: Option<&Value>) {
        self.note_ended(old, new);
        let Some(before) = old.filter(|pod| tree::is_healthy(pod)) else { return };
        if new.is_some_and(|pod| tree::uid(pod) == tree::uid(before) && tree::is_healthy(pod)) {
            return;
        }
        let loss = Loss {
            at: world::elapsed(),
            namespace: tree::namespace(before).to_owned(),
            labels: before["metadata"]["labels"].clone(),
            controller: tree::controller_uid(before).to_owned(),
            cause: self.cause(before, new),
        };
        while self.losses.front().is_some_and(|loss| loss.at + KNOWN < world::elapsed()) {
            self.losses.pop_front();
        }
        self.check_budgets(&loss);
        self.check_availability(&loss);
        self.losses.push_back(loss);
    }

    fn cause(&self, before: &Value, after: Option<&Value>) -> Cause {
        if after.is_some_and(|pod| !tree::is_deleting(pod)) {
            return Cause::Other;
        }
        let place = (tree::namespace(before).to_owned(), tree::name(before).to_owned());
        // After two minutes the budget's controller counts an evicted Pod that is still there as kept.
        let fresh = |since: &Duration| *since + Duration::from_secs(100) > world::elapsed();
        if self.evictions.get(&place).is_some_and(|(uid, since)| *uid == tree::uid(before) && fresh(since)) {
            return Cause::Eviction;
        }
        match self.dismissed.get(&place) {
            Some(user) if user.ends_with(":replicaset-controller") => Cause::ReplicaSet,
            _ => Cause::Other,
        }
    }
}

/// The largest, or smallest, of what was so lately.
#[derive(Default)]
struct Lately(VecDeque<(Duration, i64)>);

impl Lately {
    /// Notes what is so from now on.
    fn note(&mut self, value: i64) {
        let now = world::elapsed();
        if self.0.back().is_none_or(|(_, last)| *last != value) {
            self.0.push_back((now, value));
        }
        // What came after it was so for all of that time.
        while self.0.get(1).is_some_and(|(at, _)| *at + KNOWN < now) {
            self.0.pop_front();
        }
    }

    fn values(&self) -> impl Iterator<Item = i64> {
        self.0.iter().map(|(_, value)| *value)
    }

    /// Whether something is known of all of that time.
    fn is_old(&self) -> bool {
        self.0.front().is_some_and(|(at, _)| *at + KNOWN < world::elapsed())
    }
}

/// A line for the log.
fn digest(object: Option<&Value>) -> String {
    let Some(object) = object else { return "gone".to_owned() };
    let mut spec = object["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        ["template", "containers", "selector", "tolerations", "volumes", "affinity", "securityContext"]
            .iter()
            .for_each(|long| drop(spec.remove(*long)));
    }
    let deleting = if tree::is_deleting(object) { "deleting " } else { "" };
    format!("{deleting}{spec} {}", object["status"])
}
