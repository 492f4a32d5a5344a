//! delete and deletecollection.

use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn at_once_with_a_status() {
    let api = Api::new().await;
    let made = api.post(MAPS, &config_map("a", json!({}))).await.expect(201);
    let status = api.delete(&format!("{MAPS}/a"), None).await.expect(200);
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(status["details"]["uid"], made["metadata"]["uid"]);
    let gone = api.delete(&format!("{MAPS}/a"), None).await.expect(404);
    assert_eq!(gone["message"], "configmaps \"a\" not found");
}

#[tokio::test]
async fn preconditions_hold() {
    let api = Api::new().await;
    let made = api.post(MAPS, &config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let given = |uid: &str, version: &str| Some(json!({"preconditions": {"uid": uid, "resourceVersion": version}}));
    let (uid, version) =
        (made["metadata"]["uid"].as_str().unwrap(), made["metadata"]["resourceVersion"].as_str().unwrap());
    let refused = api.delete(&path, given("other", version)).await.expect(409);
    assert_eq!(refused["reason"], "Conflict");
    assert_eq!(
        refused["message"],
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        )
    );
    assert_eq!(api.delete(&path, given(uid, "1")).await.code, 409);
    api.delete(&path, given(uid, version)).await.expect(200);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let api = Api::new().await;
    let mut map = config_map("a", json!({}));
    map["metadata"]["finalizers"] = json!(["example.com/one"]);
    api.post(MAPS, &map).await.expect(201);
    let path = format!("{MAPS}/a");
    let held = api.delete(&path, None).await.expect(200);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = api.delete(&path, None).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], held["metadata"]["resourceVersion"]);
    let more = json!({"metadata": {"finalizers": ["example.com/one", "example.com/two"]}});
    assert_eq!(api.merge(&path, &more).await.code, 422);
    let mut events = api.watch(&format!("{MAPS}?watch=1"), &[]).await;
    assert_eq!(events.next().await.unwrap()["type"], "ADDED");
    api.merge(&path, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    assert_eq!(events.next().await.unwrap()["type"], "DELETED");
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn propagation_is_a_finalizer() {
    let api = Api::new().await;
    for (policy, finalizer, code) in [("Orphan", "orphan", 200), ("Foreground", "foregroundDeletion", 200)] {
        api.post(MAPS, &config_map("a", json!({}))).await.expect(201);
        let path = format!("{MAPS}/a");
        let held = api.delete(&path, Some(json!({"propagationPolicy": policy}))).await.expect(code);
        assert_eq!(held["metadata"]["finalizers"], json!([finalizer]));
        // The collector removes it when it has done its part.
        api.merge(&path, &json!({"metadata": {"finalizers": []}})).await.expect(200);
        assert_eq!(api.get(&path).await.code, 404);
    }
    api.post(MAPS, &config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    assert_eq!(api.delete(&path, Some(json!({"propagationPolicy": "Bogus"}))).await.code, 422);
    assert_eq!(
        api.delete(&path, Some(json!({"propagationPolicy": "Orphan", "orphanDependents": true}))).await.code,
        422
    );
    assert_eq!(
        api.delete(&format!("{path}?propagationPolicy=Background"), None).await.expect(200)["status"],
        "Success"
    );
}

#[tokio::test]
async fn pods_get_their_grace_once_they_may_run() {
    let api = Api::new().await;
    api.post(PODS, &pod("unscheduled")).await.expect(201);
    // The answer to the delete of a Pod is the Pod.
    assert_eq!(api.delete(&format!("{PODS}/unscheduled"), None).await.expect(200)["metadata"]["name"], "unscheduled");

    let mut running = pod("a");
    running["spec"]["nodeName"] = json!("n");
    api.post(PODS, &running).await.expect(201);
    let path = format!("{PODS}/a");
    let held = api.delete(&path, None).await.expect(200);
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    // It can be shortened and not lengthened.
    let longer = api.delete(&path, Some(json!({"gracePeriodSeconds": 60}))).await.expect(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = api.delete(&format!("{path}?gracePeriodSeconds=5"), None).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(shorter["metadata"]["deletionTimestamp"].as_str() < held["metadata"]["deletionTimestamp"].as_str());
    let still = api.delete(&path, None).await.expect(200);
    assert_eq!(still["metadata"]["deletionGracePeriodSeconds"], 5);
    api.delete(&path, Some(json!({"gracePeriodSeconds": 0}))).await.expect(200);
    assert_eq!(api.get(&path).await.code, 404);
}

#[tokio::test]
async fn collections_go_by_selector() {
    let api = Api::new().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut map = config_map(name, json!({}));
        map["metadata"]["labels"] = json!({"tier": tier});
        api.post(MAPS, &map).await.expect(201);
    }
    let deleted = api.delete(&format!("{MAPS}?labelSelector=tier%3Dx"), None).await.expect(200);
    assert_eq!((&deleted["kind"], deleted["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 2));
    assert_eq!(api.get(MAPS).await.value()["items"].as_array().unwrap().len(), 1);
    assert_eq!(api.delete("/api/v1/configmaps", None).await.code, 405);
}

#[tokio::test]
async fn namespaces_end_in_two_steps() {
    let api = Api::new().await;
    let spaces = "/api/v1/namespaces";
    api.post(spaces, &json!({"metadata": {"name": "team"}})).await.expect(201);
    let active = api.get(&format!("{spaces}/team")).await.expect(200);
    assert_eq!((&active["status"]["phase"], &active["spec"]["finalizers"]), (&json!("Active"), &json!(["kubernetes"])));
    let maps = format!("{spaces}/team/configmaps");
    api.post(&maps, &config_map("a", json!({}))).await.expect(201);
    let ending = api.delete(&format!("{spaces}/team"), None).await.expect(200);
    assert_eq!(ending["status"]["phase"], "Terminating");
    let refused = api.post(&maps, &config_map("b", json!({}))).await.expect(403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    api.merge(&format!("{maps}/a"), &json!({"data": {"still": "writable"}})).await.expect(200);
    let mut last = api.get(&format!("{spaces}/team")).await.expect(200);
    last["spec"]["finalizers"] = json!([]);
    api.put(&format!("{spaces}/team/finalize"), &last).await.expect(200);
    assert_eq!(api.get(&format!("{spaces}/team")).await.code, 404);
    assert_eq!(api.post(&maps, &config_map("c", json!({}))).await.code, 404);
    assert_eq!(api.delete(&format!("{spaces}/default"), None).await.code, 403);
}

#[tokio::test]
async fn a_negative_grace_is_a_second_and_a_running_one_settles_the_rest() {
    let api = Api::new().await;
    let mut running = pod("a");
    running["spec"]["nodeName"] = json!("n");
    api.post(PODS, &running).await.expect(201);
    let path = format!("{PODS}/a");
    let held = api.delete(&path, Some(json!({"gracePeriodSeconds": -7}))).await.expect(200);
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 1);
    // While it runs, what becomes of the dependents is settled.
    let again = api.delete(&path, Some(json!({"propagationPolicy": "Foreground"}))).await.expect(200);
    assert!(again["metadata"].get("finalizers").is_none());
}

#[tokio::test]
async fn some_kinds_leave_their_dependents_by_default() {
    let api = Api::new().await;
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let controller = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"replicas": 0, "selector": {"a": "b"}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
        }}})
    };
    api.post(path, &controller("a")).await.expect(201);
    let held = api.delete(&format!("{path}/a"), None).await.expect(200);
    assert_eq!(held["metadata"]["finalizers"], json!(["orphan"]));
    api.post(path, &controller("b")).await.expect(201);
    let gone = api.delete(&format!("{path}/b?propagationPolicy=Background"), None).await.expect(200);
    assert_eq!(gone["status"], "Success");
}

#[tokio::test]
async fn collections_can_be_tried_and_limited() {
    let api = Api::new().await;
    for name in ["a", "b", "c"] {
        api.post(MAPS, &config_map(name, json!({}))).await.expect(201);
    }
    let left = async || api.get(MAPS).await.value()["items"].as_array().unwrap().len();
    assert_eq!(api.delete(&format!("{MAPS}?dryRun=All"), None).await.expect(200)["items"].as_array().unwrap().len(), 3);
    assert_eq!(left().await, 3);
    let page = api.delete(&format!("{MAPS}?limit=2"), None).await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert!(page["metadata"]["continue"].is_string());
    assert_eq!(left().await, 1);
}
