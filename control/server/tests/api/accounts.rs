//! What the ServiceAccount admission gives a new Pod, and what it refuses.

use serde_json::{Value, json};

use crate::harness::*;

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[tokio::test]
async fn a_pod_is_given_its_accounts_token() {
    let api = Api::new().await;
    let spec = api.post(PODS, &pod("p")).await.expect(201)["spec"].clone();
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-"), "{name}");
    let mount = json!([{"name": name, "mountPath": MOUNT_PATH, "readOnly": true}]);
    assert_eq!(spec["containers"][0]["volumeMounts"], mount);
    assert_eq!(
        volume["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]})
    );
    // What a client sends back is as good as what it read.
    let mut read = api.get(&format!("{PODS}/p")).await.expect(200);
    read["metadata"]["labels"]["x"] = "y".into();
    api.put(&format!("{PODS}/p"), &read).await.expect(200);
}

#[tokio::test]
async fn a_pod_without_an_account_is_refused() {
    let api = Api::new().await;
    let mut unknown = pod("p");
    unknown["spec"]["serviceAccountName"] = "nobody".into();
    let refused = api.post(PODS, &unknown).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"p\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found"
    );
}

#[tokio::test]
async fn a_pod_waits_for_the_account_that_every_namespace_gets() {
    let api = Api::new().await;
    let namespace = json!({"metadata": {"name": "fresh"}}).to_string();
    let json = [("content-type", "application/json")];
    assert_eq!(api.send("POST", "/api/v1/namespaces", &json, namespace).await.code, 201);
    let (template, account) = (pod("p"), json!({"metadata": {"name": "default"}}));
    // In this order: the Pod is looked at before its account is there.
    let (made, _) = tokio::join!(
        api.post("/api/v1/namespaces/fresh/pods", &template),
        api.post("/api/v1/namespaces/fresh/serviceaccounts", &account),
    );
    made.expect(201);
}

#[tokio::test]
async fn account_and_pod_opt_out_and_pull_secrets_are_copied() {
    let api = Api::new().await;
    let account = json!({
        "metadata": {"name": "quiet"}, "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "registry"}],
    });
    api.post(ACCOUNTS, &account).await.expect(201);
    let make = async |name: &str, account: &str, automount: Value| {
        let mut pod = pod(name);
        pod["spec"]["serviceAccountName"] = account.into();
        if !automount.is_null() {
            pod["spec"]["automountServiceAccountToken"] = automount;
        }
        api.post(PODS, &pod).await.expect(201)["spec"].clone()
    };
    for (name, account, automount, mounted) in [
        ("a", "quiet", Value::Null, false),
        ("b", "quiet", json!(true), true),
        ("c", "default", json!(false), false),
        ("d", "default", Value::Null, true),
    ] {
        let spec = make(name, account, automount).await;
        assert_eq!(spec["volumes"].is_array(), mounted, "{name}");
        assert_eq!(spec["containers"][0]["volumeMounts"].is_array(), mounted, "{name}");
        let secrets = if account == "quiet" { json!([{"name": "registry"}]) } else { Value::Null };
        assert_eq!(spec["imagePullSecrets"], secrets, "{name}");
    }
}

#[tokio::test]
async fn an_account_may_limit_the_secrets_of_its_pods() {
    let api = Api::new().await;
    let account = json!({
        "metadata": {"name": "strict", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "mine"}],
    });
    api.post(ACCOUNTS, &account).await.expect(201);
    for (secret, code) in [("mine", 201), ("theirs", 403)] {
        let mut pod = pod(secret);
        pod["spec"]["serviceAccountName"] = "strict".into();
        pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": secret}}]);
        let answer = api.post(PODS, &pod).await;
        assert_eq!(answer.code, code, "{}", answer.text);
    }
}
