//! That the files of what was removed go.
//!
//! containerd removes the files of snapshots when it collects, and a removal is to make it do so. But its scheduler drops what is
//! older than the end of the last collection, hence also the removals that came while one was under way, too late for it; and a
//! containerd that was killed has forgotten that there is something to collect. Either way the files would stay until something
//! else is removed, for ever on a node that idles.

use std::collections::HashMap;
use std::sync::Arc;

use containerd_client::services::v1::snapshots::{PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::{CreateRequest, DeleteRequest};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::client::{Backoff, Client, is_lost, unless_exists, unless_missing};

/// The name of the lease and of the snapshot that are made to be removed.
const NAME: &str = "wherry-collect";

/// Has containerd collect after something was `removed`, once for all that was removed meanwhile. Goes on until it is stopped.
pub(crate) async fn collect(client: Client, snapshotter: String, removed: Arc<Notify>, stop: CancellationToken) {
    let work = async {
        loop {
            removed.notified().await;
            let mut backoff = Backoff::new();
            while let Err(status) = once(&client, &snapshotter).await {
                if !is_lost(&status) {
                    tracing::warn!(%status, "containerd can't collect: files of containers that are gone stay until the next one goes");
                    break;
                }
                backoff.wait().await;
            }
        }
    };
    stop.run_until_cancelled(work).await;
}

/// Waits for a collection that begins from now on and looks at the snapshots' files.
async fn once(client: &Client, snapshotter: &str) -> Result<(), Status> {
    // What a snapshotter has to remove is looked for only where a snapshot was removed in this life of containerd's: an empty one.
    let request = PrepareSnapshotRequest {
        snapshotter: snapshotter.to_owned(),
        key: NAME.to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    unless_exists(client.snapshots().prepare(client.call(request)).await)?;
    let request = RemoveSnapshotRequest { snapshotter: snapshotter.to_owned(), key: NAME.to_owned() };
    unless_missing(client.snapshots().remove(client.call(request)).await)?;
    // The end of a lease is the one call of its API that waits.
    let request = CreateRequest { id: NAME.to_owned(), labels: HashMap::new() };
    unless_exists(client.leases().create(client.call(request)).await)?;
    let request = DeleteRequest { id: NAME.to_owned(), sync: true };
    unless_missing(client.leases().delete(client.call(request)).await).map(drop)
}
