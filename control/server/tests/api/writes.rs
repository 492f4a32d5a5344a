//! create, update, patch: what is stored and what is refused.

use std::collections::HashSet;

use futures::future::join_all;
use serde_json::json;

use crate::harness::*;

#[tokio::test]
async fn a_new_object_gets_its_system_metadata() {
    let api = Api::new().await;
    let made = api.post(MAPS, &config_map("a", json!({"k": "v"}))).await.expect(201);
    let metadata = &made["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert!(metadata["uid"].as_str().unwrap().len() == 36);
    assert!(metadata["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert!(metadata["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.expect(200), made);
    let again = api.post(MAPS, &config_map("a", json!({}))).await;
    assert_eq!(again.value()["reason"], "AlreadyExists");
    assert_eq!(again.code, 409);
}

#[tokio::test]
async fn pods_are_defaulted_and_admitted() {
    let api = Api::new().await;
    let made = api.post(PODS, &pod("a")).await.expect(201);
    assert_eq!(made["spec"]["serviceAccountName"], "default");
    assert_eq!(made["spec"]["priority"], 0);
    assert_eq!(made["spec"]["restartPolicy"], "Always");
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(made["status"]["phase"], "Pending");
    let mut critical = pod("b");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(api.post(PODS, &critical).await.expect(201)["spec"]["priority"], 2_000_001_000);
    critical["spec"]["priorityClassName"] = json!("none");
    assert_eq!(api.post(PODS, &critical).await.code, 403);
}

#[tokio::test]
async fn names_are_generated() {
    let api = Api::new().await;
    let object = json!({"metadata": {"generateName": "x-"}});
    let names: HashSet<String> = join_all((0..20).map(|_| api.post(MAPS, &object)))
        .await
        .into_iter()
        .map(|answer| answer.expect(201)["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names.len(), 20);
    assert!(names.iter().all(|n| n.starts_with("x-") && n.len() == 7));
}

#[tokio::test]
async fn yaml_is_read_and_written() {
    let api = Api::new().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  a: \"1\"\n";
    let answer =
        api.send("POST", MAPS, &[("content-type", "application/yaml"), ("accept", "application/yaml")], yaml).await;
    assert_eq!(answer.code, 201);
    assert_eq!(answer.headers["content-type"], "application/yaml");
    assert!(answer.text.contains("name: y"), "{}", answer.text);
}

#[tokio::test]
async fn updates_keep_to_their_endpoint_and_count_generations() {
    let api = Api::new().await;
    let mut object = api.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    assert_eq!(object["metadata"]["generation"], 1);
    let path = format!("{DEPLOYMENTS}/d");

    object["status"] = json!({"replicas": 9});
    object["spec"]["replicas"] = json!(5);
    let object = api.put(&path, &object).await.expect(200);
    assert_eq!(object["metadata"]["generation"], 2);
    assert_eq!(object["status"].get("replicas"), None);

    let mut status = object.clone();
    status["status"] = json!({"replicas": 5, "observedGeneration": 2});
    status["spec"]["replicas"] = json!(7);
    let object = api.put(&format!("{path}/status"), &status).await.expect(200);
    assert_eq!(object["metadata"]["generation"], 2);
    assert_eq!(object["spec"]["replicas"], 5);
    assert_eq!(object["status"]["replicas"], 5);

    // What changes nothing is not written.
    let again = api.put(&path, &object).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_stale_version_conflicts_and_none_is_unconditional() {
    let api = Api::new().await;
    let first = api.post(MAPS, &config_map("a", json!({"k": "1"}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let mut second = first.clone();
    second["data"]["k"] = json!("2");
    api.put(&path, &second).await.expect(200);
    let conflict = api.put(&path, &second).await.expect(409);
    assert_eq!(conflict["reason"], "Conflict");
    assert!(conflict["message"].as_str().unwrap().contains("the object has been modified"));
    api.put(&path, &config_map("a", json!({"k": "3"}))).await.expect(200);
    let mut other = first.clone();
    other["metadata"]["uid"] = json!("other");
    other["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(api.put(&path, &other).await.code, 409);
    assert_eq!(api.put(&format!("{MAPS}/none"), &config_map("none", json!({}))).await.code, 404);
    assert_eq!(api.put(&path, &config_map("b", json!({}))).await.code, 400);
}

#[tokio::test]
async fn patches_of_every_type() {
    let api = Api::new().await;
    api.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let patch = async |kind: &str, body: serde_json::Value| {
        let kind = format!("application/{kind}");
        api.send("PATCH", &path, &[("content-type", &kind)], body.to_string()).await
    };
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "d", "image": "new"}]}}}});
    let object = patch("strategic-merge-patch+json", strategic).await.expect(200);
    let containers = &object["spec"]["template"]["spec"]["containers"];
    assert_eq!((containers.as_array().unwrap().len(), &containers[1]["image"]), (2, &json!("new")));
    let json_patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 9}]);
    assert_eq!(patch("json-patch+json", json_patch).await.expect(200)["spec"]["replicas"], 9);
    let merge = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"paused": true}});
    assert_eq!(patch("merge-patch+json", merge).await.expect(200)["spec"]["paused"], true);
    let merge = json!({"metadata": {"labels": null}});
    assert_eq!(patch("merge-patch+json", merge).await.expect(200)["metadata"].get("labels"), None);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"paused": false}});
    assert_eq!(patch("merge-patch+json", stale).await.code, 409);
    assert_eq!(patch("json", json!({})).await.code, 415);
    assert_eq!(patch("json-patch+json", json!([{"op": "test", "path": "/spec/replicas", "value": 1}])).await.code, 422);
    assert_eq!(patch("merge-patch+json", json!({"spec": {"replicas": -1}})).await.code, 422);
    assert_eq!(patch("merge-patch+json", json!({"metadata": {"name": "other"}})).await.code, 400);
}

