//! Protobuf bodies, both ways: what Go's typed clients speak.

use serde_json::{Value, json};

use crate::harness::*;

const PARTIAL: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PARTIAL_LIST: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";

async fn get(api: &Api, path: &str, accept: &str) -> Answer {
    api.send("GET", path, &[("accept", accept)], "").await
}

/// What the items of a list do not say when they are in it.
fn without_type(mut object: Value) -> Value {
    let map = object.as_object_mut().unwrap();
    map.remove("kind");
    map.remove("apiVersion");
    object
}

#[tokio::test]
async fn protobuf_bodies_are_read() {
    let api = Api::new().await;
    // A ConfigMap `p` with data a=b, as a typed Go client writes it.
    let body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0d\x0a\x03\x0a\x01p\x12\x06\x0a\x01a\x12\x01b\x1a\0\"\0";
    let headers = [
        ("content-type", "application/vnd.kubernetes.protobuf"),
        ("accept", "application/vnd.kubernetes.protobuf,application/json"),
    ];
    let made = api.send("POST", MAPS, &headers, body.to_vec()).await;
    assert_eq!(made.expect_protobuf(201)["data"], json!({"a": "b"}));
    let other = api.send("POST", PODS, &headers, body.to_vec()).await.expect_protobuf(400);
    assert!(other["message"].as_str().unwrap().contains("kind in the data does not match"));
    // DeleteOptions with grace 0.
    let options = b"k8s\0\x0a\x13\x0a\x02v1\x12\x0dDeleteOptions\x12\x02\x08\0";
    let deleted = api.send("DELETE", &format!("{MAPS}/p"), &headers, options.to_vec()).await.expect_protobuf(200);
    assert_eq!((&deleted["kind"], &deleted["status"]), (&json!("Status"), &json!("Success")));
}

#[tokio::test]
async fn objects_and_lists_say_the_same_as_in_json() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.post(PODS, &pod(name)).await.expect(201);
    }
    api.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let default = "/api/v1/namespaces/default";
    let service = "/api/v1/namespaces/default/services/kubernetes";
    for path in [&format!("{PODS}/a"), default, service] {
        let json = api.get(path).await.expect(200);
        assert_eq!(get(&api, path, PROTOBUF).await.expect_protobuf(200), json, "{path}");
    }
    let page = get(&api, &format!("{PODS}?limit=2"), PROTOBUF).await.expect_protobuf(200);
    assert_eq!(page["kind"], "PodList");
    assert_eq!(page["metadata"]["remainingItemCount"], 1);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = get(&api, &format!("{PODS}?limit=2&continue={token}"), PROTOBUF).await.expect_protobuf(200);
    let found = [&page, &rest].map(|page| page["items"].as_array().unwrap().clone()).concat();
    let pods = api.get(PODS).await.expect(200)["items"].as_array().unwrap().iter().cloned().map(without_type).collect();
    assert_eq!(Value::Array(found.into_iter().map(without_type).collect()), Value::Array(pods));
    // What is converted on its way out.
    let scale = get(&api, &format!("{DEPLOYMENTS}/d/scale"), PROTOBUF).await.expect_protobuf(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    let empty = get(&api, MAPS, PROTOBUF).await.expect_protobuf(200);
    assert_eq!(empty["kind"], "ConfigMapList");
}

#[tokio::test]
async fn metadata_alone() {
    let api = Api::new().await;
    let made = api.post(MAPS, &config_map("m", json!({"k": "v"}))).await.expect(201);
    let one = get(&api, &format!("{MAPS}/m"), PARTIAL).await.expect_protobuf(200);
    assert_eq!((&one["kind"], &one["metadata"]), (&json!("PartialObjectMetadata"), &made["metadata"]));
    let list = get(&api, MAPS, PARTIAL_LIST).await.expect_protobuf(200);
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("PartialObjectMetadataList"), &json!("meta.k8s.io/v1")));
    let found = list["items"].as_array().unwrap().iter().find(|o| o["metadata"]["name"] == "m").unwrap();
    assert_eq!(found["metadata"], made["metadata"]);
    // A table is no message: the next best is given.
    let table = format!("{PROTOBUF};as=Table;v=v1;g=meta.k8s.io");
    assert_eq!(get(&api, MAPS, &table).await.code, 406);
    assert_eq!(get(&api, MAPS, &format!("{table},application/json")).await.expect(200)["kind"], "ConfigMapList");
}

