//! Mirror Pods of a node: they are bound to it, owned by it, and refer to nothing: what a Pod refers to, its node may read.

use serde_json::Value;
use wherry_api::meta;
use wherry_api::mirror::{MIRROR, referred};

/// Whether `pod` is a mirror Pod of `node`, as far as it tells itself; the uid of its owner is yet to be compared.
pub(super) fn check(pod: &Value, node: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("node {node:?} can only create pods with {why}"));
    if meta::annotation(pod, MIRROR).is_none() {
        let why = format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods");
        return Err(why);
    }
    if pod["spec"]["nodeName"] != node {
        return refuse("spec.nodeName set to itself");
    }
    let owner = match meta::owner_references(pod) {
        [] => return refuse("an owner reference set to itself"),
        [owner] => owner,
        _ => return refuse("a single owner reference set to itself"),
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return refuse("an owner reference set to itself");
    }
    if owner["controller"] != true {
        return refuse("a controller owner reference set to itself");
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    match referred(&pod["spec"]) {
        Some(what) => Err(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn mirror() -> Value {
        json!({
            "metadata": {
                "name": "p", "annotations": {MIRROR: "x"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true}],
            },
            "spec": {"nodeName": "n", "containers": [{"name": "c"}], "volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        })
    }

    #[test]
    fn only_own_mirror_pods_that_refer_to_nothing_pass() {
        assert_eq!(check(&mirror(), "n"), Ok(()));
        let table: &[(&str, Value, &str)] = &[
            (
                "/metadata/annotations",
                json!({}),
                "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n\" can only create mirror pods",
            ),
            ("/spec/nodeName", json!("m"), "node \"n\" can only create pods with spec.nodeName set to itself"),
            (
                "/metadata/ownerReferences",
                json!([]),
                "node \"n\" can only create pods with an owner reference set to itself",
            ),
            (
                "/metadata/ownerReferences",
                json!([{}, {}]),
                "node \"n\" can only create pods with a single owner reference set to itself",
            ),
            (
                "/metadata/ownerReferences/0/name",
                json!("m"),
                "node \"n\" can only create pods with an owner reference set to itself",
            ),
            (
                "/metadata/ownerReferences/0/controller",
                json!(false),
                "node \"n\" can only create pods with a controller owner reference set to itself",
            ),
            (
                "/spec/containers/0",
                json!({"envFrom": [{"secretRef": {"name": "s"}}]}),
                "node \"n\" can not create pods that reference secrets",
            ),
            (
                "/spec/containers/0",
                json!({"env": [{"valueFrom": {"configMapKeyRef": {"name": "s"}}}]}),
                "node \"n\" can not create pods that reference configmaps",
            ),
            (
                "/spec/volumes/0",
                json!({"secret": {"secretName": "s"}}),
                "node \"n\" can not create pods that reference secrets (via secret volumes)",
            ),
            (
                "/spec/volumes/0",
                json!({"projected": {"sources": [{"downwardAPI": {}}, {"serviceAccountToken": {}}]}}),
                "node \"n\" can not create pods that reference serviceaccounts (via projected volumes)",
            ),
            (
                "/spec/volumes/0",
                json!({"rbd": {"secretRef": {"name": "s"}}}),
                "node \"n\" can not create pods that reference secrets",
            ),
            (
                "/spec/volumes/0",
                json!({"persistentVolumeClaim": {"claimName": "c"}}),
                "node \"n\" can not create pods that reference persistentvolumeclaims",
            ),
        ];
        for (pointer, value, why) in table {
            let mut pod = mirror();
            if let Some(slot) = pod.pointer_mut(pointer) {
                *slot = value.clone();
            }
            assert_eq!(check(&pod, "n"), Err((*why).to_owned()), "{pointer}");
        }
        let mut pod = mirror();
        pod["metadata"]["ownerReferences"][0]["blockOwnerDeletion"] = json!(true);
        assert!(check(&pod, "n").unwrap_err().contains("blockOwnerDeletion"));
        let mut pod = mirror();
        pod["spec"]["serviceAccountName"] = json!("a");
        assert!(check(&pod, "n").unwrap_err().ends_with("serviceaccounts"));
    }
}
