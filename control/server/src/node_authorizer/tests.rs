//! Decisions over a store with two nodes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};
use wherry_api::encode::Encoded;
use wherry_api::resource::Registry;
use wherry_store::{Key, MemoryStore, Op, Precondition, Store as _, Write};

use super::*;
use crate::rbac::defaults;

async fn put(store: &MemoryStore, resource: &str, mut object: Value) {
    object["metadata"]["uid"] = json!("u");
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    let attributes = Registry::builtin().stored(resource).unwrap().attributes(&object);
    let op = Op::Put { object: Encoded::new(&object).unwrap(), attributes, uid: "u".into() };
    let key = Key::new(resource, text("namespace"), text("name"));
    store.write(Write { key, precondition: Precondition::Any, op, durable: false }).await.unwrap();
}

async fn delete_pod(store: &MemoryStore, name: &str) {
    let op = Op::Delete { object: Encoded::new(&json!({"metadata": {"name": name}})).unwrap() };
    let key = Key::new("pods", "x", name);
    store.write(Write { key, precondition: Precondition::Any, op, durable: false }).await.unwrap();
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "x"},
        "spec": {
            "nodeName": node, "serviceAccountName": "account",
            "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "map"}}]}],
            "volumes": [
                {"name": "s", "secret": {"secretName": "secret"}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
            ],
        },
    })
}

/// `VERB GROUP/RESOURCE[/SUBRESOURCE] NAMESPACE/NAME [FIELD SELECTOR]`; a dash is nothing.
fn ask(text: &'static str) -> Attributes<'static> {
    let dash = |text: &'static str| if text == "-" { "" } else { text };
    let words: Vec<&str> = text.split(' ').collect();
    let resource: Vec<&str> = words[1].split('/').collect();
    let (namespace, name) = words[2].split_once('/').unwrap();
    Attributes {
        is_resource: true,
        verb: words[0],
        group: dash(resource[0]),
        resource: resource[1],
        subresource: resource.get(2).copied().unwrap_or_default(),
        namespace: dash(namespace),
        name: dash(name),
        fields: words.get(3).copied().unwrap_or_default(),
        path: "",
    }
}

const OWN: [&str; 30] = [
    "get -/secrets x/secret",
    "watch -/secrets x/secret",
    "get -/secrets x/volume-secret",
    "list -/configmaps x/map",
    "get -/serviceaccounts x/account",
    "create -/serviceaccounts/token x/account",
    "get -/persistentvolumeclaims x/claim",
    "patch -/persistentvolumeclaims/status x/claim",
    "get -/persistentvolumes -/volume",
    "patch -/persistentvolumes -/kept",
    "get storage.k8s.io/volumeattachments -/attachment",
    "get -/pods x/p",
    "watch -/pods x/p",
    "list -/pods -/- spec.nodeName=a",
    "watch -/pods -/- spec.nodeName=a,status.phase!=Failed",
    "create -/pods x/-",
    "delete -/pods x/q",
    "patch -/pods/status x/q",
    "create -/pods/eviction x/q",
    "create -/nodes -/-",
    "get -/nodes -/a",
    "watch -/nodes -/a",
    "patch -/nodes/status -/a",
    "create coordination.k8s.io/leases kube-node-lease/-",
    "update coordination.k8s.io/leases kube-node-lease/a",
    "delete storage.k8s.io/csinodes -/a",
    "list -/services -/-",
    "create -/events x/-",
    "create certificates.k8s.io/certificatesigningrequests -/-",
    "watch node.k8s.io/runtimeclasses -/-",
];

const OTHERS: [(&str, &str); 31] = [
    ("get resource.k8s.io/resourceclaims x/c", "no relationship found between node 'a' and this object"),
    ("get -/secrets x/other", "no relationship found between node 'a' and this object"),
    ("get -/secrets y/secret", "no relationship found between node 'a' and this object"),
    ("list -/secrets x/-", "No Object name found"),
    ("list -/secrets -/-", "can only read namespaced object of this type"),
    ("update -/secrets x/secret", "can only read resources of this type"),
    ("get -/configmaps x/secret", "no relationship found between node 'a' and this object"),
    ("create -/serviceaccounts/token x/default", "no relationship found between node 'a' and this object"),
    ("create -/serviceaccounts x/-", "can only create tokens for individual service accounts"),
    ("list -/persistentvolumeclaims x/-", "can only get individual resources of this type"),
    ("update -/persistentvolumeclaims x/claim", "can only get individual resources of this type"),
    ("patch -/persistentvolumes -/volume", "no relationship found between node 'a' and this object"),
    ("patch -/persistentvolumes -/theirs", "no relationship found between node 'a' and this object"),
    ("patch -/persistentvolumes/status -/kept", "can only get individual resources of this type"),
    ("get -/persistentvolumes -/other", "no relationship found between node 'a' and this object"),
    ("get storage.k8s.io/volumeattachments -/other", "no relationship found between node 'a' and this object"),
    ("get -/pods x/q", "no relationship found between node 'a' and this object"),
    ("list -/pods -/-", "can only list/watch pods with spec.nodeName field selector"),
    ("list -/pods -/- spec.nodeName=b", "can only list/watch pods with spec.nodeName field selector"),
    ("list -/pods -/- spec.nodeName!=a", "can only list/watch pods with spec.nodeName field selector"),
    ("update -/pods x/p", ""),
    ("create -/pods/exec x/p", ""),
    ("deletecollection -/pods x/-", ""),
    ("list -/nodes -/-", "node 'a' cannot read all nodes, only its own Node object"),
    ("get -/nodes -/b", "node 'a' cannot read 'b', only its own Node object"),
    ("delete -/nodes -/a", ""),
    (
        "get coordination.k8s.io/leases kube-node-lease/b",
        "can only access node lease with the same name as the requesting node",
    ),
    ("get coordination.k8s.io/leases x/a", "can only access leases in the \"kube-node-lease\" system namespace"),
    ("get storage.k8s.io/csinodes -/b", "can only access CSINode with the same name as the requesting node"),
    ("create apps/deployments x/-", ""),
    ("list rbac.authorization.k8s.io/clusterroles -/-", ""),
];

#[tokio::test]
async fn a_node_reaches_what_its_pods_need() {
    let store = Arc::new(MemoryStore::new());
    let authorizer = NodeAuthorizer::new(store.clone(), defaults::node_rules());
    let node = User::node("a");
    put(&store, "pods", pod("p", "a")).await;
    let mut plain = pod("q", "b");
    plain["spec"] = json!({"nodeName": "b", "containers": [], "imagePullSecrets": [{"name": "other"}]});
    put(&store, "pods", plain).await;
    put(&store, "persistentvolumes", json!({
        "metadata": {"name": "volume"},
        "spec": {"claimRef": {"namespace": "x", "name": "claim"}, "csi": {"nodeStageSecretRef": {"name": "volume-secret"}}},
    })).await;
    for (name, node) in [("kept", "a"), ("theirs", "b")] {
        put(
            &store,
            "persistentvolumes",
            json!({
                "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": "wherry.dev/local-path"}},
                "spec": {
                    "claimRef": {"namespace": "x", "name": name},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                        {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
                    ]}]}},
                },
            }),
        )
        .await;
    }
    for (name, node) in [("attachment", "a"), ("other", "b")] {
        let attachment = json!({"metadata": {"name": name}, "spec": {"nodeName": node}});
        put(&store, "volumeattachments.storage.k8s.io", attachment).await;
    }
    for text in OWN {
        assert!(authorizer.authorize(&node, &ask(text)).is_allowed(), "{text}");
        // Neither another user nor somebody who only calls themselves a node.
        for user in [User::new("jane", ["system:nodes"]), User::new("system:node:a", Vec::<String>::new())] {
            assert_eq!(authorizer.authorize(&user, &ask(text)), Decision::none(), "{text} {user:?}");
        }
    }
    for (text, why) in OTHERS {
        assert_eq!(authorizer.authorize(&node, &ask(text)), Decision::NoOpinion { reason: why.to_owned() }, "{text}");
    }
    let rules = authorizer.rules(&node, "x");
    assert!(rules.incomplete && rules.rules.is_empty());
}

