//! Counting anew: the status of a quota from what is in the store and what is under way.
//!
//! Deletions and changes of what objects use lead to a count at once, new objects to one a little later (they were charged;
//! only what was created while its namespace's first quota was is found then), and Pods that are stuck on their way out to one when they
//! stop counting. Upstream's resource quota controller does the same with a resync every five minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::SelectAll;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use wherry_api::meta;
use wherry_api::quantity::{Format, Quantity};
use wherry_api::status::Status;
use wherry_store::{Entry, Event, Key, StoreError, Watch};

use super::ledger::{as_map, is_stale};
use super::measure::{Measure, owner, stuck_at};
use super::{QUOTAS, scopes};
use crate::admission::amounts::{self, Amounts};
use crate::engine::Engine;
use crate::objects::{self, Written};

/// How long to wait for more of the same before counting.
const SOON: Duration = Duration::from_millis(20);
/// When to count again after objects were created, or after a count failed.
const LATER: Duration = Duration::from_secs(1);
/// How often a count is tried while others change the quota.
const TRIES: usize = 32;

/// Keeps the status of all quotas true until `cancel` fires.
pub(crate) async fn run(engine: Arc<Engine>, cancel: CancellationToken) {
    let counting = async {
        loop {
            for name in engine.quotas.due().await {
                let _turn = engine.quotas.turn(&name).await;
                if let Err(status) = namespace(&engine, &name).await {
                    tracing::warn!(namespace = name, %status, "the usage of its quotas could not be counted");
                    engine.quotas.mark(&name, LATER);
                }
            }
        }
    };
    let following = async {
        loop {
            // A follower that was left behind begins anew.
            match follow(&engine).await {
                Ok(()) => std::future::pending().await,
                Err(error) => tracing::debug!(%error, "following what quotas count again"),
            }
        }
    };
    cancel.run_until_cancelled(async { tokio::join!(counting, following) }).await;
}

/// Follows the changes of everything that is counted; returns when the store closes.
async fn follow(engine: &Arc<Engine>) -> Result<(), StoreError> {
    let revision = engine.store.revision();
    let mut watches: SelectAll<Watch> = SelectAll::new();
    let counted: BTreeSet<&Arc<str>> = engine
        .registry
        .resources()
        .filter(|row| row.namespaced && Measure::of(&row.storage.resource).is_some())
        .map(|row| &row.storage.resource)
        .collect();
    for resource in counted {
        watches.push(engine.store.watch(wherry_store::Range::all(Arc::clone(resource)), revision)?);
    }
    for entry in engine.everything(QUOTAS).unwrap_or_default() {
        engine.quotas.mark(&entry.key.namespace, Duration::ZERO);
    }
    while let Some(event) = watches.next().await {
        observe(engine, event?.as_ref());
    }
    Ok(())
}

fn observe(engine: &Engine, event: &Event) {
    let key = &event.entry.key;
    let quotas = engine.of_namespace(QUOTAS, &key.namespace).unwrap_or_default();
    if quotas.is_empty() {
        return;
    }
    let delay = match &event.previous {
        _ if event.deleted => Some(SOON),
        None if *key.resource == *QUOTAS => Some(Duration::ZERO),
        None => Some(LATER),
        Some(previous) => changes_usage(engine, previous, &event.entry).then_some(SOON),
    };
    if let Some(delay) = delay {
        engine.quotas.mark(&key.namespace, delay);
    }
}

/// Whether an update changes what an object uses, or what a quota asks for.
fn changes_usage(engine: &Engine, old: &Entry, new: &Entry) -> bool {
    let resource = &*new.key.resource;
    let (Ok(old), Ok(new)) = (objects::stored_tree(old), objects::stored_tree(new)) else {
        return false;
    };
    if resource == QUOTAS {
        return is_stale(engine, &new);
    }
    let now = Timestamp::now();
    // A Pod that begins to end may be stuck later: its deadline is looked up by the next count.
    let ends = meta::deletion_timestamp(&old).is_none() && meta::deletion_timestamp(&new).is_some();
    Measure::of(resource).is_some_and(|measure| {
        !measure.resource.is_empty()
            && (ends
                || measure.usage(resource, &old, now) != measure.usage(resource, &new, now)
                || scopes::is_terminating(&old) != scopes::is_terminating(&new))
    })
}

