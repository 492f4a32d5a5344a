#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::facts::Schema;
use proptest::prelude::*;
use serde_json::json;

fn strategic(kind: (&str, &str), current: Value, patch: Value) -> Result<Value, Status> {
    strategic_merge(&Schema::builtin(kind.0, kind.1).unwrap(), &current, &patch)
}

const POD: (&str, &str) = ("v1", "Pod");
const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");

fn containers(names: &[&str]) -> Value {
    json!({"spec": {"containers": names.iter().map(|n| json!({"name": n, "image": "old"})).collect::<Vec<_>>()}})
}

fn names(object: &Value) -> Vec<&str> {
    object["spec"]["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect()
}

#[test]
fn lists_are_merged_by_key() {
    let patch = json!({"spec": {"containers": [{"name": "b", "image": "new", "command": null}, {"name": "c"}]}});
    let merged = strategic(POD, containers(&["a", "b"]), patch).unwrap();
    assert_eq!(
        merged["spec"]["containers"],
        json!([
        {"name": "a", "image": "old"}, {"name": "b", "image": "new"}, {"name": "c"}])
    );
}

#[test]
fn directives() {
    let delete = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
    assert_eq!(names(&strategic(POD, containers(&["a", "b"]), delete).unwrap()), ["b"]);
    let replace = json!({"spec": {"containers": [{"name": "z"}, {"$patch": "replace"}]}});
    assert_eq!(names(&strategic(POD, containers(&["a", "b"]), replace).unwrap()), ["z"]);
    let object = json!({"metadata": {"labels": {"a": "b"}}});
    let replaced =
        strategic(POD, object.clone(), json!({"metadata": {"labels": {"$patch": "replace", "c": "d"}}})).unwrap();
    assert_eq!(replaced["metadata"]["labels"], json!({"c": "d"}));
    let deleted = strategic(POD, object, json!({"metadata": {"labels": {"$patch": "delete"}}})).unwrap();
    assert_eq!(deleted["metadata"]["labels"], json!({}));
    let rolling = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let recreate = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(strategic(DEPLOYMENT, rolling, recreate).unwrap()["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn element_order() {
    let order = |names: &[&str]| names.iter().map(|n| json!({"name": n})).collect::<Vec<_>>();
    for (live, wanted, patch, result) in [
        (vec!["a", "b"], vec!["b", "a"], vec![], vec!["b", "a"]),
        (vec!["a", "b"], vec!["c", "a", "b"], vec!["c"], vec!["c", "a", "b"]),
        (vec!["a", "x", "b"], vec!["b", "a"], vec!["a"], vec!["x", "b", "a"]),
        (vec!["x", "a"], vec!["a", "b"], vec!["b"], vec!["x", "a", "b"]),
    ] {
        let mut spec = json!({"$setElementOrder/containers": order(&wanted)});
        if !patch.is_empty() {
            spec["containers"] = order(&patch).into();
        }
        let merged = strategic(POD, containers(&live), json!({"spec": spec})).unwrap();
        assert_eq!(names(&merged), result, "{live:?} {wanted:?} {patch:?}");
    }
    let wrong = json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}});
    assert_eq!(strategic(POD, containers(&["a"]), wrong).unwrap_err().code, 422);
}

#[test]
fn primitive_lists() {
    let object = json!({"metadata": {"finalizers": ["a", "b", "c"]}});
    let patch = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["d", "c", "b"], "finalizers": ["d"]}});
    let merged = strategic(POD, object, patch).unwrap();
    assert_eq!(merged["metadata"]["finalizers"], json!(["d", "c", "b"]));
    let args = json!({"spec": {"containers": [{"name": "a", "args": ["1", "2"]}]}});
    let merged = strategic(POD, args, json!({"spec": {"containers": [{"name": "a", "args": ["3"]}]}})).unwrap();
    assert_eq!(merged["spec"]["containers"][0]["args"], json!(["3"]), "atomic lists are replaced");
}

#[test]
fn volumes_change_their_source() {
    let object = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]}});
    let patch =
        json!({"spec": {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}]}});
    let merged = strategic(POD, object, patch).unwrap();
    assert_eq!(
        merged["spec"]["volumes"],
        json!([{"name": "v", "configMap": {"name": "c"}}, {"name": "w", "emptyDir": {}}])
    );
}

#[test]
fn malformed_patches_are_refused() {
    for (patch, code) in [
        (json!([]), 400),
        (json!({"$patch": "merge"}), 422),
        (json!({"spec": {"$retainKeys": 1}}), 400),
        (json!({"spec": {"$retainKeys": ["a"], "nodeName": "b"}}), 400),
        (json!({"spec": {"$setElementOrder/containers": {}}}), 400),
        (json!({"spec": {"containers": [{"image": "x"}]}}), 422),
        (json!({"spec": {"containers": ["x"]}}), 422),
        (json!({"spec": {"containers": [{"name": "a", "$patch": "what"}]}}), 422),
        (json!({"spec": {"containers": [{"name": "a", "$patch": 5}]}}), 422),
    ] {
        assert_eq!(strategic(POD, containers(&["a"]), patch.clone()).unwrap_err().code, code, "{patch}");
    }
}

