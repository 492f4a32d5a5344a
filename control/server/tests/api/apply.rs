//! Server-side apply, and who manages what after other writes.

use serde_json::{Value, json};

use crate::harness::{Answer, Api, DEPLOYMENTS, MAPS, PODS, config_map, deployment, pod};

const TYPE: (&str, &str) = ("content-type", "application/apply-patch+yaml");

async fn apply(api: &Api, path: &str, query: &str, config: &Value) -> Answer {
    api.send("PATCH", &format!("{path}?{query}"), &[TYPE], config.to_string()).await
}

/// The managers of an object: name, operation, subresource.
fn managers(object: &Value) -> Vec<(&str, &str, &str)> {
    let entries = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries
        .iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap_or_default();
            assert_eq!(text("fieldsType"), "FieldsV1", "{entry}");
            (text("manager"), text("operation"), text("subresource"))
        })
        .collect()
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    &entries.iter().find(|entry| entry["manager"] == manager).unwrap()["fieldsV1"]
}

#[tokio::test]
async fn it_creates_changes_and_takes_away() {
    let api = Api::new().await;
    let path = format!("{MAPS}/a");
    let created = apply(&api, &path, "fieldManager=m", &config_map("a", json!({"k": "1", "l": "1"}))).await.expect(201);
    assert_eq!(managers(&created), [("m", "Apply", "")]);
    assert_eq!(*fields(&created, "m"), json!({"f:data": {"f:k": {}, "f:l": {}}}));
    let again = apply(&api, &path, "fieldManager=m", &config_map("a", json!({"k": "1", "l": "1"}))).await.expect(200);
    assert_eq!(again, created, "what changes nothing writes nothing");
    let less = apply(&api, &path, "fieldManager=m", &config_map("a", json!({"k": "2"}))).await.expect(200);
    assert_eq!(less["data"], json!({"k": "2"}));
    let dry = apply(&api, &path, "fieldManager=m&dryRun=All", &config_map("a", json!({"k": "9"}))).await.expect(200);
    assert_eq!((&dry["data"]["k"], &api.get(&path).await.expect(200)["data"]["k"]), (&json!("9"), &json!("2")));
    // YAML, as its media type says.
    let yaml = "apiVersion: v1\nkind: ConfigMap\ndata: {k: \"3\"}\n";
    let answer = api.send("PATCH", &format!("{path}?fieldManager=m"), &[TYPE], yaml).await.expect(200);
    assert_eq!(answer["data"], json!({"k": "3"}));
}

#[tokio::test]
async fn a_conflict_says_with_whom_and_about_what() {
    let api = Api::new().await;
    let path = format!("{DEPLOYMENTS}/d");
    apply(&api, &path, "fieldManager=a", &deployment("d")).await.expect(201);
    api.merge(&format!("{path}?fieldManager=scaler"), &json!({"spec": {"replicas": 7}})).await.expect(200);
    let conflict = apply(&api, &path, "fieldManager=a", &deployment("d")).await.expect(409);
    let message = "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas";
    assert_eq!((conflict["message"].as_str().unwrap(), &conflict["reason"]), (message, &json!("Conflict")));
    assert_eq!(
        conflict["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"scaler\" using apps/v1", "field": ".spec.replicas"}])
    );
    let forced = apply(&api, &path, "fieldManager=a&force=true", &deployment("d")).await.expect(200);
    assert_eq!((forced["spec"]["replicas"].as_i64(), managers(&forced)), (Some(2), vec![("a", "Apply", "")]));
}

#[tokio::test]
async fn status_and_scale_have_managers_of_their_own() {
    let api = Api::new().await;
    let path = format!("{DEPLOYMENTS}/d");
    api.post(&format!("{DEPLOYMENTS}?fieldManager=creator"), &deployment("d")).await.expect(201);
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "status": {"replicas": 2}, "spec": {"replicas": 9}});
    let answer = apply(&api, &format!("{path}/status"), "fieldManager=s", &status).await.expect(200);
    assert_eq!((answer["status"]["replicas"].as_i64(), answer["spec"]["replicas"].as_i64()), (Some(2), Some(2)));
    assert_eq!(managers(&answer), [("s", "Apply", "status"), ("creator", "Update", "")]);
    assert_eq!(*fields(&answer, "s"), json!({"f:status": {"f:replicas": {}}}));
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 4}});
    let path_of_scale = format!("{path}/scale");
    let conflict = apply(&api, &path_of_scale, "fieldManager=h", &scale).await.expect(409);
    assert_eq!(conflict["details"]["causes"][0]["field"], ".spec.replicas");
    let scaled = apply(&api, &path_of_scale, "fieldManager=h&force=true", &scale).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    let now = api.get(&path).await.expect(200);
    assert!(managers(&now).contains(&("h", "Apply", "scale")), "{now}");
    assert_eq!(fields(&now, "creator")["f:spec"]["f:replicas"], Value::Null);
    let updated =
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "d"}, "spec": {"replicas": 5}});
    api.put(&format!("{path_of_scale}?fieldManager=u"), &updated).await.expect(200);
    let now = api.get(&path).await.expect(200);
    assert!(managers(&now).contains(&("u", "Update", "scale")), "{now}");
}