/// Counts for all quotas of a namespace. The caller has the namespace's turn.
pub(super) async fn namespace(engine: &Arc<Engine>, namespace: &str) -> Result<(), Status> {
    for entry in engine.of_namespace(QUOTAS, namespace)? {
        quota(engine, &entry.key).await?;
    }
    Ok(())
}

/// Counts for one quota: as it is now, none if it is gone. The caller has the namespace's turn.
pub(super) async fn quota(engine: &Arc<Engine>, key: &Key) -> Result<Option<Arc<Entry>>, Status> {
    for _ in 0..TRIES {
        let Some(entry) = engine.store.get(key) else {
            return Ok(None);
        };
        let old = objects::stored_tree(&entry)?;
        let mut new = old.clone();
        new["status"]["hard"] = old["spec"]["hard"].clone();
        new["status"]["used"] = as_map(&count(engine, key, &old)?);
        if new == old {
            return Ok(Some(entry));
        }
        match engine.put_without_sync(QUOTAS, &entry, &new).await? {
            Written::Done(entry) => return Ok(Some(entry)),
            Written::NotFound => return Ok(None),
            Written::Conflict | Written::Exists => {}
        }
    }
    Err(Status::conflict(&wherry_api::status::GroupResource::new("", QUOTAS), &key.name, wherry_api::status::MODIFIED))
}

/// What is used of what a quota limits.
fn count(engine: &Arc<Engine>, key: &Key, quota: &serde_json::Value) -> Result<Amounts, Status> {
    let hard = amounts::of(&quota["spec"]["hard"]);
    let mut by_resource: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    for name in hard.keys() {
        if let Some(resource) = owner(name).filter(|resource| engine.registry.stored(resource).is_some()) {
            by_resource.entry(resource).or_default().push(name);
        }
    }
    let mut used = Amounts::new();
    for (resource, names) in &by_resource {
        used.extend(names.iter().map(|name| ((*name).clone(), Quantity::ZERO)));
        let of_resource = count_resource(engine, key, quota, resource)?;
        amounts::add(&mut used, &of_resource);
    }
    amounts::add(&mut used, &engine.quotas.pending(engine, &key.namespace, &key.name));
    used.retain(|name, _| hard.contains_key(name));
    Ok(used)
}

fn count_resource(
    engine: &Arc<Engine>,
    key: &Key,
    quota: &serde_json::Value,
    resource: &str,
) -> Result<Amounts, Status> {
    let mut sum = Amounts::new();
    let Some(measure) = Measure::of(resource) else {
        return Ok(sum);
    };
    let entries = engine.of_namespace(resource, &key.namespace)?;
    let now = Timestamp::now();
    let spec = &quota["spec"];
    let scoped = spec["scopes"].as_array().is_some_and(|s| !s.is_empty()) || spec["scopeSelector"].is_object();
    if measure.resource.is_empty() && !scoped {
        // All alike: their number is enough.
        let number = Quantity::new(entries.len() as i64, Format::DecimalSi);
        let names = measure.usage(resource, &serde_json::Value::Null, now).into_keys();
        return Ok(names.map(|name| (name, number)).collect());
    }
    let mut stuck: Option<Timestamp> = None;
    for entry in &entries {
        let object = objects::stored_tree(entry)?;
        if scopes::matches(measure, quota, &object) {
            amounts::add(&mut sum, &measure.usage(resource, &object, now));
        }
        let next = stuck_at(&object).filter(|at| *at >= now && resource == "pods");
        stuck = [stuck, next].into_iter().flatten().min();
    }
    if let Some(wait) = stuck.and_then(|at| Duration::try_from(at.duration_since(now)).ok()) {
        engine.quotas.mark(&key.namespace, wait + LATER);
    }
    Ok(sum)
}
