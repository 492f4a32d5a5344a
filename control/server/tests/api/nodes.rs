//! What a node's agent may reach and write: its own.

use serde_json::{Value, json};
use wherry_server::User;

use crate::harness::*;

const NODES: &str = "/api/v1/nodes";

fn node(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}})
}

fn bound(name: &str, node: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["nodeName"] = json!(node);
    pod
}

/// The refusal without the object that it begins with.
fn why(refused: Value) -> String {
    let message = refused["message"].as_str().unwrap().to_owned();
    message.split_once(" is forbidden: ").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_node_reads_what_its_pods_need() {
    let api = Api::new().await;
    let agent = api.as_user(User::node("a"));
    let mut mine = bound("mine", "a");
    mine["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    api.post(PODS, &mine).await.expect(201);
    api.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "s"}})).await.expect(201);
    agent.get("/api/v1/namespaces/default/secrets/s").await.expect(200);
    agent.get(&format!("{PODS}?fieldSelector=spec.nodeName=a")).await.expect(200);
    let refused = agent.get("/api/v1/namespaces/default/secrets").await.expect(403);
    assert_eq!(
        refused["message"],
        "secrets is forbidden: User \"system:node:a\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\": No Object name found"
    );
    api.delete(&format!("{PODS}/mine"), Some(json!({"gracePeriodSeconds": 0}))).await.expect(200);
    agent.get("/api/v1/namespaces/default/secrets/s").await.expect(403);
}

#[tokio::test]
async fn a_node_writes_its_own_node() {
    let api = Api::new().await;
    let agent = api.as_user(User::node("a"));
    let role = json!({"node-role.kubernetes.io/control-plane": ""});
    let refused = agent.post(NODES, &node("a", role.clone())).await.expect(403);
    assert_eq!(
        refused["message"],
        "nodes \"a\" is forbidden: node \"a\" is not allowed to set the following labels: node-role.kubernetes.io/control-plane"
    );
    let refused = agent.post(NODES, &node("b", json!({}))).await.expect(403);
    assert_eq!(why(refused), "node \"a\" is not allowed to modify node \"b\"");
    agent.post(NODES, &node("a", json!({"kubernetes.io/os": "linux", "x": "y"}))).await.expect(201);
    api.post(NODES, &node("b", json!({}))).await.expect(201);
    let own = format!("{NODES}/a");
    agent.get(&own).await.expect(200);
    agent.get(&format!("{NODES}/b")).await.expect(403);
    agent.merge(&own, &json!({"metadata": {"labels": {"x": "z"}}})).await.expect(200);
    let refused = agent.merge(&own, &json!({"metadata": {"labels": role}})).await.expect(403);
    assert_eq!(why(refused), "is not allowed to modify labels: node-role.kubernetes.io/control-plane");
    let refused = agent.merge(&own, &json!({"spec": {"taints": null}})).await.expect(403);
    assert_eq!(why(refused), "node \"a\" is not allowed to modify taints");
    agent.merge(&format!("{own}/status"), &json!({"status": {"phase": "Running"}})).await.expect(200);
    let other = agent.merge(&format!("{NODES}/b/status"), &json!({"status": {}})).await.expect(403);
    assert_eq!(why(other), "node \"a\" is not allowed to modify node \"b\"");
    agent.delete(&own, None).await.expect(403);

    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    agent.post(leases, &json!({"metadata": {"name": "a"}, "spec": {}})).await.expect(201);
    let refused = agent.post(leases, &json!({"metadata": {"name": "b"}, "spec": {}})).await.expect(403);
    assert_eq!(why(refused), "can only access node lease with the same name as the requesting node");
}

#[tokio::test]
async fn a_node_writes_its_own_pods() {
    let api = Api::new().await;
    let agent = api.as_user(User::node("a"));
    api.post(PODS, &bound("mine", "a")).await.expect(201);
    api.post(PODS, &bound("theirs", "b")).await.expect(201);
    let running = json!({"status": {"phase": "Running"}});
    agent.merge(&format!("{PODS}/mine/status"), &running).await.expect(200);
    let refused = agent.merge(&format!("{PODS}/theirs/status"), &running).await.expect(403);
    assert_eq!(why(refused), "node \"a\" can only update pod status for pods with spec.nodeName set to itself");
    let labels = json!({"metadata": {"labels": {"app": "other"}}});
    let refused = agent.merge(&format!("{PODS}/mine/status"), &labels).await.expect(403);
    assert_eq!(why(refused), "node \"a\" cannot update labels through pod status");
    let refused = agent.post(PODS, &bound("new", "a")).await.expect(403);
    assert!(why(refused).ends_with("node \"a\" can only create mirror pods"));
    let evict = async |name: &str| {
        let eviction = json!({"metadata": {"name": name}, "deleteOptions": {"dryRun": ["All"]}});
        agent.post(&format!("{PODS}/{name}/eviction"), &eviction).await
    };
    evict("mine").await.expect(201);
    let refused = evict("theirs").await.expect(403);
    assert_eq!(why(refused), "node a can only evict pods with spec.nodeName set to itself");
    let refused = agent.delete(&format!("{PODS}/theirs"), None).await.expect(403);
    assert_eq!(why(refused), "node \"a\" can only delete pods with spec.nodeName set to itself");
    agent.delete(&format!("{PODS}/mine"), Some(json!({"gracePeriodSeconds": 0}))).await.expect(200);
}

