//! Every change of every Pod, over all lives of the server, by one watch that goes on where it was: which Pods there have been,
//! and that no eviction took more than a budget allows.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{bail, ensure};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::load::{GUARDS, GUARDS_LEFT, NAMESPACE};

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

    /// Whether a Pod of `app` may begin to leave: evicted, with enough others that are ready.
    ///
    /// One that is pending is evicted without its budget being asked and without a word on it (upstream's
    /// `canIgnorePDB`, pkg/registry/core/pod/storage/eviction.go). It is missing then; one that its `ReplicaSet` made in excess and
    /// takes back is not.
    fn allow(&self, pod: &Pod, app: &str) -> anyhow::Result<()> {
        let name = pod.name_any();
        let others = || self.guarded.values().filter(|pod| pod.app == app && !pod.leaves);
        let reason = condition(pod, "DisruptionTarget").and_then(|condition| condition.reason.as_deref());
        let ready = others().filter(|pod| pod.has_been_ready).count();
        match reason {
            Some("EvictionByEvictionAPI") => {
                ensure!(ready >= GUARDS_LEFT, "with {name} evicted, {ready} Pods of {app} are left: {self:?}");
            }
            _ => {
                let pending = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending");
                let missing = others().count() < usize::try_from(GUARDS)?;
                ensure!(pending && missing, "{name} leaves by nobody's eviction: {:?}", pod.status);
            }
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
            self.allow(pod, &app)?;
            self.evictions += 1;
        }
        if gone {
            self.guarded.remove(&uid);
        }
        Ok(())
    }
}

#[test]
fn pods_leave_by_eviction_alone() {
    let pod = |uid: &str, status: Value, leaves: bool| -> Pod {
        let deleted = leaves.then_some("2026-01-01T00:00:00Z");
        let metadata = json!({"name": uid, "uid": uid, "labels": {"app": "guard-x"}, "deletionTimestamp": deleted});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    };
    let ready = || json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let pending = || json!({"phase": "Pending"});
    let evicted = |phase: &str| {
        let told = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"});
        json!({"phase": phase, "conditions": [told]})
    };
    let seen = |present: Vec<Value>, leaving: Value| {
        let mut journal = Journal::default();
        for (n, status) in present.into_iter().enumerate() {
            journal.see(&pod(&n.to_string(), status, false), false).unwrap();
        }
        journal.see(&pod("0", leaving, true), false)
    };
    assert!(seen(vec![ready(), ready(), ready()], evicted("Running")).is_ok());
    assert!(seen(vec![ready(), ready(), pending()], evicted("Running")).is_err(), "the budget is broken");
    assert!(seen(vec![ready(), ready(), ready()], ready()).is_err(), "deleted without an eviction");
    assert!(seen(vec![pending(), ready(), ready()], pending()).is_ok());
    assert!(seen(vec![pending(), ready(), ready(), ready()], pending()).is_err(), "there was one too many");
}
