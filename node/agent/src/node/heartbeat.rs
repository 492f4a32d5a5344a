//! Keeps the Node alive in the eyes of the control plane: a Lease every 10 s, its status when it changes and every 5 min.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Informer, informer::revision_of, nodes};
use wherry_runtime::Runtime;

use super::extended;
use super::register::{Facts, NotReady, register, status};
use crate::ports::{ImageSource, NodeImage};
use crate::shortage::Pressure;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
const REPORT: Duration = Duration::from_secs(300);
/// A renewal that takes longer is begun anew.
const TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);

/// The task that keeps the Node.
pub(crate) struct Heartbeat {
    pub(crate) client: kube::Client,
    pub(crate) facts: Facts,
    pub(crate) images: Arc<dyn ImageSource>,
    pub(crate) runtimes: Vec<Arc<dyn Runtime>>,
    /// What it is short of.
    pub(crate) pressure: watch::Receiver<Pressure>,
    /// Why the node is not ready.
    pub(crate) not_ready: watch::Receiver<NotReady>,
    /// The Nodes: what others write of this one.
    pub(crate) nodes: Informer<Node>,
}

/// What decides whether the status is written before its time.
#[derive(PartialEq)]
struct Reported {
    not_ready: NotReady,
    pressure: Pressure,
    images: Vec<NodeImage>,
}

impl Heartbeat {
    /// Registers the Node (trying until it succeeds), then renews and reports until cancelled.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.beat() => {}
        }
    }

    async fn beat(&mut self) {
        let mut changes = self.nodes.subscribe();
        let mut node = self.register().await;
        let mut last: Option<(Instant, Reported)> = None;
        // A Node that is known already has a network in a moment; until then what an earlier life reported holds, so that
        // a restart of the agent takes no Pod out of its Services.
        let mut returning = node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some());
        let mut tick = tokio::time::interval(RENEW);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let changed = tokio::select! {
                _ = tick.tick() => {
                    if let Err(error) = self.renew(&node).await {
                        tracing::warn!(node = self.facts.name, %error, "cannot renew the node's lease, trying again");
                        tick.reset_after(RETRY);
                    }
                    false
                }
                moved = self.not_ready.changed() => moved.is_ok(),
                moved = self.pressure.changed() => moved.is_ok(),
                Some(change) = changes.next() => {
                    let new = change.new.filter(|new| new.metadata.name == node.metadata.name);
                    let Some(new) = new.filter(|new| revision_of(&**new) >= revision_of(&node)) else { continue };
                    node = Node::clone(&new);
                    if extended::changes(&node).is_empty() {
                        continue;
                    }
                    true
                }
            };
            if std::mem::take(&mut returning) && self.not_ready.borrow().is_some() {
                continue;
            }
            let images = self.images();
            let now = Reported {
                not_ready: self.not_ready.borrow_and_update().clone(),
                pressure: *self.pressure.borrow_and_update(),
                images,
            };
            let due = last.as_ref().is_none_or(|(at, reported)| changed || at.elapsed() >= REPORT || *reported != now);
            if !due {
                continue;
            }
            let patch = status(&self.facts, Some(&node), &now.not_ready, &now.images, now.pressure, Timestamp::now());
            match self.report(patch).await {
                Ok(written) => {
                    node = written;
                    last = Some((Instant::now(), now));
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    // Someone deleted the Node while its agent runs: it comes back.
                    node = self.register().await;
                    last = None;
                    tick.reset_immediately();
                }
                Err(error) => {
                    tracing::warn!(node = self.facts.name, %error, "cannot write the node's status, trying again");
                    last = None;
                    tick.reset_after(RETRY);
                }
            }
        }
    }

    /// The images on the node, by all their names.
    fn images(&self) -> Vec<NodeImage> {
        let prepared: BTreeSet<String> = self.runtimes.iter().flat_map(|runtime| runtime.prepared()).collect();
        let mut images = self.images.list();
        for image in &mut images {
            let ready = nodes::prepared_name(&image.layers)
                .filter(|_| image.layers.iter().all(|layer| prepared.contains(layer)));
            image.names.extend(ready);
        }
        images
    }

    async fn register(&self) -> Node {
        loop {
            match register(&self.client, &self.facts).await {
                Ok(node) => return node,
                Err(error) => tracing::warn!(node = self.facts.name, %error, "cannot register the node, trying again"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn report(&self, patch: Value) -> Result<Node, kube::Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch_status(&self.facts.name, &PatchParams::default(), &Patch::Strategic(patch)).await
    }

    async fn renew(&self, node: &Node) -> Result<(), String> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), LEASE_NAMESPACE);
        let name = &self.facts.name;
        let spec = json!({ "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": micros(Timestamp::now()) });
        let patch = Patch::Merge(json!({ "spec": spec }));
        let renewed = async {
            match api.patch(name, &PatchParams::default(), &patch).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    let owner = json!({ "apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid });
                    let lease = json!({
                        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                        "metadata": { "name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner] },
                        "spec": spec,
                    });
                    let lease = serde_json::from_value(lease).map_err(kube::Error::SerdeError)?;
                    api.create(&PostParams::default(), &lease).await.map(drop)
                }
                other => other.map(drop),
            }
        };
        match tokio::time::timeout(TIMEOUT, renewed).await {
            Ok(done) => done.map_err(|error| error.to_string()),
            Err(_) => Err("the API server did not answer in time".to_owned()),
        }
    }
}

/// A MicroTime: six digits, always.
fn micros(at: Timestamp) -> String {
    at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}
