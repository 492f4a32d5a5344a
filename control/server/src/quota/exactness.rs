//! Quotas over writes at random: what there is, counted anew, is never more than what was charged, nor than what is allowed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    check::{Change, added},
    ledger::as_map,
    measure::{Measure, owner},
    scopes,
};
use crate::admission::{
    Operation,
    amounts::{self, Amounts},
};

const RESOURCES: [&str; 4] = ["pods", "services", "persistentvolumeclaims", "configmaps"];
/// What a quota may limit, and to how much at the least.
const NAMES: [(&str, &str); 10] = [
    ("pods", "1"),
    ("requests.cpu", "300m"),
    ("limits.memory", "1Gi"),
    ("count/pods", "2"),
    ("services", "1"),
    ("services.nodeports", "2"),
    ("persistentvolumeclaims", "1"),
    ("requests.storage", "2Gi"),
    ("gold.storageclass.storage.k8s.io/requests.storage", "1Gi"),
    ("configmaps", "1"),
];

/// An object: a number for each thing that may differ.
type Shape = [usize; 3];

fn object(resource: &str, [a, b, c]: Shape) -> Value {
    match resource {
        "pods" => {
            let sizes = [json!({}), json!({"cpu": "100m"}), json!({"cpu": "1"})];
            let limits = [json!({}), json!({"memory": "512Mi"}), json!({"memory": "1Gi"})];
            let resources = json!({"requests": sizes[a], "limits": limits[b]});
            let deadline = [Value::Null, json!(5), Value::Null][c].clone();
            let phase = if c == 2 { "Failed" } else { "Running" };
            json!({"spec": {"activeDeadlineSeconds": deadline, "containers": [{"name": "c", "resources": resources}]},
                "status": {"phase": phase}})
        }
        "services" => {
            let kind = ["ClusterIP", "NodePort", "LoadBalancer"][a];
            json!({"spec": {"type": kind, "allocateLoadBalancerNodePorts": c > 0, "ports": vec![json!({"nodePort": c}); b]}})
        }
        "persistentvolumeclaims" => {
            let class = [Value::Null, json!("gold"), json!("other")][a].clone();
            let size = ["1Gi", "1536Mi", "3Gi"][b];
            json!({"spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}}})
        }
        _ => json!({"data": {"n": a.to_string()}}),
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    [0usize..3, 0..3, 0..3]
}

/// A quota of some names, each with so many times the least, and perhaps of one scope.
fn quota() -> impl Strategy<Value = Value> {
    let hard = prop::collection::btree_map(0..NAMES.len(), 0i64..4, 1..5);
    let scope = prop::option::weighted(
        0.5,
        prop::sample::select(vec!["Terminating", "NotTerminating", "BestEffort", "NotBestEffort"]),
    );
    (hard, scope).prop_map(|(hard, scope)| {
        let mut amounts = Amounts::new();
        for (name, times) in hard {
            let least = amounts::of(&json!({NAMES[name].0: NAMES[name].1}));
            amounts.insert(NAMES[name].0.to_owned(), wherry_api::quantity::Quantity::ZERO);
            (0..times).for_each(|_| amounts::add(&mut amounts, &least));
        }
        let zero = amounts.keys().map(|name| (name.clone(), wherry_api::quantity::Quantity::ZERO)).collect();
        json!({"metadata": {"name": "q"}, "spec": {"hard": as_map(&amounts), "scopes": scope.as_slice()},
            "status": {"hard": as_map(&amounts), "used": as_map(&zero)}})
    })
}

/// What the objects use of what the quota limits.
fn counted(quota: &Value, objects: &BTreeMap<usize, Value>) -> Amounts {
    let mut sum: Amounts = amounts::of(&quota["spec"]["hard"])
        .into_keys()
        .map(|name| (name, wherry_api::quantity::Quantity::ZERO))
        .collect();
    for (slot, object) in objects {
        let resource = RESOURCES[slot % RESOURCES.len()];
        let measure = Measure::of(resource).unwrap();
        if scopes::matches(measure, quota, object) {
            let mut usage = measure.usage(resource, object, Timestamp::UNIX_EPOCH);
            usage.retain(|name, _| sum.contains_key(name));
            amounts::add(&mut sum, &usage);
        }
    }
    sum
}

/// By which request the object becomes the other: operation and subresource; and whether the API has such a one.
fn request(resource: &str, old: Option<&Value>, new: &mut Value) -> Option<(Operation, &'static str)> {
    let Some(old) = old else { return Some((Operation::Create, "")) };
    if resource != "pods" {
        return Some((Operation::Update, ""));
    }
    // What has ended stays so, and a request changes what it is about alone.
    if old["status"]["phase"] == "Failed" {
        return None;
    }
    let resized = old["spec"]["containers"] != new["spec"]["containers"];
    if resized {
        new["spec"]["activeDeadlineSeconds"] = old["spec"]["activeDeadlineSeconds"].clone();
    }
    new["status"] = if resized { old["status"].clone() } else { new["status"].clone() };
    if new["status"] != old["status"] {
        new["spec"] = old["spec"].clone();
        return Some((Operation::Update, "status"));
    }
    Some((Operation::Update, if resized { "resize" } else { "" }))
}

proptest! {
    #[test]
    fn what_there_is_was_charged_and_what_was_charged_is_allowed(
        mut quota in quota(), writes in prop::collection::vec((0usize..8, prop::option::weighted(0.8, shape())), 0..30),
    ) {
        let mut objects: BTreeMap<usize, Value> = BTreeMap::new();
        for (slot, write) in writes {
            let resource = RESOURCES[slot % RESOURCES.len()];
            let measure = Measure::of(resource).unwrap();
            match write {
                None => {
                    objects.remove(&slot);
                    quota["status"]["used"] = as_map(&counted(&quota, &objects));
                }
                Some(shape) => {
                    let mut new = object(resource, shape);
                    let old = objects.get(&slot);
                    let Some((operation, subresource)) = request(resource, old, &mut new) else { continue };
                    if measure.charges(operation, subresource, old, &new) {
                        let change = Change { measure, resource, old, new: &new, now: Timestamp::UNIX_EPOCH };
                        let Ok(more) = added(&quota, &change) else { continue };
                        let mut used = amounts::of(&quota["status"]["used"]);
                        amounts::add(&mut used, &more);
                        quota["status"]["used"] = as_map(&used);
                    }
                    objects.insert(slot, new);
                }
            }
            let (hard, used) = (amounts::of(&quota["status"]["hard"]), amounts::of(&quota["status"]["used"]));
            for (name, there_is) in counted(&quota, &objects) {
                prop_assert!(there_is <= used[&name], "{}: {} of {} charged in {:?}", name, there_is, used[&name], objects);
                prop_assert!(used[&name] <= hard[&name], "{}: {} of {}", name, used[&name], hard[&name]);
            }
        }
    }

    #[test]
    fn who_takes_no_more_is_let_through_also_where_too_much_is_used(
        mut quota in quota(), slot in 1usize..4, old in shape(), new in shape(),
    ) {
        let resource = RESOURCES[slot];
        let measure = Measure::of(resource).unwrap();
        let (old, new) = (object(resource, old), object(resource, new));
        // Somebody made the quota smaller than what there is.
        let over: Amounts = amounts::of(&quota["status"]["hard"]).into_iter().map(|(name, q)| (name, q + q + q)).collect();
        quota["status"]["used"] = as_map(&over);
        let usage = |object: &Value| measure.usage(resource, object, Timestamp::UNIX_EPOCH);
        let (before, after) = (usage(&old), usage(&new));
        let takes_more = after.iter().any(|(name, q)| {
            let charged = over.contains_key(name) && owner(name) == Some(resource) && scopes::matches(measure, &quota, &new);
            charged && before.get(name).is_none_or(|had| had < q)
        });
        let change = Change { measure, resource, old: Some(&old), new: &new, now: Timestamp::UNIX_EPOCH };
        let answer = added(&quota, &change);
        prop_assert_eq!(answer.as_ref().ok().map(Amounts::is_empty), (!takes_more).then_some(true), "{:?}", answer);
    }
}
