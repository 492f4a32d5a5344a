//! What a real kube-apiserver (v1.36.3) made of new and changed objects, and what we make of them.
//!
//! A line of a `testdata/*.jsonl` named here is `{"resource": "apps/v1/deployments", "object": {...}, "errors": [[FIELD, REASON,
//! MESSAGE], ...]}`: the object was sent to be created; with `old` it was an update of that one, with `sub` through that
//! subresource. Objects that were accepted may come with what they became, `result` (of its metadata what users set and the
//! generation), and with the `warnings` given.
//!
//! Not compared: values that are objects, which upstream prints as Go's internal types, what follows a message's first line
//! (Go's own diff), and how often an error is told (upstream checks the metadata of an update twice). Upstream was asked with its feature
//! gate HPAScaleToZero off, which here is on ([`scaling_to_zero`]).

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::decode::{ContentType, FieldValidation, decode};
use crate::resource::Registry;
use crate::strategy::{Sub, same};

/// A message as far as it is compared.
fn told(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let object = line.find("value: {").or_else(|| line.find("value: [{")).filter(|at| *at < 20);
    match (object, line.rfind('}')) {
        (Some(start), Some(end)) => format!("{}..{}", &line[..start], &line[end + 1..]),
        _ => line.to_owned(),
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

fn difference(what: &str, ours: &BTreeSet<String>, theirs: &BTreeSet<String>) -> Option<String> {
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| {
        a.difference(b).map(String::as_str).collect::<Vec<_>>().join("\n          ")
    };
    (ours != theirs).then(|| format!("  {what}\n    ours  {}\n    theirs {}", only(ours, theirs), only(theirs, ours)))
}

fn texts(list: &Value) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What upstream says of fewest Pods, as it is here: zero may be asked for where a metric of Pods could want none, too.
fn scaling_to_zero(error: &Value) -> Option<Value> {
    let message = error[2].as_str()?;
    if error[0] == "spec.minReplicas" && message.starts_with("Invalid value: 0: ") {
        return None;
    }
    let message = match error[0].as_str()? {
        "spec.minReplicas" => message.replace("greater than or equal to 1", "greater than or equal to 0"),
        "spec.metrics" => message.replace("one Object or External metric", "one Pods, Object or External metric"),
        _ => message.to_owned(),
    };
    Some(json!([error[0], error[1], message]))
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
        if let Some(prefix) = object["metadata"]["generateName"].as_str().map(str::to_owned)
            && object["metadata"]["name"].is_null()
        {
            object["metadata"]["name"] = format!("{prefix}abcde").into();
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
    let line = |field: &str, reason: &str, message: &str| json!([field, reason, told(message)]).to_string();
    let ours = found.iter().map(|e| line(e.path.as_str(), e.kind.reason(), &e.body())).collect();
    let told = case["errors"].as_array().unwrap().iter().filter_map(scaling_to_zero);
    let theirs: BTreeSet<String> =
        told.map(|e| line(e[0].as_str().unwrap(), e[1].as_str().unwrap(), e[2].as_str().unwrap())).collect();
    wrong.extend(difference("errors", &ours, &theirs));
    let Some(result) = case.get("result").filter(|_| theirs.is_empty()) else {
        return wrong;
    };
    wrong.extend(difference("warnings", &strategy.warnings(&object).into_iter().collect(), &texts(&case["warnings"])));
    kept.schema.complete(&mut object);
    resource.from_storage(&mut object);
    // A time is never the same.
    let moved = "lastPhaseTransitionTime";
    if !object["status"][moved].is_null() && !result["status"][moved].is_null() {
        object["status"][moved] = result["status"][moved].clone();
    }
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

/// Judges every case of a file, of which there are more than `least`.
fn all(cases: &str, least: usize) {
    let registry = Registry::builtin();
    let mut wrong = Vec::new();
    for (number, line) in cases.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        for problem in judge(&registry, &case) {
            wrong.push(format!("line {}: {} {}\n{problem}", number + 1, case["resource"], case["sub"]));
        }
    }
    assert!(cases.lines().count() > least);
    assert!(wrong.is_empty(), "{}\n{} differences", wrong.join("\n"), wrong.len());
}

#[test]
fn what_is_wrong_with_objects_is_told_as_upstream_does() {
    all(include_str!("../../../testdata/validation.jsonl"), 500);
}

#[test]
fn core_kinds_are_judged_as_upstream() {
    all(include_str!("../../../testdata/core.jsonl"), 700);
}

#[test]
fn kinds_are_judged_as_upstream() {
    all(include_str!("../../../testdata/kinds.jsonl"), 1000);
}
