//! Tells the API for which sleeping Services connections wait on this node, and which connections were not held to the end.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wherry_network::{Refusal, ServiceKey};
use wherry_reconcile::waking::{WAITED_FOR, annotation};
use wherry_reconcile::{Backoff, EventType, Informer, Recorder};

use crate::ports::Waiting;

/// See the module's documentation.
pub(crate) struct Teller {
    pub(crate) client: Client,
    pub(crate) node: String,
    pub(crate) services: Informer<Service>,
    pub(crate) recorder: Recorder,
    pub(crate) waiting: Waiting,
}

impl Teller {
    /// Runs until cancelled. What has changed while something was being told is told in one go.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
        let mut told = None;
        loop {
            let known = annotation(
                self.waiting.waited.borrow_and_update().keys().map(|key| (key.namespace.as_str(), key.name.as_str())),
            );
            let mut again = None;
            if known != told {
                match self.tell(known.as_deref()).await {
                    Ok(()) => {
                        backoff.reset();
                        told = known;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot tell which Services are waited for");
                        again = Some(backoff.next_delay());
                    }
                }
            }
            tokio::select! {
                changed = self.waiting.waited.changed() => if changed.is_err() {
                    return;
                },
                Some((service, refusal)) = self.waiting.refusals.recv() => self.refused(&service, refusal),
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    async fn tell(&self, known: Option<&str>) -> Result<(), kube::Error> {
        let patch = json!({ "metadata": { "annotations": { WAITED_FOR: known } } });
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch(&self.node, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    fn refused(&self, key: &ServiceKey, refusal: Refusal) {
        let Some(service) = self.services.get(&key.namespace, &key.name) else { return };
        let (reason, message) = match refusal {
            Refusal::TooMany => ("TooManyWaiting", "a connection was refused: too many wait for the first Pod already"),
            Refusal::TooLong => ("WakingTimedOut", "a connection was refused: no Pod became ready while it was held"),
        };
        self.recorder.on(&*service, EventType::Warning, reason, message);
    }
}
