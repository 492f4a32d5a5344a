//! Who may do what, and the reviews that answer it.

use serde_json::json;
use wherry_server::User;

use crate::harness::*;

#[tokio::test]
async fn strangers_are_refused() {
    let api = Api::new().await;
    let jane = api.as_user(User::new("jane", ["dev"]));
    let refused = jane.get(PODS).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(jane.get("/readyz").await.text, "ok");
    assert_eq!(jane.post(MAPS, &config_map("a", json!({}))).await.code, 403);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.code, 404);
    api.as_user(User::component("kube-scheduler")).get(PODS).await.expect(200);
}

#[tokio::test]
async fn reviews_answer() {
    let api = Api::new().await;
    let jane = api.as_user(User::new("jane", ["dev"]));
    let whoami = jane.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.expect(201);
    assert_eq!(whoami["status"]["userInfo"]["username"], "jane");
    assert_eq!(whoami["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));
    let can = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(jane.post(path, &can).await.expect(201)["status"]["allowed"], false);
    assert_eq!(api.post(path, &can).await.expect(201)["status"]["allowed"], true);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io"), ("content-type", "application/json")];
    assert_eq!(api.send("POST", path, &table, can.to_string()).await.code, 406);
    assert_eq!(api.get(path).await.code, 405);
    let other = json!({"spec": {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(api.post(path, &other).await.expect(201)["status"]["allowed"], false);
    let rules = json!({"spec": {"namespace": "default"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let found = api.post(path, &rules).await.expect(201);
    assert_eq!(found["status"]["resourceRules"][0]["verbs"], json!(["*"]));
    let token = json!({"spec": {"token": "x"}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    assert_ne!(api.post(path, &token).await.expect(201)["status"]["authenticated"], true);
}

#[tokio::test]
async fn every_cluster_has_its_first_objects() {
    let api = Api::new().await;
    for path in [
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/kube-node-lease",
        "/api/v1/namespaces/default/services/kubernetes",
        "/api/v1/namespaces/default/endpoints/kubernetes",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-cluster-critical",
        "/apis/node.k8s.io/v1/runtimeclasses/wasmtime",
    ] {
        assert_eq!(api.get(path).await.code, 200, "{path}");
    }
    // Once more changes nothing.
    let before = api.get("/api/v1/namespaces").await.value();
    api.server.bootstrap().await.unwrap();
    assert_eq!(api.get("/api/v1/namespaces").await.value(), before);
}
