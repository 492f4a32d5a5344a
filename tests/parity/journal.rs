//! Everything the API has told of Pods and Events, in order: one watch of each, for all scenarios.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::runtime::watcher::{self, watcher};
use serde_json::Value;
use wherry_test::Cluster;

/// A Pod's state, once.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) pod: Value,
    pub(crate) deleted: bool,
}

/// What has been told.
#[derive(Default)]
pub(crate) struct Told {
    /// In order.
    pub(crate) pods: Vec<Seen>,
    /// In order; an Event appears again when its count rises.
    pub(crate) events: Vec<Value>,
}

#[derive(Default)]
struct Shared {
    told: Mutex<Told>,
    more: Condvar,
}

/// See the module's documentation. Ends its watches when dropped.
pub(crate) struct Journal {
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

impl Journal {
    pub(crate) fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let client = runtime.block_on(cluster.client())?;
        let shared = Arc::new(Shared::default());
        let (pods, events) = (Api::<Pod>::all(client.clone()), Api::<Event>::all(client));
        let journal = shared.clone();
        runtime.spawn(async move {
            let mut changes = watcher(pods, watcher::Config::default()).boxed();
            while let Some(change) = changes.next().await {
                let seen = match change {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                        Seen { pod: serde_json::to_value(pod).unwrap(), deleted: false }
                    }
                    Ok(watcher::Event::Delete(pod)) => Seen { pod: serde_json::to_value(pod).unwrap(), deleted: true },
                    _ => continue,
                };
                journal.told.lock().unwrap_or_else(PoisonError::into_inner).pods.push(seen);
                journal.more.notify_all();
            }
        });
        let journal = shared.clone();
        runtime.spawn(async move {
            let mut changes = watcher(events, watcher::Config::default()).boxed();
            while let Some(change) = changes.next().await {
                if let Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) = change {
                    journal
                        .told
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .events
                        .push(serde_json::to_value(event).unwrap());
                    journal.more.notify_all();
                }
            }
        });
        Ok(Self { shared, _runtime: runtime })
    }

    /// Waits until what has been told satisfies `found`.
    pub(crate) fn until<T>(
        &self,
        limit: Duration,
        what: &str,
        mut found: impl FnMut(&Told) -> Option<T>,
    ) -> anyhow::Result<T> {
        let end = std::time::Instant::now() + limit;
        let mut told = self.shared.told.lock().ok().context("the journal is broken")?;
        loop {
            if let Some(found) = found(&told) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                bail!("not told in {limit:?}: {what}");
            }
            told = self.shared.more.wait_timeout(told, left).ok().context("the journal is broken")?.0;
        }
    }
}
