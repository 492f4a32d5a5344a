//! Charges: what the writes under way add to the usage of quotas.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;
use wherry_api::meta;
use wherry_api::status::{MODIFIED, Status};
use wherry_store::{Entry, Key, Store};

use super::QUOTAS;
use super::check::{Change, added};
use super::measure::owner;
use super::recount;
use crate::admission::amounts::{self, Amounts};
use crate::engine::Engine;
use crate::objects::{self, Written};

/// How often a charge is tried when others change the quotas meanwhile.
const TRIES: usize = 32;

/// The account of what is under way. One a server.
#[derive(Default)]
pub(crate) struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Who may change the usage of a namespace: one at a time.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    under_way: Mutex<Vec<UnderWay>>,
    /// Namespaces to count anew, and when.
    due: Mutex<HashMap<String, Instant>>,
    bell: Notify,
}

/// A write that was charged and whose outcome is not known.
struct UnderWay {
    id: u64,
    key: Key,
    uid: String,
    /// The object's version before the write; none if there was no object.
    base: Option<u64>,
    /// What was added to which quota.
    added: BTreeMap<String, Amounts>,
}

impl UnderWay {
    /// Whether the store does not show the write (yet).
    fn is_pending(&self, store: &dyn Store) -> bool {
        match (store.get(&self.key), self.base) {
            (None, base) => base.is_none(),
            (Some(entry), None) => *entry.uid != *self.uid,
            (Some(entry), Some(base)) => entry.revision == base,
        }
    }
}

/// A charge that lasts until this is dropped, which is when the write's outcome is known. What was not written is given back.
pub(crate) struct Charge {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    id: u64,
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut under_way = self.shared.under_way.lock();
        let Some(at) = under_way.iter().position(|write| write.id == self.id) else {
            return;
        };
        let write = under_way.swap_remove(at);
        drop(under_way);
        // Of an update the store cannot tell whether it was this one that changed the object.
        if write.base.is_some() || write.is_pending(self.store.as_ref()) {
            self.shared.mark(&write.key.namespace, Duration::ZERO);
        }
    }
}

impl Shared {
    fn mark(&self, namespace: &str, delay: Duration) {
        let at = Instant::now() + delay;
        let mut due = self.due.lock();
        let slot = due.entry(namespace.to_owned()).or_insert(at);
        *slot = at.min(*slot);
        drop(due);
        self.bell.notify_one();
    }
}

impl Ledger {
    /// Has a namespace counted anew after `delay` at the latest.
    pub(super) fn mark(&self, namespace: &str, delay: Duration) {
        self.shared.mark(namespace, delay);
    }

    /// Waits for namespaces that are due, and takes them.
    pub(super) async fn due(&self) -> Vec<String> {
        loop {
            let now = Instant::now();
            let (ready, next) = {
                let mut due = self.shared.due.lock();
                let ready: Vec<String> =
                    due.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
                due.retain(|name, _| !ready.contains(name));
                (ready, due.values().min().copied())
            };
            if !ready.is_empty() {
                return ready;
            }
            match next {
                Some(at) => drop(tokio::time::timeout_at(at, self.shared.bell.notified()).await),
                None => self.shared.bell.notified().await,
            }
        }
    }