#[test]
fn json_patches() {
    let object = json!({"a": {"b": [1, 2]}});
    let patched = json_patch(
        &object,
        &json!([{"op": "test", "path": "/a/b/0", "value": 1}, {"op": "add", "path": "/a/b/-", "value": 3}, {"op": "move", "from": "/a/b", "path": "/c"}]),
    );
    assert_eq!(patched.unwrap(), json!({"a": {}, "c": [1, 2, 3]}));
    for (patch, code) in [
        (json!([{"op": "test", "path": "/a", "value": 1}]), 422),
        (json!([{"op": "remove", "path": "/x"}]), 422),
        (json!([{"op": "fly", "path": "/x"}]), 422),
        (json!({"op": "remove"}), 400),
        (json!(vec![json!({"op": "test", "path": "/a/b/0", "value": 1}); MAX_OPERATIONS + 1]), 413),
        (json!(vec![json!({"op": "copy", "from": "", "path": "/a/x"}); 200]), 422),
        (json!(vec![json!({"op": "copy", "from": "/a", "path": "/a/b/-"}); 60]), 422),
    ] {
        assert_eq!(json_patch(&object, &patch).unwrap_err().code, code);
    }
}

#[test]
fn the_whole_way() {
    let schema = Schema::builtin("v1", "ConfigMap").unwrap();
    let current = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let run = |kind, body: &str, validation| patch(kind, &schema, &current, body.as_bytes(), validation);
    let merged = run(PatchType::Merge, r#"{"data":{"k":null,"l":"m"}}"#, FieldValidation::Strict).unwrap();
    assert_eq!(merged.object["data"], json!({"l": "m"}));
    let unknown = run(PatchType::Merge, r#"{"x":1}"#, FieldValidation::Strict).unwrap_err();
    assert_eq!(unknown.code, 422);
    assert!(unknown.message.starts_with(" \"\" is invalid: patch: Invalid value: "), "{unknown}");
    assert!(unknown.message.ends_with(r#"strict decoding error: unknown field "x""#), "{unknown}");
    let dropped = run(PatchType::Merge, r#"{"x":1}"#, FieldValidation::Ignore).unwrap();
    assert!(dropped.warnings.is_empty() && dropped.object.get("x").is_none());
    let other = run(PatchType::Merge, r#"{"apiVersion":"v2"}"#, FieldValidation::Warn).unwrap_err();
    assert_eq!(other.code, 400);
    let mut decoded = run(PatchType::Merge, r#"{"kind":null,"apiVersion":null}"#, FieldValidation::Strict).unwrap();
    assert_eq!(decoded.object["kind"].take(), "ConfigMap");
    let duplicate = run(PatchType::Strategic, r#"{"data":{"k":"1","k":"2"}}"#, FieldValidation::Warn).unwrap();
    assert_eq!(duplicate.warnings, [r#"duplicate field "data.k""#]);
    assert_eq!(
        run(PatchType::Json, r#"[{"op":"add","path":"/data/k","value":1}]"#, FieldValidation::Warn).unwrap_err().code,
        422
    );
    assert_eq!(run(PatchType::Merge, "{", FieldValidation::Warn).unwrap_err().code, 400);
    assert_eq!(run(PatchType::Apply, "{}", FieldValidation::Warn).unwrap_err().code, 415);
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(true)), any::<i8>().prop_map(Value::from), "[a-c]{0,2}".prop_map(Value::from)];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| m.into_iter().collect()),
        ]
    })
}

prop_compose! {
    fn pod_patch()(
        names in prop::collection::btree_set("[a-d]", 0..4), image in "[x-z]", finalizers in prop::collection::btree_set("[a-d]", 0..3),
        labels in prop::collection::btree_map("[a-c]", prop::option::of("[a-c]"), 0..3), delete in any::<bool>(),
    ) -> Value {
        let containers: Vec<Value> = names.iter().enumerate().map(|(i, name)| match i {
            0 if delete => json!({"name": name, "$patch": "delete"}),
            _ => json!({"name": name, "image": image}),
        }).collect();
        json!({"metadata": {"labels": labels, "finalizers": finalizers}, "spec": {"containers": containers}})
    }
}

proptest! {
    #[test]
    fn a_merge_patch_without_nulls_is_idempotent(current in tree(), patch in tree()) {
        let once = merge_patch(&current, &patch);
        prop_assert_eq!(&once, &merge_patch(&once, &patch));
        prop_assert_eq!(merge_patch(&Value::Null, &patch), patch);
    }

    #[test]
    fn a_strategic_patch_is_idempotent(first in pod_patch(), second in pod_patch()) {
        let pod = strategic(POD, json!({}), first).unwrap();
        let once = strategic(POD, pod, second.clone()).unwrap();
        let twice = strategic(POD, once.clone(), second).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn an_object_as_its_own_patch_changes_nothing(patch in pod_patch()) {
        let pod = strategic(POD, json!({}), patch).unwrap();
        prop_assert_eq!(strategic(POD, pod.clone(), pod.clone()).unwrap(), pod);
    }

    #[test]
    fn any_patch_is_answered(current in tree(), patch in tree()) {
        let _ = strategic(POD, json!({"spec": current}), json!({"spec": patch.clone(), "metadata": {"finalizers": patch}}));
    }
}
