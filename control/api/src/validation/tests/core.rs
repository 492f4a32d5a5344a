//! What a real kube-apiserver (v1.36.3) said of new and changed objects of the core group, and what we say of them.
//!
//! A line of `testdata/core.jsonl` is `{"resource": "v1/pods", "object": {...}, "errors": [[FIELD, REASON, MESSAGE], ...]}`; with
//! `old` the object was an update of that one, of its status if `sub` says so. Objects that were accepted come with what they became, `result`,
//! and what was warned of, `warnings`.
//!
//! Two things are not compared: values that are objects, which there are printed as Go's internal types, and what follows
//! the first line of a message, Go's own diff.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;

use crate::decode::{ContentType, FieldValidation, decode};
use crate::resource::Registry;
use crate::strategy::{Strategy, Sub, same};
use crate::validation::{is_set, items};

/// What we make of a case's object, and what is wrong with it.
fn judge(strategy: &Strategy, case: &Value, mut object: Value, namespaced: bool) -> (Value, Vec<Value>) {
    if namespaced {
        object["metadata"]["namespace"] = "default".into();
    }
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = format!("{}abcde", object["metadata"]["generateName"].as_str().unwrap()).into();
    }
    strategy.default(&mut object);
    let errors = match &case["old"] {
        Value::Null => {
            object["metadata"]["uid"] = "u".into();
            strategy.prepare_create(&mut object);
            strategy.validate(&object)
        }
        old => {
            let sub = if case["sub"] == "status" { Sub::Status } else { Sub::Main };
            strategy.prepare_update(&mut object, old, sub);
            strategy.validate_update(&object, old, sub)
        }
    };
    let errors = errors.iter().map(|e| vec![e.path.as_str().to_owned(), e.kind.reason().to_owned(), e.body()].into());
    (object, errors.collect())
}

/// A message as far as it is compared.
fn told(body: &str) -> String {
    let line = body.lines().next().unwrap_or_default();
    match (line.find('{'), line.rfind('}')) {
        (Some(from), Some(to))
            if line.starts_with("Invalid value: {")
                || line.starts_with("Duplicate value: {")
                || line.starts_with("Invalid value: [{") =>
        {
            format!("{}{}", &line[..from], &line[to + 1..])
        }
        _ => line.to_owned(),
    }
}

/// Errors in order, each once: upstream checks the metadata of an update twice.
fn distinct(mut errors: Vec<Value>) -> Vec<Value> {
    for error in &mut errors {
        let body = told(error[2].as_str().unwrap());
        error[2] = body.into();
    }
    errors.sort_by_key(Value::to_string);
    errors.dedup();
    errors
}

#[test]
fn core_kinds_are_judged_as_upstream() {
    let registry = Registry::builtin();
    let mut wrong = Vec::new();
    let lines = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/core.jsonl")).unwrap();
    for (number, line) in lines.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let path = case["resource"].as_str().unwrap();
        let resource = registry.resources().find(|r| format!("{}/{}", r.api_version(), r.plural) == path).unwrap();
        let body = case["object"].to_string();
        let mut object = decode(body.as_bytes(), ContentType::Json, resource, FieldValidation::Ignore).unwrap().object;
        resource.to_storage(&mut object);
        let strategy = registry.stored(&resource.storage.resource).unwrap().strategy;
        let strategy: &Strategy = strategy;
        let (mut object, ours) = judge(strategy, &case, object, resource.namespaced);
        let (ours, theirs) = (distinct(ours), distinct(case["errors"].as_array().unwrap().clone()));
        if case["errors"].as_array().unwrap().is_empty() && case["old"].is_null() {
            let mut told = strategy.warnings(&object);
            told.sort();
            let theirs: Vec<&str> = items(&case, "warnings").iter().filter_map(Value::as_str).collect();
            if told != theirs {
                wrong.push(format!("line {}: {path} warnings\n  ours   {told:?}\n  theirs {theirs:?}", number + 1));
            }
        }
        // The server adds an empty status to what has none; a time is never the same.
        if object["status"].is_null() {
            object["status"] = case["result"]["status"].clone();
        }
        if is_set(&case["result"]["status"], "lastPhaseTransitionTime") {
            object["status"]["lastPhaseTransitionTime"] = case["result"]["status"]["lastPhaseTransitionTime"].clone();
        }
        if ours != theirs {
            let only = |a: &[Value], b: &[Value]| {
                a.iter().filter(|e| !b.contains(e)).map(Value::to_string).collect::<Vec<_>>().join("\n      ")
            };
            wrong.push(format!(
                "line {}: {path}\n  ours   {}\n  theirs {}",
                number + 1,
                only(&ours, &theirs),
                only(&theirs, &ours)
            ));
        }
        for part in
            case["result"].as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| *key != "metadata")
        {
            if !same(&object[part], &case["result"][part]) {
                wrong.push(format!(
                    "line {}: {path} {part}\n  ours   {}\n  theirs {}",
                    number + 1,
                    object[part],
                    case["result"][part]
                ));
            }
        }
    }
    assert!(lines.lines().count() > 600);
    assert!(wrong.is_empty(), "{}\n{} wrong", wrong.join("\n"), wrong.len());
}
