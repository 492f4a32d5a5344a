//! status, scale, binding, eviction, log.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wherry_server::{AsyncReadWrite, Config, ConnectError, NodeConnector};

use crate::harness::*;

#[tokio::test]
async fn scale_is_a_view() {
    let api = Api::new().await;
    api.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let mut scale = api.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"]["selector"], "app=d");
    scale["spec"]["replicas"] = json!(4);
    assert_eq!(api.put(&path, &scale).await.expect(200)["spec"]["replicas"], 4);
    assert_eq!(api.put(&path, &scale).await.expect(409)["reason"], "Conflict");
    assert_eq!(api.merge(&path, &json!({"spec": {"replicas": 1}})).await.expect(200)["spec"]["replicas"], 1);
    assert_eq!(api.merge(&path, &json!({"spec": {"replicas": -1}})).await.code, 422);
    let object = api.get(&format!("{DEPLOYMENTS}/d")).await.expect(200);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(1), &json!(3)));
    assert_eq!(api.get(&format!("{MAPS}/d/scale")).await.code, 404);
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = Api::new().await;
    api.post(PODS, &pod("a")).await.expect(201);
    let awaited = json!({"status": {"nominatedNodeName": "n1"}});
    let awaited = api.merge(&format!("{PODS}/a/status"), &awaited).await.expect(200);
    assert_eq!(awaited["status"]["nominatedNodeName"], "n1");
    let path = format!("{PODS}/a/binding");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(api.post(&path, &binding).await.expect(201)["status"], "Success");
    let bound = api.get(&format!("{PODS}/a")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert!(bound["status"].get("nominatedNodeName").is_none(), "it has its node");
    assert_eq!(
        (&bound["status"]["conditions"][0]["type"], &bound["status"]["conditions"][0]["status"]),
        (&json!("PodScheduled"), &json!("True"))
    );
    let again = api.post(&path, &binding).await.expect(409);
    assert!(again["message"].as_str().unwrap().contains("already assigned to node \"n1\""));
    assert_eq!(api.post(&format!("{PODS}/none/binding"), &binding).await.code, 400);
    assert_eq!(
        api.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await.value()["items"].as_array().unwrap().len(),
        1
    );
    api.post(PODS, &pod("b")).await.expect(201);
    let other = json!({"metadata": {"name": "b"}, "target": {"name": "n2"}});
    api.post("/api/v1/namespaces/default/bindings", &other).await.expect(201);
    assert_eq!(api.get(&format!("{PODS}/b")).await.value()["spec"]["nodeName"], "n2");
}

#[tokio::test]
async fn an_eviction_deletes() {
    let api = Api::new().await;
    api.post(PODS, &pod("a")).await.expect(201);
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a", "namespace": "default"}});
    api.post(&format!("{PODS}/a/eviction"), &eviction).await.expect(201);
    assert_eq!(api.get(&format!("{PODS}/a")).await.code, 404);
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let api = Api::new().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    api.post(budgets, &budget).await.expect(201);
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for name in ["a", "b"] {
        let mut web = pod(name);
        web["metadata"]["labels"] = json!({"app": "web"});
        api.post(PODS, &web).await.expect(201);
        api.merge(&format!("{PODS}/{name}/status"), &running).await.expect(200);
    }
    let evict = async |name: &str| {
        let eviction = json!({"metadata": {"name": name}, "deleteOptions": {"gracePeriodSeconds": 0}});
        api.post(&format!("{PODS}/{name}/eviction"), &eviction).await
    };
    let refused = evict("a").await.expect(429);
    assert!(
        refused["details"]["causes"][0]["message"].as_str().unwrap().contains("still being processed"),
        "{refused}"
    );
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1,
        "expectedPods": 2}});
    api.merge(&format!("{budgets}/web/status"), &status).await.expect(200);
    evict("a").await.expect(201);
    let left = api.get(&format!("{budgets}/web")).await.value();
    assert_eq!(left["status"]["disruptionsAllowed"], 0);
    assert!(left["status"]["disruptedPods"]["a"].is_string(), "{left}");
    let refused = evict("b").await.expect(429);
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget");
    // A second budget is one too many.
    let mut second = budget.clone();
    second["metadata"]["name"] = "other".into();
    api.post(budgets, &second).await.expect(201);
    evict("b").await.expect(500);
    // Who has ended serves nobody.
    api.merge(&format!("{PODS}/b/status"), &json!({"status": {"phase": "Failed"}})).await.expect(200);
    evict("b").await.expect(201);
}

#[tokio::test]
async fn status_of_a_pod() {
    let api = Api::new().await;
    api.post(PODS, &pod("a")).await.expect(201);
    let path = format!("{PODS}/a/status");
    let patched = api.merge(&path, &json!({"status": {"phase": "Running", "podIP": "10.0.0.9"}})).await.expect(200);
    assert_eq!(patched["status"]["phase"], "Running");
    assert_eq!(
        api.get(&format!("{PODS}?fieldSelector=status.podIP%3D10.0.0.9")).await.value()["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

/// An agent that answers each request with its request line.
struct Echo;

#[async_trait]
impl NodeConnector for Echo {
    async fn connect(&self, node: &str) -> Result<Box<dyn AsyncReadWrite>, ConnectError> {
        if node != "n1" {
            return Err(ConnectError::Unknown(node.to_owned()));
        }
        let (mut agent, server) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(agent.read_u8().await.unwrap());
            }
            let line = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
            let (code, body) = if line.contains("previous=true") {
                ("400 Bad Request", "previous terminated container not found".to_owned())
            } else {
                ("200 OK", line)
            };
            let answer = format!("HTTP/1.1 {code}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            agent.write_all(answer.as_bytes()).await.unwrap();
        });
        Ok(Box::new(server))
    }
}

#[tokio::test]
async fn logs_come_from_the_node() {
    let mut config = Config::new(store());
    config.nodes = Arc::new(Echo);
    let api = Api::over(config).await;
    api.post(PODS, &pod("a")).await.expect(201);
    let path = format!("{PODS}/a/log");
    let nothing = api.get(&path).await;
    assert_eq!((nothing.code, nothing.text.as_str()), (200, ""));
    let binding = json!({"metadata": {"name": "a"}, "target": {"name": "n1"}});
    api.post(&format!("{PODS}/a/binding"), &binding).await.expect(201);
    let log = api.get(&format!("{path}?tailLines=5&timestamps=true&container=c&bogus=1")).await;
    assert_eq!(log.text, "GET /containerLogs/default/a/c?tailLines=5&timestamps=true HTTP/1.1");
    assert_eq!(log.headers["content-type"], "text/plain");
    assert_eq!(
        api.get(&format!("{path}?previous=true")).await.expect(400)["message"],
        "previous terminated container not found"
    );
    assert_eq!(
        api.get(&format!("{path}?container=x")).await.expect(400)["message"],
        "container x is not valid for pod a"
    );
    assert_eq!(api.get(&format!("{path}?tailLines=-1")).await.code, 422);
    let mut elsewhere = pod("b");
    elsewhere["spec"]["nodeName"] = json!("n2");
    api.post(PODS, &elsewhere).await.expect(201);
    assert_eq!(api.get(&format!("{PODS}/b/log")).await.code, 500);
}