#[tokio::test]
async fn failures_are_told_in_the_format_that_was_asked_for() {
    let api = Api::new().await;
    let missing = get(&api, &format!("{MAPS}/x"), PROTOBUF).await.expect_protobuf(404);
    assert_eq!((&missing["kind"], &missing["reason"]), (&json!("Status"), &json!("NotFound")));
    assert_eq!(missing["details"]["name"], "x");
    let unknown = get(&api, "/apis/x.io/v1/things", &format!("{PROTOBUF},application/json")).await;
    assert_eq!(unknown.expect_protobuf(404)["reason"], "NotFound");
    let yaml = get(&api, &format!("{MAPS}/x"), "application/yaml").await;
    assert!(yaml.code == 404 && yaml.text.contains("kind: Status"), "{}", yaml.text);
    assert_eq!(get(&api, &format!("{MAPS}/x"), "application/json,*/*").await.expect(404)["kind"], "Status");
    assert_eq!(get(&api, &format!("{MAPS}/x"), "text/html").await.expect(406)["kind"], "Status");
}

#[tokio::test]
async fn watches() {
    let api = Api::new().await;
    api.post(PODS, &pod("a")).await.expect(201);
    let accept = [("accept", PROTOBUF)];
    let path = format!(
        "{PODS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=app%3Da"
    );
    let mut events = api.watch(&path, &accept).await;
    let (kind, object) = events.next_protobuf().await.unwrap();
    assert_eq!((kind.as_str(), &object), ("ADDED", &api.get(&format!("{PODS}/a")).await.expect(200)));
    let (kind, object) = events.next_protobuf().await.unwrap();
    assert_eq!((kind.as_str(), &object["kind"]), ("BOOKMARK", &json!("Pod")));
    assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let changed = api.merge(&format!("{PODS}/a"), &json!({"metadata": {"annotations": {"x": "y"}}})).await.expect(200);
    assert_eq!(events.next_protobuf().await.unwrap(), ("MODIFIED".to_owned(), changed));
    let left = api.merge(&format!("{PODS}/a"), &json!({"metadata": {"labels": {"app": "b"}}})).await.expect(200);
    let (kind, object) = events.next_protobuf().await.unwrap();
    assert_eq!((kind.as_str(), &object["metadata"]["labels"]["app"]), ("DELETED", &json!("a")));
    assert_eq!(object["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    let mut metadata = api.watch(&format!("{PODS}?watch=1"), &[("accept", PARTIAL)]).await;
    let (kind, object) = metadata.next_protobuf().await.unwrap();
    assert_eq!((kind.as_str(), &object["kind"]), ("ADDED", &json!("PartialObjectMetadata")));
    assert_eq!(object["metadata"], left["metadata"]);
}

#[tokio::test]
async fn large_lists_are_compressed() {
    let api = Api::new().await;
    let filler = "x".repeat(5000);
    for i in 0..60 {
        api.post(MAPS, &config_map(&format!("m{i:03}"), json!({"f": format!("{i}{filler}")}))).await.expect(201);
    }
    let plain = get(&api, MAPS, PROTOBUF).await;
    let gzip = api.send("GET", MAPS, &[("accept", PROTOBUF), ("accept-encoding", "gzip")], "").await;
    assert_eq!(gzip.headers["content-encoding"], "gzip");
    assert_eq!(gzip.bytes, plain.bytes);
    assert_eq!(gzip.expect_protobuf(200)["items"].as_array().unwrap().len(), 60);
}
