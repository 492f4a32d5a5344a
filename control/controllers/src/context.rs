//! What every controller is given, and how it is fed.

use kube::Client;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Change, Informers, Recorders, Subscription};

/// Handles that all controllers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) informers: Informers,
    pub(crate) recorders: Recorders,
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
