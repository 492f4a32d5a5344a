//! Every change of every Pod, over all lives of the server, by one watch that goes on where it was: which Pods there have been,
//! and that no eviction took more than a budget allows.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};

use crate::load::{GUARDS_LEFT, NAMESPACE};

/// A Pod with a budget.
#[derive(Debug)]
struct Guarded {
    app: String,
    /// A Pod of WebAssembly is not, for a moment, after each kill: that takes nobody's leave.
    has_been_ready: bool,
    leaves: bool,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    revision: String,
    guarded: BTreeMap<String, Guarded>,
    /// Of all Pods that there have been.
    pub(crate) uids: BTreeSet<String>,
    pub(crate) evictions: usize,
}

pub(crate) type Changes = std::pin::Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<Pod>>> + Send>>;

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

impl Journal {
    /// Watches from where it was left, or from now.
    pub(crate) async fn changes(&mut self, client: &Client) -> anyhow::Result<Changes> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
        if self.revision.is_empty() {
            let list = pods.list(&ListParams::default()).await?;
            for pod in &list.items {
                self.see(pod, false)?;
            }
            self.revision = list.metadata.resource_version.unwrap_or_default();
        }
        let parameters = WatchParams { bookmarks: true, ..WatchParams::default() };
        Ok(Box::pin(pods.watch(&parameters, &self.revision).await?))
    }

    /// Takes in all changes until the connection ends.
    pub(crate) async fn follow(self, changes: Changes) -> anyhow::Result<Self> {
        self.until(changes, std::future::pending::<()>()).await
    }

    /// Takes in all changes until `stop`, or until the connection ends.
    pub(crate) async fn until(mut self, mut changes: Changes, stop: impl Future) -> anyhow::Result<Self> {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                biased;
                next = changes.next() => match next {
                    Some(Ok(event)) => self.take(event)?,
                    _ => return Ok(self),
                },
                _ = &mut stop => return Ok(self),
            }
        }
    }

    fn take(&mut self, event: WatchEvent<Pod>) -> anyhow::Result<()> {
        match event {
            WatchEvent::Bookmark(mark) => self.revision = mark.metadata.resource_version,
            WatchEvent::Error(status) => bail!("the watch of all Pods does not go on: {status:?}"),
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => self.see(&pod, false)?,
            WatchEvent::Deleted(pod) => self.see(&pod, true)?,
        }
        Ok(())
    }

    fn see(&mut self, pod: &Pod, gone: bool) -> anyhow::Result<()> {
        self.revision = pod.resource_version().unwrap_or_default();
        let (uid, app) = (pod.uid().unwrap_or_default(), pod.labels().get("app").cloned().unwrap_or_default());
        self.uids.insert(uid.clone());
        if !app.starts_with("guard-") {
            return Ok(());
        }
        let leaves = gone || pod.metadata.deletion_timestamp.is_some();
        let known = self.guarded.entry(uid.clone()).or_insert(Guarded {
            app: app.clone(),
            has_been_ready: false,
            leaves: false,
        });
        known.has_been_ready |= condition(pod, "Ready").is_some();
        let begins_to_leave = leaves && !std::mem::replace(&mut known.leaves, leaves);
        if begins_to_leave {
            let reason = condition(pod, "DisruptionTarget").and_then(|condition| condition.reason.clone());
            ensure!(
                reason.as_deref() == Some("EvictionByEvictionAPI"),
                "{} leaves by nobody's eviction: {:?}",
                pod.name_any(),
                pod.status
            );
            self.evictions += 1;
            let others = self.guarded.values().filter(|pod| pod.app == app && pod.has_been_ready && !pod.leaves);
            let others = others.count();
            ensure!(
                others >= GUARDS_LEFT,
                "with {} evicted, {others} Pods of {app} are left: {self:?}",
                pod.name_any()
            );
        }
        if gone {
            self.guarded.remove(&uid);
        }
        Ok(())
    }
}
