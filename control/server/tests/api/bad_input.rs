//! Whatever comes in, the answer is a Status of the right code and nothing is stored.

use serde_json::{Value, json};

use crate::harness::*;

const JSON: &str = "application/json";

#[tokio::test]
async fn every_failure_is_a_status() {
    let api = Api::new().await;
    let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let deep = format!("{{\"data\":{nested}}}");
    let map = |s: &str| config_map(s, json!({})).to_string();
    let pod_of =
        |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}).to_string();
    let large = config_map("x", json!({"k": "v".repeat(3 << 20)})).to_string();
    // method, path, content type, body, code, reason, part of the message
    let table: Vec<(&str, &str, &str, String, u16, &str, &str)> = vec![
        ("GET", "/nowhere", JSON, String::new(), 404, "NotFound", "could not find the requested resource"),
        ("GET", "/api/v2/pods", JSON, String::new(), 404, "NotFound", ""),
        ("GET", "/api/v1/bogus", JSON, String::new(), 404, "NotFound", ""),
        ("GET", "/apis/apps/v9/bogus", JSON, String::new(), 404, "NotFound", "could not find the requested resource"),
        ("GET", "/apis/apps/v1beta1/deployments", JSON, String::new(), 404, "NotFound", "served as apps/v1, not as"),
        (
            "GET",
            "/apis/extensions/v1beta1/ingresses",
            JSON,
            String::new(),
            404,
            "NotFound",
            "as networking.k8s.io/v1, not",
        ),
        (
            "POST",
            "/apis/batch/v1beta1/namespaces/default/cronjobs",
            JSON,
            r#"{"kind":"CronJob","apiVersion":"batch/v1beta1","metadata":{"name":"x"}}"#.into(),
            404,
            "NotFound",
            "cronjobs are served as batch/v1, not as batch/v1beta1",
        ),
        ("GET", "/api/v1/namespaces/default/nodes", JSON, String::new(), 404, "NotFound", ""),
        ("GET", "/api/v1/namespaces/default/pods/x", JSON, String::new(), 404, "NotFound", "pods \"x\" not found"),
        ("GET", "/api/v1/namespaces/default/pods/x/bogus", JSON, String::new(), 404, "NotFound", ""),
        ("GET", "/api/v1/namespaces/default/pods/x/exec", JSON, String::new(), 404, "NotFound", "pods \"x\" not found"),
        ("PUT", MAPS, JSON, map("x"), 405, "MethodNotAllowed", ""),
        ("PATCH", "/version", JSON, String::new(), 405, "MethodNotAllowed", ""),
        ("POST", "/api/v1/configmaps", JSON, map("x"), 405, "MethodNotAllowed", ""),
        ("POST", MAPS, JSON, String::new(), 400, "BadRequest", ""),
        ("POST", MAPS, JSON, "{".into(), 400, "BadRequest", ""),
        ("POST", MAPS, JSON, "[]".into(), 400, "BadRequest", ""),
        ("POST", MAPS, JSON, deep, 400, "BadRequest", ""),
        ("POST", MAPS, "application/yaml", "a: [b".into(), 400, "BadRequest", ""),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x"}}"#.into(),
            400,
            "BadRequest",
            "",
        ),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"kind":"ConfigMap","apiVersion":"v9","metadata":{"name":"x"}}"#.into(),
            400,
            "BadRequest",
            "",
        ),
        ("POST", MAPS, JSON, r#"{"metadata":{"name":"x"},"data":{"k":7}}"#.into(), 400, "BadRequest", ""),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"metadata":{"name":"x","namespace":"other"}}"#.into(),
            400,
            "BadRequest",
            "does not match the namespace",
        ),
        (
            "POST",
            MAPS,
            JSON,
            r#"{"metadata":{"name":"x","resourceVersion":"5"}}"#.into(),
            400,
            "BadRequest",
            "resourceVersion",
        ),
        (
            "POST",
            "/api/v1/namespaces/none/configmaps",
            JSON,
            map("x"),
            404,
            "NotFound",
            "namespaces \"none\" not found",
        ),
        ("POST", MAPS, JSON, large, 413, "RequestEntityTooLarge", "limit is 3145728"),
        ("POST", MAPS, "application/vnd.kubernetes.protobuf", "k8s\0\u{7f}".into(), 400, "BadRequest", ""),
        (
            "POST",
            MAPS,
            "application/vnd.kubernetes.protobuf",
            "{}".into(),
            400,
            "BadRequest",
            "does not appear to be a protobuf message",
        ),
        ("POST", MAPS, "application/cbor", map("x"), 415, "UnsupportedMediaType", "accepted media types"),
        ("POST", MAPS, "text/plain", map("x"), 415, "UnsupportedMediaType", ""),
        ("POST", MAPS, JSON, map("Not_A_Name"), 422, "Invalid", "metadata.name"),
        ("POST", MAPS, JSON, "{}".into(), 422, "Invalid", "name or generateName is required"),
        ("POST", PODS, JSON, pod_of(json!({"containers": []})), 422, "Invalid", "spec.containers: Required value"),
        (
            "POST",
            PODS,
            JSON,
            pod_of(json!({"containers": [{"name": "c"}]})),
            422,
            "Invalid",
            "spec.containers[0].image: Required value",
        ),
        ("POST", &format!("{MAPS}?fieldValidation=Bogus"), JSON, map("x"), 422, "Invalid", "fieldValidation"),
        ("DELETE", &format!("{MAPS}/x"), JSON, "{\"kind\":\"Pod\"}".into(), 400, "BadRequest", "DeleteOptions"),
        ("PATCH", &format!("{MAPS}/x"), "application/merge-patch+json", "{}".into(), 404, "NotFound", ""),
    ]
    .into_iter()
    .map(|(a, b, c, d, e, f, g)| (a, Box::leak(b.to_owned().into_boxed_str()) as &str, c, d, e, f, g))
    .collect();
    let before = api.get("/api/v1/configmaps").await.value()["metadata"]["resourceVersion"].clone();
    for (method, path, kind, body, code, reason, part) in table {
        let shown = body.chars().take(80).collect::<String>();
        let answer = api.send(method, path, &[("content-type", kind)], body).await;
        assert_eq!(answer.code, code, "{method} {path} {shown}: {}", answer.text);
        let status = answer.value();
        assert_eq!(
            (&status["kind"], &status["apiVersion"], &status["status"]),
            (&json!("Status"), &json!("v1"), &json!("Failure"))
        );
        assert_eq!(status["code"], code);
        assert_eq!(status["reason"], reason, "{method} {path} {shown}: {status}");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(part), "{method} {path} {shown}: {message}");
    }
    assert_eq!(
        api.get("/api/v1/configmaps").await.value()["metadata"]["resourceVersion"],
        before,
        "something was stored"
    );
}

#[tokio::test]
async fn validation_names_every_field() {
    let api = Api::new().await;
    let mut object = pod("x");
    object["spec"]["containers"] = json!([{"name": "c"}, {"name": "c", "image": "i"}]);
    let status = api.post(PODS, &object).await.expect(422);
    let causes = status["details"]["causes"].as_array().unwrap();
    let fields: Vec<&str> = causes.iter().map(|c| c["field"].as_str().unwrap()).collect();
    assert!(fields.contains(&"spec.containers[0].image") && fields.contains(&"spec.containers[1].name"), "{status}");
    assert_eq!((&status["details"]["kind"], &status["details"]["name"]), (&json!("Pod"), &json!("x")));
}
