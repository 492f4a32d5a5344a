//! Resource quotas.

use futures::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::harness::*;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn quota(hard: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})
}

/// Waits for the quota's status to say that `used` is used.
async fn until_used(api: &Api, used: &Value) {
    let path = format!("{QUOTAS}?watch=1&fieldSelector=metadata.name%3Dq");
    let mut events = api.watch(&path, &[]).await;
    loop {
        let event = events.next().await.unwrap();
        if event["object"]["status"]["used"] == *used {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_at_once_and_ten_get_in() {
    let api = Api::new().await;
    api.post(QUOTAS, &quota(json!({"count/configmaps": "10", "pods": "10"}))).await.expect(201);
    for (path, make) in [(MAPS, (|name| config_map(name, json!({}))) as fn(&str) -> Value), (PODS, pod)] {
        let names: Vec<String> = (0..50).map(|i| format!("o{i}")).collect();
        let answers = join_all(names.iter().map(|name| async { api.post(path, &make(name)).await })).await;
        let made = answers.iter().filter(|answer| answer.code == 201).count();
        assert_eq!(made, 10, "{path}");
        assert!(answers.iter().all(|answer| matches!(answer.code, 201 | 403)));
        assert_eq!(api.get(path).await.value()["items"].as_array().unwrap().len(), 10);
    }
    let refused = api.post(PODS, &pod("more")).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods \"more\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=10, limited: pods=10"
    );
    assert_eq!(
        api.get(&format!("{QUOTAS}/q")).await.value()["status"]["used"],
        json!({"count/configmaps": "10", "pods": "10"})
    );
}

#[tokio::test]
async fn what_fails_or_is_a_dry_run_is_not_charged() {
    let api = Api::new().await;
    api.post(QUOTAS, &quota(json!({"count/configmaps": "2"}))).await.expect(201);
    api.post(MAPS, &config_map("a", json!({}))).await.expect(201);
    for _ in 0..5 {
        assert_eq!(api.post(MAPS, &config_map("a", json!({}))).await.code, 409);
        assert_eq!(api.post(MAPS, &config_map("Not a name", json!({}))).await.code, 422);
        assert_eq!(api.post(&format!("{MAPS}?dryRun=All"), &config_map("b", json!({}))).await.code, 201);
    }
    api.post(MAPS, &config_map("b", json!({}))).await.expect(201);
    assert_eq!(api.post(&format!("{MAPS}?dryRun=All"), &config_map("c", json!({}))).await.code, 403);
}

#[tokio::test]
async fn usage_follows_what_there_is() {
    let api = Api::new().await;
    let cancel = CancellationToken::new();
    let server = api.server.clone();
    let maintained = tokio::spawn({
        let cancel = cancel.clone();
        async move { server.maintain(cancel).await }
    });
    api.post(MAPS, &config_map("before", json!({}))).await.expect(201);
    let hard = json!({"count/configmaps": "5", "pods": "5", "requests.cpu": "2", "services.nodeports": "2"});
    api.post(QUOTAS, &quota(hard.clone())).await.expect(201);
    let used = |maps: &str, pods: &str, cpu: &str, ports: &str| json!({"count/configmaps": maps, "pods": pods, "requests.cpu": cpu, "services.nodeports": ports});
    until_used(&api, &used("1", "0", "0", "0")).await;
    assert_eq!(api.get(&format!("{QUOTAS}/q")).await.value()["status"]["hard"], hard);

    assert_eq!(
        api.post(PODS, &pod("bare")).await.expect(403)["message"],
        "pods \"bare\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
    let mut busy = pod("busy");
    busy["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1500m"}});
    api.post(PODS, &busy).await.expect(201);
    until_used(&api, &used("1", "1", "1500m", "0")).await;

    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    api.post(SERVICES, &service).await.expect(201);
    until_used(&api, &used("1", "1", "1500m", "1")).await;
    let wider =
        json!({"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}, {"port": 82, "name": "c"}]}});
    let refused = api.merge(&format!("{SERVICES}/s"), &wider).await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("exceeded quota: q, requested: services.nodeports=2"));
    api.merge(&format!("{SERVICES}/s"), &json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    until_used(&api, &used("1", "1", "1500m", "0")).await;

    // A Pod that has ended uses nothing; neither does what is gone.
    api.merge(&format!("{PODS}/busy/status"), &json!({"status": {"phase": "Succeeded"}})).await.expect(200);
    until_used(&api, &used("1", "0", "0", "0")).await;
    api.delete(&format!("{MAPS}/before"), None).await.expect(200);
    until_used(&api, &used("0", "0", "0", "0")).await;
    cancel.cancel();
    maintained.await.unwrap();
}

#[tokio::test]
async fn quotas_have_scopes() {
    let api = Api::new().await;
    let mut quota = quota(json!({"pods": "0"}));
    quota["spec"]["scopeSelector"] = json!({"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]},
    ]});
    api.post(QUOTAS, &quota).await.expect(201);
    api.post(PODS, &pod("plain")).await.expect(201);
    let mut critical = pod("critical");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(api.post(PODS, &critical).await.code, 403);
}
