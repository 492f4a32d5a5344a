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
async fn impersonation_is_asked_for_and_authorized() {
    let api = Api::new().await;
    let jane = api.as_user(User::new("jane", ["dev"]));
    let as_system = [("impersonate-user", "x"), ("impersonate-group", "system:masters")];
    let refused = jane.send("GET", PODS, &as_system, "").await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("cannot impersonate-on:user-info:list resource \"pods\""));
    api.send("GET", PODS, &as_system, "").await.expect(200);
    assert_eq!(api.send("GET", PODS, &[("impersonate-user", "jane")], "").await.code, 403);
    assert_eq!(api.send("GET", PODS, &[("impersonate-group", "system:masters")], "").await.code, 400);
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let full = [
        ("impersonate-user", "system:serviceaccount:default:robot"),
        ("impersonate-uid", "7"),
        ("impersonate-extra-scopes", "view"),
        ("content-type", "application/json"),
    ];
    let robot = api.send("POST", reviews, &full, "{}").await.expect(201)["status"]["userInfo"].clone();
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!((&robot["uid"], &robot["groups"]), (&json!("7"), &json!(groups)));
    assert_eq!(robot["extra"], json!({"scopes": ["view"]}));
    let refused = jane.send("POST", reviews, &full[2..], "{}").await.expect(400);
    assert!(refused["message"].as_str().unwrap().ends_with("without impersonating a user name"), "{refused}");
}

#[tokio::test]
async fn events_expire() {
    let mut config = wherry_server::Config::new(store());
    config.event_lifetime = std::time::Duration::from_millis(100);
    let api = Api::over(config).await;
    let path = "/api/v1/namespaces/default/events";
    let mut events = api.watch(&format!("{path}?watch=1"), &[]).await;
    let cancel = tokio_util::sync::CancellationToken::new();
    let server = api.server.clone();
    let task = tokio::spawn({
        let cancel = cancel.clone();
        async move { server.maintain(cancel).await }
    });
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "R", "type": "Normal"});
    api.post(path, &event).await.expect(201);
    assert_eq!(events.brief().await, ("ADDED".to_owned(), "e".to_owned()));
    assert_eq!(events.brief().await, ("DELETED".to_owned(), "e".to_owned()));
    let modern = api.get("/apis/events.k8s.io/v1/namespaces/default/events").await.expect(200);
    assert_eq!(modern["items"], json!([]));
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn discovery_and_openapi() {
    let api = Api::new().await;
    let get = async |path: &str, accept: &str| api.send("GET", path, &[("accept", accept)], "").await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let groups = get("/apis", aggregated).await;
    assert_eq!(groups.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert_eq!(groups.value()["kind"], "APIGroupDiscoveryList");
    assert_eq!(get("/api", aggregated).await.value()["items"][0]["versions"][0]["version"], "v1");
    assert_eq!(get("/apis", "application/json").await.value()["kind"], "APIGroupList");
    assert_eq!(get("/api/v1", "application/json").await.value()["kind"], "APIResourceList");
    assert_eq!(get("/apis/apps/v1", "").await.value()["groupVersion"], "apps/v1");
    assert_eq!(get("/apis/bogus", "").await.expect(404)["reason"], "NotFound");
    let index = get("/openapi/v3", "").await.value();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = get(&url, "").await;
    assert!(document.headers["cache-control"].to_str().unwrap().contains("immutable"));
    let tag = document.headers["etag"].to_str().unwrap().to_owned();
    assert!(document.value()["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"].is_object());
    assert_eq!(api.send("GET", "/openapi/v3/apis/apps/v1", &[("if-none-match", &tag)], "").await.code, 304);
    assert_eq!(get("/openapi/v2", "").await.value()["swagger"], "2.0");
    assert_eq!(get("/version", "").await.value()["minor"], "36");
    assert!(get("/readyz?verbose", "").await.text.contains("[+]store ok"));
    assert_eq!(get("/livez/ping", "").await.text, "ok");
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
    let network = api.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await.expect(200);
    assert_eq!(network["spec"]["cidrs"], serde_json::json!(["10.96.0.0/16"]));
    assert_eq!(network["status"]["conditions"][0]["status"], "True");
    // Once more changes nothing.
    let before = api.get("/api/v1/namespaces").await.value();
    api.server.bootstrap().await.unwrap();
    assert_eq!(api.get("/api/v1/namespaces").await.value(), before);
}
