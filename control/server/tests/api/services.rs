//! Cluster IPs and node ports through the API.

use std::collections::HashSet;

use futures::future::join_all;
use serde_json::{Value, json};
use wherry_server::Config;

use crate::harness::*;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn node_port(object: &Value) -> i64 {
    object["spec"]["ports"][0]["nodePort"].as_i64().unwrap()
}

#[tokio::test]
async fn concurrent_services_share_nothing() {
    let api = Api::new().await;
    let all: Vec<_> =
        (0..100).map(|i| service(&format!("s{i}"), json!({"type": "NodePort", "ports": [{"port": 80}]}))).collect();
    let made: Vec<Value> =
        join_all(all.iter().map(|s| api.post(SERVICES, s))).await.into_iter().map(|a| a.expect(201)).collect();
    let ports: HashSet<i64> = made.iter().map(node_port).collect();
    let addresses: HashSet<&str> = made.iter().map(|s| s["spec"]["clusterIP"].as_str().unwrap()).collect();
    assert_eq!((ports.len(), addresses.len()), (100, 100));
    // The same port asked for by many goes to one.
    let same: Vec<_> = (0..10)
        .map(|i| service(&format!("t{i}"), json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30050}]})))
        .collect();
    let codes: Vec<u16> = join_all(same.iter().map(|s| api.post(SERVICES, s))).await.iter().map(|a| a.code).collect();
    assert_eq!(codes.iter().filter(|c| **c == 201).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|c| matches!(c, 201 | 422)));
}

#[tokio::test]
async fn numbers_are_given_back() {
    let api = Api::new().await;
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.7.7", "ports": [{"port": 80, "nodePort": 30007}]});
    let dry = api.post(&format!("{SERVICES}?dryRun=All"), &service("a", spec.clone())).await;
    assert_eq!(dry.code, 201, "{}", dry.text);
    api.post(SERVICES, &service("a", spec.clone())).await.expect(201);
    // Exists: what the second took goes back.
    assert_eq!(
        api.post(SERVICES, &service("a", json!({"clusterIP": "10.96.7.8", "ports": [{"port": 80}]}))).await.code,
        409
    );
    api.post(SERVICES, &service("b", json!({"clusterIP": "10.96.7.8", "ports": [{"port": 80}]}))).await.expect(201);
    let taken = api.post(SERVICES, &service("c", spec.clone())).await.expect(422);
    assert!(taken["message"].as_str().unwrap().contains("provided IP is already allocated"), "{taken}");
    api.delete(&format!("{SERVICES}/a"), None).await.expect(200);
    api.post(SERVICES, &service("c", spec)).await.expect(201);
}

#[tokio::test]
async fn a_restart_remembers() {
    let store = store();
    let first = Api::over(Config::new(store.clone())).await;
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.9.9", "ports": [{"port": 80, "nodePort": 30009}]});
    first.post(SERVICES, &service("a", spec)).await.expect(201);
    let second = Api::over(Config::new(store)).await;
    assert_eq!(
        second.post(SERVICES, &service("b", json!({"clusterIP": "10.96.9.9", "ports": [{"port": 80}]}))).await.code,
        422
    );
    let port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30009}]});
    assert_eq!(second.post(SERVICES, &service("b", port)).await.code, 422);
    let kubernetes = second.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
}

#[tokio::test]
async fn updates_keep_what_is_allocated() {
    let api = Api::new().await;
    let made = api
        .post(SERVICES, &service("a", json!({"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]})))
        .await
        .expect(201);
    let path = format!("{SERVICES}/a");
    let replaced =
        api.put(&path, &service("a", json!({"type": "NodePort", "ports": [{"port": 80}]}))).await.expect(200);
    assert_eq!(replaced["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert_eq!(node_port(&replaced), node_port(&made));
    let internal = api.merge(&path, &json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    assert_eq!(internal["spec"]["ports"][0].get("nodePort"), None);
    let reused = service("b", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port(&made)}]}));
    api.post(SERVICES, &reused).await.expect(201);
}
