use proptest::prelude::*;
use serde_json::json;

use super::*;

struct One(Schema);

impl Versions for One {
    fn schema(&self) -> &Schema {
        &self.0
    }

    fn at(&self, _: &str, _: &Value) -> Option<(Schema, Value)> {
        None
    }
}

fn deployments() -> One {
    One(Schema::builtin("apps/v1", "Deployment").unwrap())
}

fn by<'a>(manager: &'a str, reset: &'a FieldSet) -> Writer<'a> {
    Writer { manager, subresource: "", now: "2026-01-01T00:00:00Z", reset }
}

/// Applies as `manager`.
fn apply_as(manager: &str, live: &Value, config: &Value, force: bool) -> Result<Value, ApplyError> {
    apply(&deployments(), live, config, by(manager, &FieldSet::default()), force).map(conformed)
}

/// As the server stores it.
fn conformed(object: Value) -> Value {
    crate::decode::conform(object, &deployments().0).unwrap().object
}

/// Writes `change` over `live` as `manager`.
fn update_as(manager: &str, live: &Value, change: impl FnOnce(&mut Value)) -> Value {
    let mut new = live.clone();
    change(&mut new);
    update(&deployments(), live, &mut new, by(manager, &FieldSet::default()));
    new
}

fn config(replicas: Option<i64>, image: &str) -> Value {
    let mut config = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "a"}},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}},
    });
    if let Some(replicas) = replicas {
        config["spec"]["replicas"] = replicas.into();
    }
    config
}

fn empty() -> Value {
    deployments().0.empty()
}

fn stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = "1".into();
    object
}

fn owned(object: &Value, manager: &str) -> Vec<String> {
    let managers = Managers::parse(object["metadata"].get("managedFields")).unwrap();
    managers.0.iter().filter(|entry| entry.who.manager == manager).flat_map(|entry| entry.fields.paths()).collect()
}

const REPLICAS: &str = ".spec.replicas";

#[test]
fn an_applier_owns_what_it_names_and_loses_what_it_names_no_more() {
    let first = stored(apply_as("a", &empty(), &config(Some(3), "1"), false).unwrap());
    assert_eq!(first["spec"]["replicas"], 3);
    assert!(owned(&first, "a").contains(&REPLICAS.to_owned()));
    let second = apply_as("a", &first, &config(None, "1"), false).unwrap();
    assert_eq!(second["spec"]["replicas"], Value::Null);
    assert!(!owned(&second, "a").contains(&REPLICAS.to_owned()));
}

#[test]
fn what_another_manages_too_stays() {
    let first = stored(apply_as("a", &empty(), &config(Some(3), "1"), false).unwrap());
    let both = apply_as("b", &first, &json!({"spec": {"replicas": 3}}), false).unwrap();
    assert_eq!(owned(&both, "b"), [REPLICAS]);
    let left = apply_as("a", &both, &config(None, "1"), false).unwrap();
    assert_eq!((left["spec"]["replicas"].clone(), owned(&left, "b")), (json!(3), vec![REPLICAS.to_owned()]));
}

#[test]
fn a_conflict_names_managers_and_fields_and_force_takes_them() {
    let first = stored(apply_as("a", &empty(), &config(Some(3), "1"), false).unwrap());
    let first = update_as("scaler", &first, |new| new["spec"]["replicas"] = 5.into());
    assert_eq!(owned(&first, "scaler"), [REPLICAS]);
    assert!(!owned(&first, "a").contains(&REPLICAS.to_owned()), "an update takes what it changes");
    let error = apply_as("a", &first, &config(Some(3), "1"), false).unwrap_err();
    let conflict = Conflict { manager: "\"scaler\" using apps/v1".to_owned(), path: REPLICAS.to_owned() };
    assert_eq!(error, ApplyError::Conflicts(vec![conflict]));
    let forced = apply_as("a", &first, &config(Some(3), "1"), true).unwrap();
    assert_eq!((forced["spec"]["replicas"].clone(), owned(&forced, "scaler")), (json!(3), vec![]));
    // To say what is there already is no conflict.
    assert!(apply_as("a", &first, &config(Some(5), "1"), false).is_ok());
}