#[tokio::test]
async fn concurrent_patches_all_take_effect() {
    let api = Api::new().await;
    api.post(MAPS, &config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let patches: Vec<_> = (0..24).map(|i| json!({"data": {format!("k{i}"): "v"}})).collect();
    for answer in join_all(patches.iter().map(|p| api.merge(&path, p))).await {
        assert_eq!(answer.code, 200);
    }
    assert_eq!(api.get(&path).await.value()["data"].as_object().unwrap().len(), 24);
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let api = Api::new().await;
    let revision = |v: serde_json::Value| v["metadata"]["resourceVersion"].clone();
    let before = revision(api.get(MAPS).await.value());
    let made = api.post(&format!("{MAPS}?dryRun=All"), &config_map("a", json!({}))).await.expect(201);
    assert!(made["metadata"]["uid"].is_string());
    assert_eq!(api.get(&format!("{MAPS}/a")).await.code, 404);
    assert_eq!(revision(api.get(MAPS).await.value()), before);
    api.post(MAPS, &config_map("a", json!({}))).await.expect(201);
    assert_eq!(api.post(&format!("{MAPS}?dryRun=All"), &config_map("a", json!({}))).await.code, 409);
    let patched = api.merge(&format!("{MAPS}/a?dryRun=All"), &json!({"data": {"a": "b"}})).await.expect(200);
    assert_eq!(patched["data"]["a"], "b");
    api.delete(&format!("{MAPS}/a?dryRun=All"), None).await.expect(200);
    assert_eq!(api.get(&format!("{MAPS}/a")).await.value().get("data"), None);
    assert_eq!(api.post(&format!("{MAPS}?dryRun=Some"), &config_map("b", json!({}))).await.code, 422);
}

#[tokio::test]
async fn unknown_fields_are_dropped_with_a_warning_or_refused() {
    let api = Api::new().await;
    let mut object = pod("a");
    object["spec"]["bogus"] = json!(1);
    let answer = api.post(PODS, &object).await;
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"spec.bogus\\\"\"");
    assert_eq!(answer.expect(201)["spec"].get("bogus"), None);
    object["metadata"]["name"] = json!("b");
    let refused = api.post(&format!("{PODS}?fieldValidation=Strict"), &object).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("strict decoding error: unknown field \"spec.bogus\""));
    assert_eq!(api.get(&format!("{PODS}/b")).await.code, 404);
    let quiet = api.post(&format!("{PODS}?fieldValidation=Ignore"), &object).await;
    assert_eq!((quiet.code, quiet.headers.get("warning")), (201, None));
}
