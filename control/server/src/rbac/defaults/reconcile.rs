//! What is to be done about a default role or binding that is there already (upstream's `auth/rbac/reconciliation`).

use serde_json::{Map, Value};
use wherry_api::meta;

use crate::layers::authorize::Rule;
use crate::rbac::rules;

#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// All that is expected is there, or its owner wants it left alone.
    Keep,
    /// It is to be replaced by this.
    Update(Value),
    /// It binds another role, which cannot be changed: away with it.
    Recreate,
}

/// Compares what is stored with what should be.
pub(super) fn decide(existing: &Value, expected: &Value) -> Action {
    if meta::annotation(existing, "rbac.authorization.kubernetes.io/autoupdate") == Some("false") {
        return Action::Keep;
    }
    if existing.get("roleRef") != expected.get("roleRef") {
        return Action::Recreate;
    }
    let mut new = existing.clone();
    for key in ["annotations", "labels"] {
        add_missing(meta::metadata_mut(&mut new), key, &expected["metadata"][key]);
    }
    if expected.get("roleRef").is_some() {
        append_missing(&mut new, &["subjects"], &expected["subjects"]);
    } else {
        let lacking = rules::missing(&rules::of_role(existing), &rules::of_role(expected));
        if !lacking.is_empty() {
            list_mut(&mut new, &["rules"]).extend(lacking.iter().map(Rule::to_value));
        }
        match expected.get("aggregationRule") {
            Some(rule) => {
                append_missing(&mut new, &["aggregationRule", "clusterRoleSelectors"], &rule["clusterRoleSelectors"])
            }
            None => {
                new.as_object_mut().map(|object| object.remove("aggregationRule"));
            }
        }
    }
    if new == *existing { Action::Keep } else { Action::Update(new) }
}

/// Adds the entries of a map that are not there; what is there stays.
fn add_missing(metadata: &mut Map<String, Value>, key: &str, expected: &Value) {
    let slot = metadata.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if let (Some(slot), Some(expected)) = (slot.as_object_mut(), expected.as_object()) {
        for (name, value) in expected {
            slot.entry(name).or_insert_with(|| value.clone());
        }
    }
}

fn append_missing(object: &mut Value, path: &[&str], expected: &Value) {
    let expected = expected.as_array().map(Vec::as_slice).unwrap_or_default();
    let present = path.iter().fold(&*object, |value, key| &value[key]);
    let present = present.as_array().map(Vec::as_slice).unwrap_or_default();
    let lacking: Vec<Value> = expected.iter().filter(|item| !present.contains(item)).cloned().collect();
    if !lacking.is_empty() {
        list_mut(object, path).extend(lacking);
    }
}

/// The list at `path`, made if it is not there.
fn list_mut<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Vec<Value> {
    let slot = path.iter().fold(object, |value, key| &mut value[key]);
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(list) = slot else { unreachable!("made a list above") };
    list
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(rules: Value) -> Value {
        json!({"metadata": {"name": "r", "labels": {"a": "b"}, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}}, "rules": rules})
    }

    #[test]
    fn roles_get_back_what_they_lack() {
        let pods = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]});
        let expected = role(json!([pods]));
        assert_eq!(decide(&expected, &expected), Action::Keep);
        // More than expected, in whatever form.
        let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
        assert_eq!(decide(&role(json!([all])), &expected), Action::Keep);
        let get = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let list = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]});
        assert_eq!(decide(&role(json!([get])), &expected), Action::Update(role(json!([get, list]))));
        assert_eq!(decide(&role(Value::Null), &expected), Action::Update(role(json!([get, list]))));
        let mut bare = expected.clone();
        bare["metadata"]["labels"] = json!({"a": "c"});
        bare["metadata"]["annotations"] = json!({});
        let mut repaired = expected.clone();
        repaired["metadata"]["labels"] = json!({"a": "c"});
        assert_eq!(decide(&bare, &expected), Action::Update(repaired));
        let mut protected = role(json!([]));
        protected["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
        assert_eq!(decide(&protected, &expected), Action::Keep);
    }

    #[test]
    fn aggregation_rules_follow() {
        let selector = |name: &str| json!({"matchLabels": {name: "true"}});
        let gathers = |selectors: Value| {
            let mut role = role(json!([]));
            role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
            role
        };
        let expected = gathers(json!([selector("x")]));
        assert_eq!(decide(&gathers(json!([selector("y"), selector("x")])), &expected), Action::Keep);
        assert_eq!(
            decide(&gathers(json!([selector("y")])), &expected),
            Action::Update(gathers(json!([selector("y"), selector("x")])))
        );
        assert_eq!(decide(&role(json!([])), &expected), Action::Update(expected.clone()));
        assert_eq!(decide(&expected, &role(json!([]))), Action::Update(role(json!([]))));
    }

    #[test]
    fn bindings_get_back_their_subjects_and_roles() {
        let binding = |role: &str, subjects: Value| {
            let mut binding = json!({"metadata": {"name": "b", "labels": {}, "annotations": {}}});
            binding["roleRef"] = json!({"kind": "ClusterRole", "name": role});
            binding["subjects"] = subjects;
            binding
        };
        let user = |name: &str| json!({"kind": "User", "name": name});
        let expected = binding("r", json!([user("a")]));
        assert_eq!(decide(&binding("r", json!([user("b"), user("a")])), &expected), Action::Keep);
        let both = binding("r", json!([user("b"), user("a")]));
        assert_eq!(decide(&binding("r", json!([user("b")])), &expected), Action::Update(both));
        assert_eq!(decide(&binding("other", json!([user("a")])), &expected), Action::Recreate);
    }
}
