//! Decisions over a store.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use serde_json::{Value, json};
use wherry_api::encode::Encoded;
use wherry_api::selector::Attributes as Selectable;
use wherry_store::{Key, MemoryStore, Op, Precondition, Store as _, Write};

use super::*;

async fn put(store: &MemoryStore, resource: &str, namespace: &str, name: &str, mut content: Value) {
    content["metadata"] = json!({"name": name});
    let object = Encoded::new(&content).unwrap();
    let op = Op::Put { object, attributes: Selectable::default(), uid: "u".into() };
    let write = Write { key: Key::new(resource, namespace, name), precondition: Precondition::Any, op, durable: false };
    store.write(write).await.unwrap();
}

fn pods(verb: &str) -> Value {
    json!({"rules": [{"verbs": [verb], "apiGroups": [""], "resources": ["pods"]}]})
}

fn binding(kind: &str, role: &str, subjects: Value) -> Value {
    json!({"roleRef": {"kind": kind, "name": role}, "subjects": subjects})
}

fn ask<'a>(verb: &'a str, namespace: &'a str) -> Attributes<'a> {
    Attributes { is_resource: true, verb, resource: "pods", namespace, ..Attributes::default() }
}

fn allowed(reason: &str) -> Decision {
    Decision::Allow { reason: format!("RBAC: allowed by {reason}") }
}

#[tokio::test]
async fn bindings_grant_roles_to_subjects() {
    let store = Arc::new(MemoryStore::new());
    let rbac = Rbac::new(store.clone());
    put(&store, index::ROLES, "a", "reader", pods("get")).await;
    put(&store, index::CLUSTER_ROLES, "", "lister", pods("list")).await;
    let ann = User::new("ann", ["dev"]);
    assert_eq!(rbac.authorize(&ann, &ask("get", "a")), Decision::none());

    let users = json!([{"kind": "User", "name": "ann"}, {"kind": "Group", "name": "dev"}]);
    put(&store, index::BINDINGS, "a", "b", binding("Role", "reader", users)).await;
    assert_eq!(rbac.authorize(&ann, &ask("get", "a")), allowed(r#"RoleBinding "b/a" of Role "reader" to User "ann""#));
    assert_eq!(rbac.authorize(&ann, &ask("get", "b")), Decision::none());
    assert_eq!(rbac.authorize(&ann, &ask("get", "")), Decision::none());
    assert_eq!(rbac.authorize(&ann, &ask("list", "a")), Decision::none());
    // The user and its group are subjects of the same binding: its rules are listed once.
    assert_eq!(rbac.rules(&ann, "a").rules.len(), 1);
    assert_eq!(rbac.rules(&ann, "b").rules.len(), 0);

    let group = json!([{"kind": "Group", "name": "dev"}]);
    put(&store, index::CLUSTER_BINDINGS, "", "c", binding("ClusterRole", "lister", group)).await;
    let reason = allowed(r#"ClusterRoleBinding "c" of ClusterRole "lister" to Group "dev""#);
    for namespace in ["", "a", "b"] {
        assert_eq!(rbac.authorize(&ann, &ask("list", namespace)), reason, "{namespace}");
    }
    // An account without a namespace is one of the binding's; a binding in a namespace can grant a ClusterRole there.
    let accounts =
        json!([{"kind": "ServiceAccount", "name": "x"}, {"kind": "ServiceAccount", "name": "y", "namespace": "b"}]);
    put(&store, index::BINDINGS, "a", "b", binding("ClusterRole", "lister", accounts)).await;
    for (user, shown) in [("system:serviceaccount:a:x", "x/a"), ("system:serviceaccount:b:y", "y/b")] {
        let user = User::new(user, Vec::<String>::new());
        let reason = format!(r#"RoleBinding "b/a" of ClusterRole "lister" to ServiceAccount "{shown}""#);
        assert_eq!(rbac.authorize(&user, &ask("list", "a")), allowed(&reason));
        assert_eq!(rbac.authorize(&user, &ask("list", "b")), Decision::none());
    }
    // The binding names others now.
    assert_eq!(rbac.authorize(&ann, &ask("get", "a")), Decision::none());
    // The rules of a role change for all its bindings at once.
    put(&store, index::CLUSTER_ROLES, "", "lister", pods("watch")).await;
    assert_eq!(rbac.authorize(&ann, &ask("list", "a")), Decision::none());
    assert!(rbac.authorize(&ann, &ask("watch", "a")).is_allowed());
}

#[tokio::test]
async fn missing_roles_are_told() {
    let store = Arc::new(MemoryStore::new());
    let rbac = Rbac::new(store.clone());
    let ann = json!([{"kind": "User", "name": "ann"}]);
    put(&store, index::CLUSTER_BINDINGS, "", "c", binding("ClusterRole", "x", ann.clone())).await;
    let user = User::new("ann", Vec::<String>::new());
    let missing = r#"clusterrole.rbac.authorization.k8s.io "x" not found"#;
    let said = |decision| match decision {
        Decision::NoOpinion { reason } => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(said(rbac.authorize(&user, &ask("get", "a"))), format!("RBAC: {missing}"));
    put(&store, index::BINDINGS, "a", "r", binding("Role", "y", ann.clone())).await;
    let both = format!(r#"[{missing}, role.rbac.authorization.k8s.io "y" not found]"#);
    assert_eq!(said(rbac.authorize(&user, &ask("get", "a"))), format!("RBAC: {both}"));
    assert_eq!(aggregate(rbac.rules(&user, "a").errors), both);
    // A ClusterRoleBinding cannot refer to a Role.
    put(&store, index::CLUSTER_BINDINGS, "", "c", binding("Role", "y", ann)).await;
    put(&store, index::ROLES, "a", "y", pods("get")).await;
    assert!(!rbac.authorize(&user, &ask("get", "b")).is_allowed());
}
