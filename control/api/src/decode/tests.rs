#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::facts::{Facts, Field, Shape};
use crate::resource::Registry;
use proptest::prelude::*;
use serde_json::json;

fn resource(group: &str, plural: &str) -> std::sync::Arc<Resource> {
    Registry::builtin().find(group, "v1", plural).unwrap()
}

fn pod(body: &str, validation: FieldValidation) -> Result<Decoded, Status> {
    decode(body.as_bytes(), ContentType::Json, &resource("", "pods"), validation)
}

#[test]
fn what_go_would_write() {
    let body = r#"{"metadata":{"name":"a","labels":{},"creationTimestamp":null},"spec":{"hostname":"","containers":[
        {"name":"c","image":"i","resources":{"limits":{"cpu":"1000m","memory":1024}},"ports":[]}],
        "volumes":[{"name":"v","emptyDir":{}}],"terminationGracePeriodSeconds":0}}"#;
    let object = pod(body, FieldValidation::Strict).unwrap().object;
    assert_eq!(
        object,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "status": {}, "spec": {
            "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1", "memory": "1024"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}], "terminationGracePeriodSeconds": 0}})
    );
}

#[test]
fn structs_held_by_value_are_always_there() {
    let body = r#"{"spec":{"selector":null,"template":{"spec":{"containers":[null]}}}}"#;
    let deployments = resource("apps", "deployments");
    let object = decode(body.as_bytes(), ContentType::Json, &deployments, FieldValidation::Strict).unwrap().object;
    assert_eq!(
        object,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}, "status": {}, "spec": {"strategy": {},
            "template": {"metadata": {}, "spec": {"containers": [{"name": "", "resources": {}}]}}}})
    );
}

#[test]
fn unknown_and_duplicate_fields() {
    let body = r#"{"metadata":{"name":"a","name":"b","labels":{"x":"1","x":"2"}},"x":1,"spec":{"containers":[{"name":"c","imag":"i"}]}}"#;
    let found = r#"duplicate field "metadata.name", duplicate field "metadata.labels.x", unknown field "x", unknown field "spec.containers[0].imag""#;
    let error = pod(body, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        error.message,
        format!("Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: {found}")
    );
    assert_eq!(error.code, 400);
    let warned = pod(body, FieldValidation::Warn).unwrap();
    assert_eq!(warned.warnings.join(", "), found);
    assert_eq!(warned.object["metadata"], json!({"name": "b", "labels": {"x": "2"}}));
    assert!(warned.object.get("x").is_none());
    assert!(pod(body, FieldValidation::Ignore).unwrap().warnings.is_empty());
}