#[tokio::test]
async fn what_no_pod_needs_any_more_is_out_of_reach() {
    let store = Arc::new(MemoryStore::new());
    let authorizer = NodeAuthorizer::new(store.clone(), Vec::new());
    let node = User::node("a");
    let may = |text| authorizer.authorize(&node, &ask(text)).is_allowed();
    let mut unbound = pod("p", "");
    put(&store, "pods", unbound.clone()).await;
    assert!(!may("get -/secrets x/secret"));
    unbound["spec"]["nodeName"] = json!("a");
    put(&store, "pods", unbound.clone()).await;
    put(&store, "pods", pod("r", "a")).await;
    assert!(may("get -/secrets x/secret"));
    delete_pod(&store, "p").await;
    assert!(may("get -/secrets x/secret"), "the other Pod needs it still");
    // An ephemeral container brings a reference of its own.
    let mut debugged = pod("r", "a");
    debugged["spec"]["ephemeralContainers"] = json!([{"name": "e", "envFrom": [{"secretRef": {"name": "late"}}]}]);
    assert!(!may("get -/secrets x/late"));
    put(&store, "pods", debugged).await;
    assert!(may("get -/secrets x/late"));
    delete_pod(&store, "r").await;
    assert!(!may("get -/secrets x/secret") && !may("get -/secrets x/late") && !may("get -/pods x/r"));
}
