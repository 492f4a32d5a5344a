//! Events are kept for an hour after they were last written, as upstream keeps them.
//!
//! One task follows the events of the store and holds (deadline, object, revision) in the order in which they were
//! written, which is the order of the deadlines. It sleeps until the first is due, and deletes the object if it is
//! still at that revision; an event that was written again meanwhile has a later entry. After a start everything there
//! is counts as written now.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wherry_api::encode::Encoded;
use wherry_store::{At, Key, Op, Precondition, Range, StoreError, Watch, Write};

use crate::engine::Engine;
use crate::objects;

/// Where events are stored, whichever version they were written in.
const EVENTS: &str = "events";

struct Due {
    at: Instant,
    key: Key,
    revision: u64,
}

/// Deletes events when their time has come, until `cancel` fires.
pub(crate) async fn run(engine: Arc<Engine>, lifetime: Duration, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        // A follower that was left behind begins anew.
        match follow(&engine, lifetime, &cancel).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "following events again"),
        }
    }
}

async fn follow(engine: &Arc<Engine>, lifetime: Duration, cancel: &CancellationToken) -> Result<(), StoreError> {
    let list = engine.store.list(&Range::all(EVENTS), At::Latest)?;
    let mut watch: Watch = engine.store.watch(Range::all(EVENTS), list.revision)?;
    let now = Instant::now();
    let mut due: VecDeque<Due> =
        list.entries.iter().map(|e| Due { at: now + lifetime, key: e.key.clone(), revision: e.revision }).collect();
    loop {
        let next = due.front().map(|d| d.at);
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            event = watch.next() => match event {
                None => return Ok(()),
                Some(Err(error)) => return Err(error),
                Some(Ok(event)) if event.deleted => {}
                Some(Ok(event)) => due.push_back(Due {
                    at: Instant::now() + lifetime,
                    key: event.entry.key.clone(),
                    revision: event.revision,
                }),
            },
            () = until(next) => {
                if let Some(first) = due.pop_front() {
                    expire(engine, &first).await;
                }
            }
        }
    }
}

/// Waits for a moment; for ever where there is none.
pub(crate) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn expire(engine: &Engine, due: &Due) {
    let Some(entry) = engine.store.get(&due.key).filter(|e| e.revision == due.revision) else {
        return;
    };
    let Ok(last) = objects::stored_tree(&entry).and_then(|tree| Encoded::new(&tree)) else {
        return;
    };
    let write = Write {
        key: due.key.clone(),
        precondition: Precondition::Revision(due.revision),
        op: Op::Delete { object: last },
        durable: false,
    };
    if let Err(error) = engine.store.write(write).await {
        tracing::debug!(key = %due.key, %error, "an event outlives its time");
    }
}
