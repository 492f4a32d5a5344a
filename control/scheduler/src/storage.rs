//! Claims and volumes as the scheduler knows them, and what it writes of them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use wherry_reconcile::{ObjectKey, storage::SELECTED_NODE};

use crate::filters::Write;

/// Claims, volumes and classes, kept up to date by events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Storage {
    pub(crate) claims: HashMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    pub(crate) volumes: BTreeMap<String, Arc<PersistentVolume>>,
    pub(crate) classes: HashMap<String, Arc<StorageClass>>,
}

impl Storage {
    /// Takes in a claim as it is now, or that it is gone.
    pub(crate) fn set_claim(&mut self, key: ObjectKey, claim: Option<Arc<PersistentVolumeClaim>>) {
        match claim {
            Some(claim) => self.claims.insert(key, claim),
            None => self.claims.remove(&key),
        };
    }

    /// The same for a volume.
    pub(crate) fn set_volume(&mut self, name: String, volume: Option<Arc<PersistentVolume>>) {
        match volume {
            Some(volume) => self.volumes.insert(name, volume),
            None => self.volumes.remove(&name),
        };
    }

    /// The same for a class.
    pub(crate) fn set_class(&mut self, name: String, class: Option<Arc<StorageClass>>) {
        match class {
            Some(class) => self.classes.insert(name, class),
            None => self.classes.remove(&name),
        };
    }
}

/// Tells the volume controller what was decided. Each write is conditional on the version that was decided on.
pub(crate) async fn write(client: Client, writes: Vec<Write>, node: &str) -> Result<(), kube::Error> {
    for write in writes {
        match write {
            Write::Reserve(volume) => {
                let api: Api<PersistentVolume> = Api::all(client.clone());
                let name = volume.metadata.name.clone().unwrap_or_default();
                api.replace(&name, &PostParams::default(), &volume).await?;
            }
            Write::SelectNode(claim) => {
                let meta = &claim.metadata;
                let api: Api<PersistentVolumeClaim> =
                    Api::namespaced(client.clone(), meta.namespace.as_deref().unwrap_or_default());
                let patch = json!({"metadata": {
                    "uid": meta.uid, "resourceVersion": meta.resource_version, "annotations": {SELECTED_NODE: node},
                }});
                api.patch(meta.name.as_deref().unwrap_or_default(), &PatchParams::default(), &Patch::Merge(patch))
                    .await?;
            }
        }
    }
    Ok(())
}
