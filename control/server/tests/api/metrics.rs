//! `custom.metrics.k8s.io`: what the agents say of Pods, as autoscalers ask for it.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wherry_server::{AsyncReadWrite, Config, ConnectError, NodeConnector, User};

use crate::harness::*;

const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
const DEFAULT: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default";
const METRIC: &str = "http_requests_per_second";

/// Agents that tell the same to whoever asks: by path.
#[derive(Default)]
struct Telling(parking_lot::Mutex<HashMap<&'static str, String>>);

#[async_trait]
impl NodeConnector for Telling {
    async fn connect(&self, _node: &str) -> Result<Box<dyn AsyncReadWrite>, ConnectError> {
        let (mut agent, server) = tokio::io::duplex(4096);
        let documents = self.0.lock().clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(agent.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let document = &documents[head.split(' ').nth(1).unwrap()];
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{document}", document.len());
            agent.write_all(answer.as_bytes()).await.unwrap();
        });
        Ok(Box::new(server))
    }
}

fn values(list: &Value) -> Vec<(&str, &str)> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| (item["describedObject"]["name"].as_str().unwrap(), item["value"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn requests_per_second() {
    let agents = Arc::new(Telling::default());
    let mut config = Config::new(store());
    config.nodes = Arc::clone(&agents) as Arc<dyn NodeConnector>;
    let api = Api::over(config).await;
    let mut told = Vec::new();
    // One of another workload, one of which its runtime sees no requests, one that is a stranger to the agent.
    for (name, app, requests) in [
        ("a", "web", Some("1500m")),
        ("b", "web", Some("2500m")),
        ("c", "web", None),
        ("d", "other", Some("9")),
        ("e", "web", Some("no quantity")),
    ] {
        let mut pod = pod(name);
        pod["spec"]["nodeName"] = json!("n1");
        pod["metadata"]["labels"] = json!({"app": app});
        let uid = api.post(PODS, &pod).await.expect(201)["metadata"]["uid"].clone();
        told.push(json!({"namespace": "default", "name": name, "uid": uid, "containers": [], "requests": requests}));
    }
    told.push(json!({"namespace": "default", "name": "a", "uid": "another", "containers": [], "requests": "100"}));
    let told = json!({
        "timestamp": "2026-01-02T03:04:05Z", "window": "15.5s", "windowSeconds": 15, "node": {"usage": {}}, "pods": told,
    });
    agents.0.lock().insert("/usage", told.to_string());

    let all = api.get(&format!("{DEFAULT}/pods/*/{METRIC}?labelSelector=app%3Dweb")).await.expect(200);
    assert_eq!(values(&all), [("a", "1500m"), ("b", "2500m")]);
    assert_eq!(
        (&all["kind"], &all["apiVersion"]),
        (&json!("MetricValueList"), &json!("custom.metrics.k8s.io/v1beta2"))
    );
    assert_eq!(
        all["items"][0],
        json!({
            "describedObject": {"kind": "Pod", "namespace": "default", "name": "a", "apiVersion": "v1"},
            "metric": {"name": METRIC}, "timestamp": "2026-01-02T03:04:05Z", "windowSeconds": 15, "value": "1500m",
        })
    );
    let one = api.get(&format!("{DEFAULT}/pods/d/{METRIC}")).await.expect(200);
    assert_eq!(values(&one), [("d", "9")]);

    let service = |name: &str, app: &str| {
        let ports = json!([{"port": 80}]);
        json!({"metadata": {"name": name, "labels": {"x": "y"}}, "spec": {"selector": {"app": app}, "ports": ports}})
    };
    for (name, app) in [("web", "web"), ("all-quiet", "nobody"), ("other", "other")] {
        api.post("/api/v1/namespaces/default/services", &service(name, app)).await.expect(201);
    }
    let sum = api.get(&format!("{DEFAULT}/services/web/{METRIC}")).await.expect(200);
    assert_eq!(values(&sum), [("web", "4")]);
    assert_eq!(sum["items"][0]["describedObject"]["kind"], "Service");
    let several = api.get(&format!("{DEFAULT}/services/*/{METRIC}?labelSelector=x%3Dy")).await.expect(200);
    assert_eq!(values(&several), [("all-quiet", "0"), ("other", "9"), ("web", "4")]);

    for (path, why) in [
        ("pods/c/http_requests_per_second", "the server could not find the metric http_requests_per_second for pods c"),
        ("pods/*/packets", "the server could not find the metric packets for pods"),
        ("pods/nobody/http_requests_per_second", "pods.custom.metrics.k8s.io \"nobody\" not found"),
        ("pods/a/connections_per_second", "the server could not find the metric connections_per_second for pods"),
        (
            "pods/a/http_requests_per_second?metricLabelSelector=verb%3DGET",
            "the server could not find the metric http_requests_per_second for pods with metric selector verb=GET",
        ),
        ("ingresses/a/http_requests_per_second", "the server could not find the requested resource"),
    ] {
        assert_eq!(api.get(&format!("{DEFAULT}/{path}")).await.expect(404)["message"], why, "{path}");
    }
    let user = api.as_user(User::new("somebody", Vec::<String>::new()));
    let refused = user.get(&format!("{DEFAULT}/pods/*/{METRIC}")).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods.custom.metrics.k8s.io \"*\" is forbidden: User \"somebody\" cannot get resource \"pods/http_requests_per_second\" in API group \"custom.metrics.k8s.io\" in the namespace \"default\""
    );
    let autoscaler = User::new("system:serviceaccount:kube-system:horizontal-pod-autoscaler", ["system:authenticated"]);
    api.as_user(autoscaler).get(&format!("{DEFAULT}/pods/*/{METRIC}")).await.expect(200);
}

#[tokio::test]
async fn connections_of_all_nodes() {
    let agents = Arc::new(Telling::default());
    let mut config = Config::new(store());
    config.nodes = Arc::clone(&agents) as Arc<dyn NodeConnector>;
    let api = Api::over(config).await;
    for node in ["n1", "n2"] {
        api.post("/api/v1/nodes", &json!({"metadata": {"name": node}})).await.expect(201);
    }
    for name in ["web", "new"] {
        let service = json!({"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}});
        api.post("/api/v1/namespaces/default/services", &service).await.expect(201);
    }
    let services = json!([
        {"namespace": "default", "name": "web", "connections": "750m"},
        {"namespace": "other", "name": "web", "connections": "9"},
    ]);
    let told = json!({"timestamp": "2026-01-02T03:04:05Z", "windowSeconds": 15, "services": services});
    agents.0.lock().insert("/connections", told.to_string());
    let sum = api.get(&format!("{DEFAULT}/services/*/connections_per_second")).await.expect(200);
    assert_eq!(values(&sum), [("web", "1500m")]);
    let none = api.get(&format!("{DEFAULT}/services/new/connections_per_second")).await.expect(404);
    assert_eq!(none["message"], "the server could not find the metric connections_per_second for services new");
}

#[tokio::test]
async fn discovery_names_the_metrics_and_nothing_else() {
    let api = Api::new().await;
    let found = api.get(CUSTOM).await.expect(200);
    let names: Vec<_> =
        found["resources"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["pods/http_requests_per_second", "services/connections_per_second", "services/http_requests_per_second"]
    );
    assert_eq!(
        (&found["resources"][0]["kind"], &found["resources"][0]["verbs"]),
        (&json!("MetricValueList"), &json!(["get"]))
    );
    api.get(&format!("{DEFAULT}/pods")).await.expect(405);
}
