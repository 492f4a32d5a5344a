//! What a real kube-apiserver (v1.36.3) made of new and changed objects of all groups but core, and what we make of them.
//!
//! A line of `testdata/kinds.jsonl` is `{"resource": "apps/v1/deployments", "object": {...}, "errors": [[FIELD, REASON, MESSAGE],
//! ...]}`; with `old` the object was an update of that one, with `sub` through that subresource. Objects that were accepted come
//! with what they became, `result` (of its metadata what users set and the generation), and with the `warnings` given.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use crate::decode::{ContentType, FieldValidation, decode};
use crate::resource::Registry;
use crate::strategy::{Sub, same};

/// The lines of `a` beyond those of `b`.
fn only(a: &[String], b: &[String]) -> String {
    let mut rest = a.to_vec();
    for line in b {
        if let Some(i) = rest.iter().position(|found| found == line) {
            rest.remove(i);
        }
    }
    rest.join("\n          ")
}

/// A message without the object that it shows: Go shows its own types, with other names of fields.
fn without_object(message: &str) -> String {
    match (message.find("value: {"), message.rfind('}')) {
        (Some(start), Some(end)) if start < 20 => format!("{}..{}", &message[..start + 7], &message[end + 1..]),
        _ => message.to_owned(),
    }
}

/// A tree as it is read back: Go's storage knows no empty lists.
fn stored(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), stored(value))).collect(),
        Value::Array(list) if list.is_empty() => Value::Null,
        Value::Array(list) => list.iter().map(stored).collect(),
        value => value.clone(),
    }
}

fn difference(what: &str, ours: &[String], theirs: &[String]) -> Option<String> {
    let mut pair = [ours.to_vec(), theirs.to_vec()];
    pair.iter_mut().for_each(|list| list.sort());
    (pair[0] != pair[1])
        .then(|| format!("  {what}\n    ours  {}\n    theirs {}", only(ours, theirs), only(theirs, ours)))
}

fn judge(registry: &Registry, case: &Value) -> Vec<String> {
    let path = case["resource"].as_str().unwrap();
    let resource = registry
        .resources()
        .find(|r| format!("{}/{}", r.api_version(), r.plural) == path)
        .unwrap_or_else(|| panic!("{path} is not served"));
    let tree = |value: &Value| {
        let body = value.to_string();
        let mut object = decode(body.as_bytes(), ContentType::Json, resource, FieldValidation::Ignore).unwrap().object;
        if resource.namespaced {
            object["metadata"]["namespace"] = "default".into();
        }
        resource.to_storage(&mut object);
        object
    };
    let kept = registry.stored(&resource.storage.resource).unwrap();
    let strategy = kept.strategy;
    let mut object = tree(&case["object"]);
    strategy.default(&mut object);
    let sub = if case["sub"] == "status" { Sub::Status } else { Sub::Main };
    let found = match &case["old"] {
        Value::Null => {
            object["metadata"]["uid"] = "u".into();
            strategy.prepare_create(&mut object);
            strategy.validate(&object)
        }
        old => {
            let old = tree(old);
            strategy.prepare_update(&mut object, &old, sub);
            strategy.validate_update(&object, &old, sub)
        }
    };
    let mut wrong = Vec::new();
    let line = |field: &str, reason: &str, message: &str| json!([field, reason, without_object(message)]).to_string();
    let ours: Vec<String> = found.iter().map(|e| line(e.path.as_str(), e.kind.reason(), &e.body())).collect();
    let theirs: Vec<String> = case["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| line(e[0].as_str().unwrap(), e[1].as_str().unwrap(), e[2].as_str().unwrap()))
        .collect();
    wrong.extend(difference("errors", &ours, &theirs));
    if !theirs.is_empty() {
        return wrong;
    }
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    wrong.extend(difference("warnings", &strategy.warnings(&object), &texts(&case["warnings"])));
    kept.schema.complete(&mut object);
    resource.from_storage(&mut object);
    let result = &case["result"];
    let keys = object.as_object().into_iter().chain(result.as_object()).flatten().map(|(key, _)| key.as_str());
    let mut pairs: Vec<(&str, &Value, &Value)> = keys
        .filter(|key| !matches!(*key, "apiVersion" | "kind" | "metadata"))
        .map(|key| (key, &object[key], &result[key]))
        .collect();
    for key in ["generation", "labels", "annotations"] {
        pairs.push((key, &object["metadata"][key], &result["metadata"][key]));
    }
    pairs.sort_by_key(|(key, _, _)| *key);
    pairs.dedup_by_key(|(key, _, _)| *key);
    for (key, ours, theirs) in pairs.iter().filter(|(_, ours, theirs)| !same(&stored(ours), &stored(theirs))) {
        wrong.push(format!("  {key}\n    ours   {ours}\n    theirs {theirs}"));
    }
    wrong
}

#[test]
fn kinds_are_judged_as_upstream() {
    let registry = Registry::builtin();
    let lines = include_str!("../../../testdata/kinds.jsonl");
    let mut wrong = Vec::new();
    for (number, line) in lines.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        for problem in judge(&registry, &case) {
            wrong.push(format!("line {}: {} {}\n{problem}", number + 1, case["resource"], case["sub"]));
        }
    }
    assert!(lines.lines().count() > 900);
    assert!(wrong.is_empty(), "{}\n{} differences", wrong.join("\n"), wrong.len());
}