#[test]
fn an_update_owns_what_it_changes() {
    let mut new = config(Some(1), "1");
    update(&deployments(), &empty(), &mut new, by("kubectl-create", &FieldSet::of(&[&["spec", "template"]])));
    let paths = owned(&new, "kubectl-create");
    assert!(paths.contains(&REPLICAS.to_owned()) && paths.contains(&".metadata.labels".to_owned()), "{paths:?}");
    assert!(!paths.iter().any(|path| path.contains("template") || path.contains("name")), "{paths:?}");
    let same = update_as("other", &stored(new.clone()), |_| {});
    assert_eq!(owned(&same, "other"), Vec::<String>::new());
    // Its own entry grows; the list can be reset, and then nobody keeps account.
    let gone = update_as("other", &stored(new), |new| new["metadata"]["managedFields"] = json!([{}]));
    assert_eq!(gone["metadata"]["managedFields"], Value::Null);
    let still = update_as("other", &gone, |new| new["spec"]["replicas"] = 9.into());
    assert_eq!(still["metadata"]["managedFields"], Value::Null);
    let applied = apply_as("a", &still, &json!({"spec": {"replicas": 9}}), false).unwrap();
    assert!(owned(&applied, BEFORE_FIRST_APPLY).contains(&REPLICAS.to_owned()));
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let client_side = |replicas| {
        let mut object = config(Some(replicas), "1");
        object["metadata"]["annotations"] = json!({LAST_APPLIED: config(Some(3), "1").to_string()});
        update(&deployments(), &empty(), &mut object, by("kubectl-client-side-apply", &FieldSet::default()));
        stored(object)
    };
    let wanted = config(Some(7), "2");
    let applied = apply_as(KUBECTL, &client_side(3), &wanted, false).unwrap();
    assert_eq!(applied["spec"]["replicas"], 7);
    let last: Value = serde_json::from_str(meta::annotation(&applied, LAST_APPLIED).unwrap()).unwrap();
    assert_eq!(last["spec"]["replicas"], 7);
    // Another manager does not, and kubectl does not where somebody changed what was applied.
    assert!(matches!(apply_as("x", &client_side(3), &wanted, false), Err(ApplyError::Conflicts(c)) if c.len() == 2));
    let error = apply_as(KUBECTL, &client_side(4), &wanted, false).unwrap_err();
    assert!(matches!(error, ApplyError::Conflicts(c) if c.len() == 1 && c[0].path == REPLICAS));
}

#[test]
fn old_updaters_are_merged() {
    let mut object = stored(update_as("m0", &empty(), |new| *new = config(Some(0), "1")));
    for i in 1..15 {
        object = update_as(&format!("m{i:02}"), &object, |new| new["metadata"]["labels"][format!("l{i}")] = "x".into());
    }
    let managers = Managers::parse(object["metadata"].get("managedFields")).unwrap();
    assert_eq!(managers.0.len(), 10);
    assert!(owned(&object, "ancient-changes").contains(&".metadata.labels.l3".to_owned()));
}

fn configs() -> impl proptest::strategy::Strategy<Value = Value> {
    let labels = proptest::collection::btree_map("[a-c]", "[x-z]", 1..3);
    let names = proptest::collection::btree_set("[a-d]", 1..4);
    (labels, names, proptest::option::of(0..4_i64)).prop_map(|(labels, names, replicas)| {
        let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": name})).collect();
        let mut config = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": labels},
            "spec": {"template": {"spec": {"containers": containers}}},
        });
        if let Some(replicas) = replicas {
            config["spec"]["replicas"] = replicas.into();
        }
        config
    })
}

proptest! {
    #[test]
    fn to_apply_twice_is_to_apply_once(first in configs(), second in configs(), other in configs()) {
        let mut object = stored(apply_as("a", &empty(), &first, false).unwrap());
        object = apply_as("b", &object, &other, true).unwrap();
        let once = apply_as("a", &object, &second, true).unwrap();
        prop_assert_eq!(&apply_as("a", &once, &second, false).unwrap(), &once);
        // Alone, nothing but the last configuration is left.
        let mut alone = apply_as("a", &stored(apply_as("a", &empty(), &first, false).unwrap()), &second, false).unwrap();
        for key in ["managedFields", "uid"] {
            meta::metadata_mut(&mut alone).remove(key);
        }
        prop_assert_eq!(alone, conformed(second));
    }
}