#[tokio::test]
async fn every_write_keeps_account() {
    let api = Api::new().await;
    let agent = [("content-type", "application/json"), ("user-agent", "kubectl/v1.37.1 (linux/amd64)")];
    let created = api.send("POST", PODS, &agent, pod("p").to_string()).await.expect(201);
    assert_eq!(managers(&created), [("kubectl", "Update", "")]);
    let container = &fields(&created, "kubectl")["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"];
    assert_eq!(
        (&container["."], &container["f:image"], &container["f:imagePullPolicy"]),
        (&json!({}), &json!({}), &json!({}))
    );
    assert_eq!(fields(&created, "kubectl")["f:metadata"], json!({"f:labels": {".": {}, "f:app": {}}}));
    // A put without the list keeps it, and what changes nothing changes no time.
    let mut bare = created.clone();
    bare["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(api.put(&format!("{PODS}/p"), &bare).await.expect(200), created);
    bare["metadata"]["labels"]["app"] = "q".into();
    let changed = api.put(&format!("{PODS}/p?fieldManager=other"), &bare).await.expect(200);
    assert_eq!(*fields(&changed, "other"), json!({"f:metadata": {"f:labels": {"f:app": {}}}}));
    assert_eq!(fields(&changed, "kubectl")["f:metadata"], json!({"f:labels": {}}));
    let reset = api.merge(&format!("{PODS}/p"), &json!({"metadata": {"managedFields": [{}]}})).await.expect(200);
    assert_eq!(reset["metadata"]["managedFields"], Value::Null);
    // The same object is managed at the version in which each wrote.
    let hpa = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}}});
    let (one, two) = ("/apis/autoscaling/v1/namespaces/default", "/apis/autoscaling/v2/namespaces/default");
    let path = "horizontalpodautoscalers";
    api.post(&format!("{one}/{path}?fieldManager=v1"), &hpa).await.expect(201);
    let changed =
        api.merge(&format!("{two}/{path}/h?fieldManager=v2"), &json!({"spec": {"maxReplicas": 4}})).await.expect(200);
    assert_eq!(*fields(&changed, "v2"), json!({"f:spec": {"f:maxReplicas": {}}}));
    assert_eq!(fields(&changed, "v1")["f:spec"]["f:maxReplicas"], Value::Null);
    assert_eq!(fields(&changed, "v1")["f:spec"]["f:scaleTargetRef"], json!({}));
}

#[tokio::test]
async fn what_cannot_be_applied_is_told() {
    let api = Api::new().await;
    let path = format!("{DEPLOYMENTS}/d");
    let with = |pointer: &str, value: Value| {
        let mut config = deployment("d");
        *config.pointer_mut(pointer).unwrap() = value;
        config
    };
    let mut managed = deployment("d");
    managed["metadata"]["managedFields"] = json!([]);
    let mut unknown = deployment("d");
    unknown["spec"]["foo"] = 1.into();
    let mut uid = deployment("d");
    uid["metadata"]["uid"] = "x".into();
    let containers = json!([{"name": "c", "image": "a"}, {"name": "c", "image": "b"}]);
    for (query, config, code, text) in [
        ("", deployment("d"), 422, "fieldManager: Required value: is required for apply patch"),
        ("fieldManager=%07", deployment("d"), 422, "fieldManager: Invalid value"),
        ("fieldManager=a", with("/kind", "Pod".into()), 400, "invalid object type: apps/v1, Kind=Pod"),
        ("fieldManager=a", with("/metadata/name", "e".into()), 400, "does not match the name on the URL"),
        ("fieldManager=a", managed, 400, "metadata.managedFields must be nil"),
        (
            "fieldManager=a",
            unknown,
            400,
            "failed to create typed patch object (d; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema",
        ),
        ("fieldManager=a", uid, 409, "uid mismatch: the provided object specified uid x"),
        ("fieldManager=a", with("/spec/replicas", "x".into()), 400, "cannot unmarshal string"),
        (
            "fieldManager=a",
            with("/spec/template/spec/containers", containers),
            400,
            ".spec.template.spec.containers: duplicate entries for key [name=\"c\"]",
        ),
        (
            "fieldManager=a",
            with("/spec/selector/matchLabels/app", "x".into()),
            422,
            "`selector` does not match template `labels`",
        ),
    ] {
        let refused = apply(&api, &path, query, &config).await.expect(code);
        assert!(refused["message"].as_str().unwrap().contains(text), "{refused}");
    }
    let force = api.merge(&format!("{path}?force=true"), &json!({})).await.expect(422);
    assert!(force["message"].as_str().unwrap().contains("force: Forbidden: may not be specified for non-apply patch"));
    let status = apply(&api, &format!("{path}/status"), "fieldManager=a", &deployment("d")).await;
    assert_eq!(status.code, 404);
    assert_eq!(api.get(&path).await.code, 404, "nothing was stored");
}
