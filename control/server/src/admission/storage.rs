//! Volumes and claims that are in use stay, and only what can grow is asked to.

use async_trait::async_trait;
use serde_json::{Value, json};
use wherry_api::meta;
use wherry_api::quantity::Quantity;
use wherry_api::status::Status;

use super::{Attributes, Operation, Plugin};
use crate::objects;

/// What is protected, and by which finalizer; the protection controller removes it when nobody uses the object.
const PROTECTED: [(&str, &str, &str); 3] = [
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

pub(super) struct StorageObjectInUseProtection;
pub(super) struct PersistentVolumeClaimResize;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let row = PROTECTED.iter().find(|(group, plural, _)| attributes.creates(group, plural));
        let Some((_, _, finalizer)) = row.filter(|(_, _, f)| !meta::finalizers(object).any(|present| present == *f))
        else {
            return Ok(());
        };
        let finalizers = meta::metadata_mut(object).entry("finalizers").or_insert_with(|| json!([]));
        match finalizers.as_array_mut() {
            Some(list) => list.push((*finalizer).into()),
            None => *finalizers = json!([finalizer]),
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), Status> {
        let Some(old) = attributes.old.filter(|_| attributes.is("", "persistentvolumeclaims")) else {
            return Ok(());
        };
        if attributes.operation != Operation::Update || size(object) <= size(old) {
            return Ok(());
        }
        if old["status"]["phase"] != "Bound" {
            return Err(attributes.forbidden("Only bound persistent volume claims can be expanded"));
        }
        let (class, before) = (class(object), class(old));
        let grows = !class.is_empty()
            && class == before
            && match attributes.engine.lookup("storageclasses.storage.k8s.io", "", class) {
                Some(entry) => objects::stored_tree(&entry)?["allowVolumeExpansion"] == true,
                None => false,
            };
        if grows {
            return Ok(());
        }
        Err(attributes.forbidden(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
        ))
    }
}

fn size(claim: &Value) -> Quantity {
    Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO)
}

/// The claim's class; the old annotation wins, as upstream has it.
pub(crate) fn class(claim: &Value) -> &str {
    meta::annotation(claim, "volume.beta.kubernetes.io/storage-class")
        .or_else(|| claim["spec"]["storageClassName"].as_str())
        .unwrap_or_default()
}
