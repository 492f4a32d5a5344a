//! CertificateSigningRequest: its spec is fixed, its decisions come by `approval`, its certificate by `status`.

use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use super::base::UNCOUNTED;
use super::{Strategy, Sub, fields};
use crate::columns;
use crate::defaults::Object;
use crate::validation::{certificates, items, names, text};

pub(super) const REQUEST: Strategy = Strategy {
    name: names::path_segment,
    create,
    update,
    check: certificates::request,
    check_update: certificates::update,
    columns: columns::CSR,
    row: columns::csr,
    fields: fields::CSR,
    ..UNCOUNTED
};

fn create(object: &mut Object) {
    object.insert("status".into(), json!({}));
}

fn update(new: &mut Object, old: &Value, sub: Sub) {
    new.insert("spec".into(), old["spec"].clone());
    match sub {
        Sub::Status => {
            // Unchanged in number, decisions are those there were, whatever a client made of them.
            for kind in ["Approved", "Denied"] {
                keep(new, old, kind);
            }
            stamp(new, old);
        }
        Sub::Approval => {
            stamp(new, old);
            let conditions = new.get("status").map_or(Value::Null, |status| status["conditions"].clone());
            let mut status = old["status"].as_object().cloned().unwrap_or_default();
            match conditions {
                Value::Null => status.remove("conditions"),
                conditions => status.insert("conditions".into(), conditions),
            };
            new.insert("status".into(), status.into());
        }
        _ => {}
    }
}

fn conditions(object: &mut Object) -> impl Iterator<Item = &mut Value> {
    object.get_mut("status").and_then(|status| status.get_mut("conditions")?.as_array_mut()).into_iter().flatten()
}

fn keep(new: &mut Object, old: &Value, kind: &str) {
    let before: Vec<&Value> =
        items(&old["status"], "conditions").iter().filter(|condition| text(condition, "type") == kind).collect();
    let after: Vec<&mut Value> = conditions(new).filter(|condition| text(condition, "type") == kind).collect();
    if before.len() == after.len() {
        for (after, before) in after.into_iter().zip(before) {
            *after = before.clone();
        }
    }
}

/// Fills in the times that are missing.
fn stamp(new: &mut Object, old: &Value) {
    let now = Timestamp::now();
    let now = now.round(Unit::Second).unwrap_or(now).to_string();
    for condition in conditions(new) {
        let same = |before: &&Value| {
            ["type", "status"].iter().all(|key| text(before, key) == text(condition, key))
                && !before["lastTransitionTime"].is_null()
        };
        let since = items(&old["status"], "conditions").iter().find(same).map(|before| &before["lastTransitionTime"]);
        let since = since.cloned().unwrap_or_else(|| now.clone().into());
        let Some(condition) = condition.as_object_mut() else { continue };
        for (key, value) in [("lastUpdateTime", Value::from(now.clone())), ("lastTransitionTime", since)] {
            let slot = condition.entry(key).or_insert(Value::Null);
            if slot.is_null() {
                *slot = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_endpoint_changes_its_own_part() {
        let old = json!({"spec": {"a": 1}, "status": {"certificate": "old", "conditions": [
            {"type": "Approved", "status": "True", "reason": "mine", "lastTransitionTime": "t"},
        ]}});
        let new = json!({"spec": {"a": 2}, "status": {"certificate": "new", "conditions": [
            {"type": "Approved", "status": "True", "reason": "theirs"}, {"type": "Ready", "status": "True"},
        ]}});
        let through = |sub: Sub| {
            let mut object = new.as_object().unwrap().clone();
            update(&mut object, &old, sub);
            Value::from(object)
        };
        let status = through(Sub::Status);
        assert_eq!((&status["spec"]["a"], &status["status"]["certificate"]), (&json!(1), &json!("new")));
        assert_eq!(status["status"]["conditions"][0]["reason"], "mine");
        assert!(status["status"]["conditions"][1]["lastUpdateTime"].is_string());
        let approval = through(Sub::Approval);
        assert_eq!((&approval["spec"]["a"], &approval["status"]["certificate"]), (&json!(1), &json!("old")));
        assert_eq!(approval["status"]["conditions"][0]["reason"], "theirs");
        assert_eq!(approval["status"]["conditions"][0]["lastTransitionTime"], "t");
    }
}
