//! What a real kube-apiserver (v1.36.3) said of some hundred odd objects, and what we say of them.
//!
//! A line of `testdata/validation.jsonl` is `{"resource": "apps/v1/deployments", "object": {...}, "errors": [[FIELD, REASON,
//! MESSAGE], ...]}`: the object was sent with `dryRun=All`, and accepted if there are no errors.

#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;

use crate::decode::{ContentType, FieldValidation, decode};
use crate::resource::Registry;

#[test]
fn the_real_server_says_the_same() {
    let registry = Registry::builtin();
    let mut wrong = Vec::new();
    let lines = include_str!("../../../testdata/validation.jsonl");
    for (number, line) in lines.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let path = case["resource"].as_str().unwrap();
        let resource = registry
            .resources()
            .find(|resource| format!("{}/{}", resource.api_version(), resource.plural) == path)
            .unwrap_or_else(|| panic!("line {number}: {path} is not served"));
        let body = case["object"].to_string();
        let decoded = decode(body.as_bytes(), ContentType::Json, resource, FieldValidation::Ignore).unwrap();
        let mut object = decoded.object;
        if resource.namespaced {
            object["metadata"]["namespace"] = "default".into();
        }
        object["metadata"]["uid"] = "u".into();
        resource.to_storage(&mut object);
        let stored = registry.stored(&resource.storage.resource).unwrap();
        stored.strategy.default(&mut object);
        stored.strategy.prepare_create(&mut object);
        let mut ours: Vec<Value> = stored
            .strategy
            .validate(&object)
            .iter()
            .map(|e| vec![e.path.as_str().to_owned(), e.kind.reason().to_owned(), e.body()].into())
            .collect();
        ours.sort_by_key(Value::to_string);
        let mut theirs = case["errors"].as_array().unwrap().clone();
        theirs.sort_by_key(Value::to_string);
        if ours != theirs {
            wrong.push(format!("line {}: {path}\n  ours   {ours:?}\n  theirs {theirs:?}", number + 1));
        }
    }
    assert!(lines.lines().count() > 300);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
