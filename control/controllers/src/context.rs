//! What every controller is given, and how it is fed.

use crate::Clients;
use kube::Client;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Change, Informers, Recorders, Subscription};

/// Handles that all controllers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    /// The API as the controller.
    pub(crate) client: Client,
    pub(crate) clients: Clients,
    pub(crate) informers: Informers,
    pub(crate) recorders: Recorders,
}

impl Context {
    /// The same with the API as a service account.
    pub(crate) fn acting_as(&self, account: &str) -> Self {
        Self { client: (self.clients)(account), ..self.clone() }
    }
}

/// Hands every change to `handle` until the informer or the controller stops.
pub(crate) async fn feed<K>(
    mut changes: Subscription<K>,
    cancel: &CancellationToken,
    mut handle: impl FnMut(Change<K>),
) {
    while let Some(Some(change)) = cancel.run_until_cancelled(changes.next()).await {
        handle(change);
    }
}