#[tokio::test]
async fn a_node_asks_for_tokens_of_its_pods() {
    let api = Api::new().await;
    let agent = api.as_user(User::node("a"));
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    api.post(accounts, &json!({"metadata": {"name": "runner"}})).await.expect(201);
    let with_account = |name: &str, node: &str| {
        let mut pod = bound(name, node);
        pod["spec"]["serviceAccountName"] = json!("runner");
        pod["spec"]["volumes"] = json!([{
            "name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]},
        }]);
        pod
    };
    let path = format!("{accounts}/runner/token");
    let ask = async |reference: Value, audiences: Value| {
        agent.post(&path, &json!({"spec": {"boundObjectRef": reference, "audiences": audiences}})).await
    };
    // No Pod of the account runs on the node yet.
    ask(Value::Null, json!([])).await.expect(403);
    let mine = api.post(PODS, &with_account("mine", "a")).await.expect(201);
    let theirs = api.post(PODS, &with_account("theirs", "b")).await.expect(201);
    let of = |pod: &Value| {
        let metadata = &pod["metadata"];
        json!({"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]})
    };
    ask(of(&mine), json!([])).await.expect(201);
    ask(of(&mine), json!(["vault"])).await.expect(201);
    let refused = ask(of(&mine), json!(["bank"])).await.expect(403);
    assert_eq!(
        why(refused),
        "audience \"bank\" not found in pod spec volume, system:node:a is not authorized to request tokens for this audience"
    );
    let refused = ask(of(&theirs), json!([])).await.expect(403);
    assert_eq!(why(refused), "node requested token bound to a pod scheduled on a different node");
    assert_eq!(why(ask(Value::Null, json!([])).await.expect(403)), "node requested token not bound to a pod");
    let mut nameless = of(&mine);
    nameless["uid"] = json!("");
    let refused = ask(nameless, json!([])).await.expect(403);
    assert_eq!(why(refused), "node requested token with a pod binding without a uid");
}

#[tokio::test]
async fn a_node_lets_go_of_volumes_on_its_disk_that_are_being_deleted() {
    let api = Api::new().await;
    let agent = api.as_user(User::node("a"));
    const VOLUMES: &str = "/api/v1/persistentvolumes";
    let volume = |name: &str, node: &str| {
        json!({
            "metadata": {
                "name": name, "finalizers": ["wherry.dev/local-path"],
                "annotations": {"pv.kubernetes.io/provisioned-by": "wherry.dev/local-path"},
            },
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": "/d"},
                "claimRef": {"namespace": "default", "name": "c"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
                ]}]}},
            },
        })
    };
    for (name, node) in [("mine", "a"), ("theirs", "b")] {
        api.post(VOLUMES, &volume(name, node)).await.expect(201);
    }
    let free = json!({"metadata": {"finalizers": ["kubernetes.io/pv-protection"]}});
    let may = "may only let go of volumes on its own disk that are being deleted";
    assert_eq!(why(agent.merge(&format!("{VOLUMES}/mine"), &free).await.expect(403)), may);
    for name in ["mine", "theirs"] {
        api.delete(&format!("{VOLUMES}/{name}"), None).await.expect(200);
    }
    let more =
        json!({"metadata": {"finalizers": ["kubernetes.io/pv-protection"]}, "spec": {"capacity": {"storage": "2Gi"}}});
    assert_eq!(why(agent.merge(&format!("{VOLUMES}/mine"), &more).await.expect(403)), may);
    let unprotected = json!({"metadata": {"finalizers": null}});
    assert_eq!(why(agent.merge(&format!("{VOLUMES}/mine"), &unprotected).await.expect(403)), may);
    assert_eq!(agent.merge(&format!("{VOLUMES}/theirs"), &free).await.code, 403);
    agent.merge(&format!("{VOLUMES}/mine"), &free).await.expect(200);
}