    /// The right to change the usage of a namespace.
    pub(super) async fn turn(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.shared.turns.lock();
            // Who holds or awaits a turn holds the Arc as well.
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(namespace.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    /// What writes under way have added to a quota and the store does not show yet.
    pub(super) fn pending(&self, engine: &Engine, namespace: &str, quota: &str) -> Amounts {
        let mut sum = Amounts::new();
        let under_way = self.shared.under_way.lock();
        let here = under_way.iter().filter(|write| *write.key.namespace == *namespace);
        for write in here.filter(|write| write.is_pending(engine.store.as_ref())) {
            write.added.get(quota).into_iter().for_each(|more| amounts::add(&mut sum, more));
        }
        sum
    }

    /// Charges a write to the quotas of its namespace. A refusal is for whoever writes: why, in upstream's words.
    pub(crate) async fn charge(
        &self,
        engine: &Arc<Engine>,
        key: Key,
        change: &Change<'_>,
        dry_run: bool,
    ) -> Result<Option<Charge>, Refusal> {
        let namespace = Arc::clone(&key.namespace);
        if engine.of_namespace(QUOTAS, &namespace)?.is_empty() {
            return Ok(None);
        }
        let _turn = self.turn(&namespace).await;
        let mut charged: BTreeMap<String, Amounts> = BTreeMap::new();
        for _ in 0..TRIES {
            let entries = engine.of_namespace(QUOTAS, &namespace)?;
            let wanted = match self.check(engine, entries, &charged, change).await {
                Ok(wanted) => wanted,
                // What was given back meanwhile may make room.
                Err(Refusal::Full(_)) if charged.is_empty() && self.take_due(&namespace) => {
                    recount::namespace(engine, &namespace).await?;
                    continue;
                }
                Err(refusal) => {
                    if !charged.is_empty() {
                        self.mark(&namespace, Duration::ZERO);
                    }
                    return Err(refusal);
                }
            };
            if dry_run {
                return Ok(None);
            }
            let mut missed = false;
            for (entry, quota, more) in wanted {
                match set_used(engine, &entry, quota, &more).await? {
                    Written::Done(_) => drop(charged.insert(entry.key.name.to_string(), more)),
                    _ => missed = true,
                }
            }
            if !missed {
                return Ok((!charged.is_empty()).then(|| self.register(engine, key, change, charged)));
            }
        }
        self.mark(&namespace, Duration::ZERO);
        let gr = wherry_api::status::GroupResource::new("", QUOTAS);
        Err(Refusal::Failed(Status::conflict(&gr, &namespace, MODIFIED)))
    }

    fn take_due(&self, namespace: &str) -> bool {
        self.shared.due.lock().remove(namespace).is_some()
    }

    /// What the write adds to which quota; those that were charged before are left out.
    async fn check(
        &self,
        engine: &Arc<Engine>,
        entries: Vec<Arc<Entry>>,
        charged: &BTreeMap<String, Amounts>,
        change: &Change<'_>,
    ) -> Result<Vec<(Arc<Entry>, Value, Amounts)>, Refusal> {
        let mut wanted = Vec::new();
        for mut entry in entries.into_iter().filter(|entry| !charged.contains_key(&*entry.key.name)) {
            let mut quota = objects::stored_tree(&entry)?;
            if is_stale(engine, &quota) {
                let Some(counted) = recount::quota(engine, &entry.key).await? else {
                    continue;
                };
                quota = objects::stored_tree(&counted)?;
                entry = counted;
            }
            let more = added(&quota, change).map_err(Refusal::Full)?;
            if !more.is_empty() {
                wanted.push((entry, quota, more));
            }
        }
        Ok(wanted)
    }

    fn register(&self, engine: &Engine, key: Key, change: &Change<'_>, added: BTreeMap<String, Amounts>) -> Charge {
        let base = change.old.and_then(|old| meta::resource_version(old).parse().ok());
        let uid = meta::uid(change.new).to_owned();
        let id = rand::random();
        self.shared.under_way.lock().push(UnderWay { id, key, uid, base, added });
        Charge { shared: Arc::clone(&self.shared), store: Arc::clone(&engine.store), id }
    }
}

/// Why a write was not charged.
pub(crate) enum Refusal {
    /// It does not fit: why.
    Full(String),
    /// Something went wrong.
    Failed(Status),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

/// Whether a quota's status does not speak of what its spec does.
pub(super) fn is_stale(engine: &Engine, quota: &Value) -> bool {
    let (spec, status) = (&quota["spec"], &quota["status"]);
    let hard = amounts::of(&spec["hard"]);
    let used = amounts::of(&status["used"]);
    let counted = |name: &String| owner(name).is_some_and(|resource| engine.registry.stored(resource).is_some());
    hard != amounts::of(&status["hard"]) || hard.keys().any(|name| counted(name) && !used.contains_key(name))
}

async fn set_used(engine: &Arc<Engine>, entry: &Entry, mut quota: Value, more: &Amounts) -> Result<Written, Status> {
    let mut used = amounts::of(&quota["status"]["used"]);
    amounts::add(&mut used, more);
    quota["status"]["used"] = as_map(&used);
    engine.put_without_sync(QUOTAS, entry, &quota).await
}

/// Amounts as they are written in an object.
pub(super) fn as_map(amounts: &Amounts) -> Value {
    let map: Map<String, Value> = amounts.iter().map(|(name, q)| (name.clone(), json!(q.to_string()))).collect();
    Value::Object(map)
}
