//! What deleting means for a resource: what becomes of dependents by default, and what the answer shows.

use serde_json::Value;
use wherry_api::meta;
use wherry_api::resource::Resource;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Resources whose dependents stay unless the delete says otherwise; for all others they go in the background.
const ORPHANING: [(&str, &str, &str); 2] = [("", "v1", "ReplicationController"), ("batch", "v1", "Job")];
/// Kinds that the garbage collector does not know.
const ALONE: [&str; 1] = ["Event"];
/// Kinds whose delete answers with the object as it was, not with a Status (upstream's `ReturnDeletedObject`).
const SHOWN: [(&str, &str); 19] = [
    ("", "Namespace"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "PodTemplate"),
    ("", "ResourceQuota"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("resource.k8s.io", "DeviceClass"),
    ("resource.k8s.io", "DeviceTaintRule"),
    ("resource.k8s.io", "ResourceClaim"),
    ("resource.k8s.io", "ResourceClaimTemplate"),
    ("resource.k8s.io", "ResourceSlice"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storage.k8s.io", "VolumeAttributesClass"),
    ("resource.k8s.io", "ResourcePoolStatusRequest"),
];

/// Whether the answer to a delete is the object that is gone.
pub(super) fn shows_what_it_deleted(resource: &Resource) -> bool {
    SHOWN.contains(&(resource.group.as_str(), resource.kind.as_str()))
}

/// Sets or removes the finalizers that tell the garbage collector what to do with the dependents: those that the delete asks for,
/// else those that the object has, else the default.
pub(super) fn set_finalizers(resource: &Resource, object: &mut Value, asked: (Option<bool>, Option<bool>)) {
    if ALONE.contains(&resource.kind.as_str()) {
        return;
    }
    let (mut orphan, foreground) = asked;
    let has = |name: &str| meta::finalizers(object).any(|finalizer| finalizer == name);
    let by_default = ORPHANING.contains(&(resource.group.as_str(), resource.version.as_str(), resource.kind.as_str()));
    if orphan.is_none() && by_default && !has(ORPHAN) && !has(FOREGROUND) {
        orphan = Some(true);
    }
    let mut finalizers: Vec<Value> = meta::finalizers(object).map(Value::from).collect();
    for (name, wanted) in [(ORPHAN, orphan), (FOREGROUND, foreground)] {
        let present = finalizers.iter().any(|finalizer| finalizer == name);
        match wanted {
            Some(true) if !present => finalizers.push(name.into()),
            Some(false) if present => finalizers.retain(|finalizer| finalizer != name),
            _ => {}
        }
    }
    let metadata = meta::metadata_mut(object);
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_owned(), finalizers.into());
    }
}