#[test]
fn wrong_types_are_named() {
    for (body, why) in [
        (
            r#"{"spec":{"nodeName":5}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.nodeName of type string",
        ),
        (
            r#"{"spec":{"priority":"5"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            r#"{"spec":{"priority":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            r#"{"spec":{"priority":3000000000}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            r#"{"spec":{"containers":{}}}"#,
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (r#"{"spec":[]}"#, "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec"),
        (
            r#"{"metadata":{"labels":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (r#"[]"#, "json: cannot unmarshal array into Go value of type v1.Pod"),
        (
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"x"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        let error = pod(body, FieldValidation::Ignore).unwrap_err();
        assert_eq!(
            (error.code, error.message),
            (400, format!("Pod in version \"v1\" cannot be handled as a Pod: {why}"))
        );
    }
}

#[test]
fn the_endpoint_decides_the_kind() {
    let error = pod(r#"{"apiVersion":"v1","kind":"Service"}"#, FieldValidation::Warn).unwrap_err();
    assert!(error.message.starts_with("Service in version \"v1\" cannot be handled as a Pod"));
    let error = pod(r#"{"apiVersion":"v2","kind":"Pod"}"#, FieldValidation::Warn).unwrap_err();
    assert_eq!(error.message, "the API version in the data (v2) does not match the expected API version (v1)");
    assert_eq!(pod("{}", FieldValidation::Warn).unwrap().object["kind"], "Pod");
    let options = Schema::machinery("DeleteOptions").unwrap();
    let body = br#"{"apiVersion":"policy/v1","kind":"DeleteOptions","gracePeriodSeconds":0}"#;
    assert!(decode_as(body, ContentType::Json, &options, FieldValidation::Strict).is_ok());
}

#[test]
fn hostile_bodies_are_refused() {
    let deep = format!(r#"{{"spec":{}"#, r#"{"a":["#.repeat(100_000));
    for body in [deep.as_str(), "", "{", "null", "{} {}", "\u{0}", r#"{"spec":{}"#, "nul"] {
        assert_eq!(pod(body, FieldValidation::Ignore).unwrap_err().code, 400, "{body:.20}");
    }
    let large = vec![b' '; BODY_LIMIT + 1];
    let error = decode(&large, ContentType::Json, &resource("", "pods"), FieldValidation::Ignore).unwrap_err();
    assert_eq!(error.code, 413);
    let mut laughs = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (new, old) in [("b", "a"), ("c", "b"), ("d", "c"), ("e", "d"), ("f", "e"), ("g", "f"), ("h", "g"), ("i", "h")] {
        laughs.push_str(&format!("{new}: &{new} [{}]\n", vec![format!("*{old}"); 9].join(",")));
    }
    assert!(decode_untyped(laughs.as_bytes(), ContentType::Yaml).is_err());
}

#[test]
fn yaml_has_the_same_guarantees() {
    let pods = resource("", "pods");
    let yaml = |text: &str, validation| decode(text.as_bytes(), ContentType::Yaml, &pods, validation);
    let text = "kind: Pod\nmetadata:\n  name: a\n  labels: {1: b}\nspec:\n  containers:\n  - {name: c, image: i}\n";
    assert_eq!(yaml(text, FieldValidation::Strict).unwrap().object["metadata"]["labels"]["1"], "b");
    let text = "metadata:\n  name: a\n  name: b\nspec: {x: 1}\n";
    let error = yaml(text, FieldValidation::Strict).unwrap_err();
    assert!(
        error.message.ends_with(r#"strict decoding error: duplicate field "metadata.name", unknown field "spec.x""#),
        "{error}"
    );
    assert!(yaml("spec: 5", FieldValidation::Ignore).unwrap_err().message.contains("cannot unmarshal number"));
    assert_eq!(yaml("a: [", FieldValidation::Ignore).unwrap_err().code, 400);
}

#[test]
fn binary_data_and_times() {
    let secrets = resource("", "secrets");
    let secret = |body: &str| decode(body.as_bytes(), ContentType::Json, &secrets, FieldValidation::Strict);
    assert_eq!(secret(r#"{"data":{"a":"aGVsbG8="}}"#).unwrap().object["data"]["a"], "aGVsbG8=");
    assert!(secret(r#"{"data":{"a":"*"}}"#).unwrap_err().message.ends_with("illegal base64 data at input byte 0"));
    assert!(secret(r#"{"metadata":{"creationTimestamp":"yesterday"}}"#).is_err());
}

/// A value of `shape` with every field set; types that hold themselves end after a few levels.
fn example(facts: &Facts, shape: &Shape, depth: usize) -> Option<Value> {
    Some(match shape {
        Shape::String => "text".into(),
        Shape::Bool => true.into(),
        Shape::Int32 => i32::MAX.into(),
        Shape::Int64 => i64::MIN.into(),
        Shape::Double => 1.5.into(),
        Shape::Bytes => "Ynl0ZXM=".into(),
        Shape::Quantity => "1500m".into(),
        Shape::Time => "2026-01-02T03:04:05Z".into(),
        Shape::MicroTime => "2026-01-02T03:04:05.000006Z".into(),
        Shape::Duration => "1h2m3.5s".into(),
        Shape::IntOrString => "30%".into(),
        Shape::FieldsV1 | Shape::Raw => json!({"f:a": {}, "b": [null, 1, {"c": ""}]}),
        Shape::Struct(_) if depth == 0 => return None,
        Shape::Struct(id) => {
            let fields = facts.get(*id).fields.iter();
            let set = |field: &Field| Some((field.name.to_string(), example(facts, &field.shape, depth - 1)?));
            Value::Object(fields.filter_map(set).collect())
        }
        Shape::List(item) => json!([example(facts, item, depth)?]),
        Shape::Map(item) => json!({"key": example(facts, item, depth)?}),
    })
}

#[test]
fn every_field_of_every_kind_survives() {
    for resource in Registry::builtin().resources() {
        let schemas = resource.subresources.iter().filter_map(|sub| sub.schema.as_ref()).chain([&resource.schema]);
        for schema in schemas {
            let mut object = example(schema.facts(), &Shape::Struct(schema.root()), 16).unwrap();
            object["apiVersion"] = schema.api_version().into();
            object["kind"] = schema.kind().into();
            let json = object.to_string();
            let decoded = decode_as(json.as_bytes(), ContentType::Json, schema, FieldValidation::Strict).unwrap();
            assert_eq!(decoded.object, object, "{}", schema.kind());
            let yaml = serde_yaml::to_string(&object).unwrap();
            let decoded = decode_as(yaml.as_bytes(), ContentType::Yaml, schema, FieldValidation::Strict).unwrap();
            assert_eq!(decoded.object, object, "{}", schema.kind());
            let patched = crate::patch::strategic_merge(schema, &object, &object).unwrap();
            assert_eq!(patched, object, "{} is not its own strategic patch", schema.kind());
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Zé\"\\\\ ]{0,8}"
}

prop_compose! {
    fn any_pod()(
        name in text(), labels in prop::collection::btree_map(text(), text(), 0..4),
        images in prop::collection::vec(text(), 0..3), grace in any::<Option<i64>>(), cpu in 0..5000u32, host in any::<bool>(),
    ) -> Value {
        let containers: Vec<Value> = images.iter()
            .map(|image| json!({"name": "c", "image": image, "resources": {"limits": {"cpu": format!("{cpu}m")}}})).collect();
        json!({"metadata": {"name": name, "labels": labels}, "spec": {
            "containers": containers, "terminationGracePeriodSeconds": grace, "hostNetwork": host}})
    }
}

proptest! {
    #[test]
    fn decoding_is_idempotent(pod in any_pod()) {
        let pods = resource("", "pods");
        let first = decode(pod.to_string().as_bytes(), ContentType::Json, &pods, FieldValidation::Strict).unwrap().object;
        let again = decode(first.to_string().as_bytes(), ContentType::Json, &pods, FieldValidation::Strict).unwrap().object;
        prop_assert_eq!(&first, &again);
        prop_assert_eq!(&first, &conform(first.clone(), &pods.schema).unwrap().object);
        let yaml = serde_yaml::to_string(&first).unwrap();
        prop_assert_eq!(&first, &decode(yaml.as_bytes(), ContentType::Yaml, &pods, FieldValidation::Strict).unwrap().object);
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let pods = resource("", "pods");
        let _ = decode(&bytes, ContentType::Json, &pods, FieldValidation::Strict);
        let _ = decode(&bytes, ContentType::Yaml, &pods, FieldValidation::Strict);
    }
}
