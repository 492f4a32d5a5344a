//! The volumes of the built-in class: a directory on the disk of the node that the scheduler chose. Pure.
//!
//! The node's agent makes the directory when it is first mounted, and removes it when the volume is deleted; the finalizer
//! keeps the object until then.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::json;
use wherry_reconcile::storage;

/// The volume for a claim of this class on this node; else why there is none.
pub(super) fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: &Node,
) -> Result<PersistentVolume, String> {
    let meta = &claim.metadata;
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.selector.is_some() {
        return Err("claim.spec.selector is not supported for dynamic provisioning on \"wherry.dev/local-path\"".into());
    }
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("block volumes are not supported by wherry.dev/local-path".into());
    }
    let modes = spec.access_modes.clone().unwrap_or_default();
    if let Some(mode) = modes.iter().find(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod")) {
        return Err(format!(
            "access mode {mode} is not supported by wherry.dev/local-path: only ReadWriteOnce and ReadWriteOncePod are"
        ));
    }
    let node_name = node.metadata.name.as_deref().unwrap_or_default();
    let dir = node.metadata.annotations.as_ref().and_then(|all| all.get(storage::LOCAL_PATH_DIR));
    let Some(dir) = dir.filter(|dir| dir.starts_with('/')) else {
        return Err(format!("node {node_name:?} has no directory for volumes of wherry.dev/local-path"));
    };
    let name = format!("pvc-{}", meta.uid.as_deref().unwrap_or_default());
    let hostname = node.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/hostname"));
    let volume = json!({
        "metadata": {
            "name": name,
            "annotations": {storage::PROVISIONED_BY: storage::LOCAL_PATH},
            "finalizers": [storage::LOCAL_PATH],
        },
        "spec": {
            "accessModes": modes,
            "capacity": {"storage": storage::requested(claim).to_string()},
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta.namespace, "name": meta.name,
                "uid": meta.uid, "resourceVersion": meta.resource_version,
            },
            "local": {"path": format!("{}/{name}", dir.trim_end_matches('/'))},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{
                "key": "kubernetes.io/hostname", "operator": "In",
                "values": [hostname.map_or(node_name, String::as_str)],
            }]}]}},
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.metadata.name,
            "volumeMode": "Filesystem",
        },
    });
    serde_json::from_value(volume).map_err(|error| error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_volume_lies_on_the_chosen_node_and_is_its_claims() {
        let claim = |extra: Value| {
            let mut claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}},
            }});
            claim["spec"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            serde_json::from_value::<PersistentVolumeClaim>(claim).unwrap()
        };
        let class: StorageClass =
            serde_json::from_value(json!({"metadata": {"name": "k"}, "provisioner": "p"})).unwrap();
        let node = |annotations: Value| {
            let node = json!({"metadata": {"name": "n1", "annotations": annotations,
                "labels": {"kubernetes.io/hostname": "n1"}}});
            serde_json::from_value::<Node>(node).unwrap()
        };
        let here = node(json!({"wherry.dev/local-path-dir": "/d"}));
        let made = volume(&claim(json!({})), &class, &here).unwrap();
        assert_eq!(made.metadata.name.as_deref(), Some("pvc-u"));
        assert_eq!(storage::local_path_node(&made), Some("n1"));
        assert!(storage::is_reserved_for(&made, &claim(json!({}))));
        let spec = made.spec.unwrap();
        assert_eq!(spec.local.unwrap().path, "/d/pvc-u");
        assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
        assert_eq!(spec.capacity.unwrap()["storage"].0, "2Gi");
        for refused in
            [json!({"volumeMode": "Block"}), json!({"selector": {}}), json!({"accessModes": ["ReadWriteMany"]})]
        {
            assert!(volume(&claim(refused.clone()), &class, &here).is_err(), "{refused}");
        }
        assert!(volume(&claim(json!({})), &class, &node(json!({}))).is_err());
    }
}
