//! The audit log.

use serde_json::{Value, json};
use wherry_server::audit::{Audit, Policy, Rotation};
use wherry_server::{Config, User};

use crate::harness::*;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: None, users: ["kubernetes-admin"], verbs: ["list"]}
- {level: RequestResponse, omitStages: [RequestReceived], resources: [{group: "", resources: ["configmaps"]}]}
- {level: Request, omitStages: [RequestReceived], resources: [{group: "", resources: ["pods"]}]}
- {level: Metadata}
"#;

struct Log {
    audit: Audit,
    dir: tempfile::TempDir,
}

impl Log {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::open(Policy::parse(POLICY).unwrap(), &path, Rotation::default()).unwrap();
        Self { audit, dir }
    }

    /// The events so far whose URI begins so.
    fn events(&self, uri: &str) -> Vec<Value> {
        self.audit.flushed();
        let text = std::fs::read_to_string(self.dir.path().join("audit.log")).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["requestURI"].as_str().unwrap().starts_with(uri)).collect()
    }
}

async fn audited() -> (Api, Log) {
    let log = Log::open();
    let mut config = Config::new(store());
    config.audit = Some(log.audit.clone());
    (Api::over(config).await, log)
}

#[tokio::test]
async fn requests_are_noted_as_the_policy_says() {
    let (api, log) = audited().await;
    let answer = api.post(MAPS, &config_map("a", json!({"k": "v"}))).await;
    let id = answer.headers["audit-id"].to_str().unwrap().to_owned();
    let events = log.events(MAPS);
    assert_eq!(events.len(), 1, "{events:?}");
    let event = &events[0];
    assert_eq!((&event["kind"], &event["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert_eq!((&event["level"], &event["stage"]), (&json!("RequestResponse"), &json!("ResponseComplete")));
    assert_eq!((&event["verb"], &event["auditID"]), (&json!("create"), &json!(id)));
    assert_eq!(event["user"]["username"], "kubernetes-admin");
    assert_eq!(event["objectRef"], json!({"resource": "configmaps", "namespace": "default", "apiVersion": "v1"}));
    assert_eq!(event["requestObject"]["data"], json!({"k": "v"}));
    assert_eq!(event["responseObject"]["metadata"]["name"], "a");
    assert_eq!(event["responseStatus"]["code"], 201);
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");

    // Level Request: what was asked, not what was answered.
    api.post(PODS, &pod("p")).await.expect(201);
    let event = log.events(PODS).remove(0);
    assert!(event["requestObject"].is_object() && event.get("responseObject").is_none(), "{event}");
    assert_eq!(event["annotations"]["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");

    // Level Metadata: neither, and both stages. The log never holds what is in a Secret.
    let secrets = "/api/v1/namespaces/default/secrets";
    api.post(secrets, &json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}})).await.expect(201);
    let events = log.events(secrets);
    let stages: Vec<_> = events.iter().map(|event| event["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    assert!(events.iter().all(|event| !event.to_string().contains("hunter2")));

    // Level None.
    api.get(MAPS).await.expect(200);
    assert_eq!(log.events(MAPS).len(), 1);
    assert_eq!(log.audit.dropped(), 0);
}

#[tokio::test]
async fn failures_streams_and_impersonation_are_noted() {
    let (api, log) = audited().await;
    let jane = api.as_user(User::new("jane", ["dev"]));
    let path = "/api/v1/namespaces/default/services/none";
    jane.get(path).await.expect(403);
    let event = log.events(path).pop().unwrap();
    assert_eq!((&event["user"]["username"], &event["responseStatus"]["code"]), (&json!("jane"), &json!(403)));
    assert_eq!(event["responseStatus"]["reason"], "Forbidden");
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");

    let path = "/api/v1/namespaces/default/services/kubernetes";
    api.send("GET", path, &[("impersonate-user", "jane"), ("impersonate-group", "dev")], "").await;
    let event = log.events(path).pop().unwrap();
    assert_eq!(event["user"]["username"], "kubernetes-admin");
    assert_eq!(event["impersonatedUser"]["username"], "jane");

    let path = "/api/v1/namespaces/default/endpoints?watch=1";
    let mut events = api.watch(path, &[]).await;
    assert_eq!(events.next().await.unwrap()["type"], "ADDED");
    let stages =
        |events: Vec<Value>| events.iter().map(|e| e["stage"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(stages(log.events(path)), ["RequestReceived", "ResponseStarted"]);
    drop(events);
    assert_eq!(stages(log.events(path)), ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}
