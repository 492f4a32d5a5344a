//! The end of this node's volumes of the class local-path: once such a volume is being deleted, its directory goes, and then the
//! finalizer that has kept the object. A volume that is to be retained keeps its directory.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::volumes::remove_all;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use wherry_reconcile::{Informer, ObjectKey, Outcome, Queue, Reconciler, storage};

/// See the module's documentation.
pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) node: String,
    /// The directory that holds those of the volumes, by name.
    pub(crate) dir: PathBuf,
    pub(crate) volumes: Informer<PersistentVolume>,
}

/// Why a volume is still there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot remove {}: {error}", dir.display())]
    Remove { dir: PathBuf, error: io::Error },
    #[error(transparent)]
    Api(#[from] kube::Error),
}

impl Keeper {
    /// Runs until cancelled.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        let keeper = Arc::new(self);
        let queue = Queue::new();
        let mut changes = keeper.volumes.subscribe();
        let feed = async {
            while let Some(Some(change)) = cancel.run_until_cancelled(changes.next()).await {
                if change.new.as_ref().is_some_and(|volume| keeper.is_ending(volume)) {
                    queue.add(change.key());
                }
            }
        };
        let work = wherry_reconcile::run("local-path", queue.clone(), 2, keeper.clone(), cancel.clone());
        tokio::join!(feed, work);
    }

    /// Whether it is ours to end.
    fn is_ending(&self, volume: &PersistentVolume) -> bool {
        let meta = &volume.metadata;
        meta.deletion_timestamp.is_some()
            && storage::local_path_node(volume) == Some(&self.node)
            && meta.finalizers.iter().flatten().any(|finalizer| finalizer == storage::LOCAL_PATH)
            // Nobody may be using it.
            && volume.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound")
    }
}

impl Reconciler<ObjectKey> for Keeper {
    type Error = Error;

    async fn reconcile(&self, key: ObjectKey) -> Result<Outcome, Error> {
        let Some(volume) = self.volumes.get_key(&key).filter(|volume| self.is_ending(volume)) else {
            return Ok(Outcome::Done);
        };
        let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
        if policy == Some("Delete") {
            // A volume's name is one component of a path: the server sees to it.
            let dir = self.dir.join(&key.name);
            let removed = tokio::task::spawn_blocking({
                let dir = dir.clone();
                move || remove_all(&dir)
            });
            let removed = removed.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            removed.map_err(|error| Error::Remove { dir, error })?;
        }
        let meta = &volume.metadata;
        let rest: Vec<_> = meta.finalizers.iter().flatten().filter(|name| *name != storage::LOCAL_PATH).collect();
        let patch = json!({"metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": rest,
        }});
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        match api.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Outcome::Done),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Outcome::Done),
        }
    }
}
