//! What an object consists of, and how two differ, as sets of fields
//! (upstream: structured-merge-diff, `typed/tofieldset.go` and `typed/compare.go`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::FieldSet;
use super::shape::{Parts, Place, is_bare};
use crate::facts::{Facts, Schema};

/// How one object became another.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    pub(super) added: FieldSet,
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
}

impl Changes {
    fn attach(&mut self, step: impl Fn() -> String, below: Self) {
        for (set, below) in
            [(&mut self.added, below.added), (&mut self.removed, below.removed), (&mut self.modified, below.modified)]
        {
            if !below.is_empty() {
                set.attach(step(), below);
            }
        }
    }

    /// The same without what an endpoint does not let its clients change.
    pub(super) fn without(&self, reset: &FieldSet) -> Self {
        Self {
            added: self.added.without(reset),
            removed: self.removed.without(reset),
            modified: self.modified.without(reset),
        }
    }

    /// What a writer of the new object has set.
    pub(super) fn set(&self) -> FieldSet {
        self.modified.clone().union(self.added.clone())
    }
}

/// The fields that an object or a configuration names.
pub(super) fn fields(schema: &Schema, object: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    collect(schema.facts(), Place::root(schema), object, &mut set);
    set
}

fn collect(facts: &Facts, place: Place<'_>, value: &Value, set: &mut FieldSet) {
    match (place, place.parts(Some(value))) {
        (_, Some(Parts::Map(map))) => {
            for (key, value) in map {
                let mut below = FieldSet::default();
                collect(facts, place.child(facts, key), value, &mut below);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                below.here |= empty || !place.names(key);
                set.attach(format!("f:{key}"), below);
            }
        }
        (_, Some(Parts::List(list))) => {
            for (step, items) in by_step(facts, place, Some(list)) {
                let mut below = FieldSet { here: true, ..FieldSet::default() };
                // Items that are there twice are owned together, as one.
                if let [item] = items.as_slice() {
                    collect(facts, place.item(facts), item, &mut below);
                }
                set.attach(step, below);
            }
        }
        (Place::Leaf | Place::Any, None) => set.here = true,
        (_, None) => {}
    }
}

fn by_step<'v>(facts: &Facts, place: Place<'_>, list: Option<&'v [Value]>) -> BTreeMap<String, Vec<&'v Value>> {
    let mut items: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for item in list.unwrap_or_default() {
        items.entry(place.step(facts, item)).or_default().push(item);
    }
    items
}

/// How `old` became `new`.
pub(super) fn compare(schema: &Schema, old: &Value, new: &Value) -> Changes {
    differ(schema.facts(), Place::root(schema), Some(old), Some(new))
}

fn differ(facts: &Facts, place: Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Changes {
    let mut changes = Changes::default();
    // Most of an object is as it was.
    if old.is_some() && old == new {
        return changes;
    }
    let (before, after) = (place.parts(old), place.parts(new));
    if (before.is_none() && after.is_none()) || (is_bare(old) && is_bare(new)) {
        match (old, new) {
            (None, _) => changes.added.here = true,
            (_, None) => changes.removed.here = true,
            (Some(old), Some(new)) => changes.modified.here = old != new,
        }
        return changes;
    }
    if place.is_list() {
        list_changes(facts, place, (list(old), list(new)), &mut changes);
    } else {
        map_changes(facts, place, (map(old), map(new)), &mut changes);
    }
    match (old, new) {
        (None, _) => changes.added.here = true,
        (_, None) => changes.removed.here = true,
        _ => {}
    }
    changes
}

type Entries = Map<String, Value>;

fn map(value: Option<&Value>) -> Option<&Entries> {
    value.and_then(Value::as_object)
}

fn list(value: Option<&Value>) -> Option<&[Value]> {
    value.and_then(Value::as_array).map(Vec::as_slice)
}

fn map_changes(
    facts: &Facts,
    place: Place<'_>,
    (old, new): (Option<&Entries>, Option<&Entries>),
    changes: &mut Changes,
) {
    let mut keys: BTreeSet<&str> = old.into_iter().chain(new).flat_map(Map::keys).map(String::as_str).collect();
    // What Go always writes is there, if only as null: it comes and goes with the struct.
    if old.is_none() || new.is_none() {
        keys.extend(place.implied());
    }
    for key in keys {
        let implied = place.implies(key).then_some(&Value::Null);
        let before = old.and_then(|map| map.get(key).or(implied));
        let after = new.and_then(|map| map.get(key).or(implied));
        changes.attach(|| format!("f:{key}"), differ(facts, place.child(facts, key), before, after));
    }
}

fn list_changes(
    facts: &Facts,
    place: Place<'_>,
    (old, new): (Option<&[Value]>, Option<&[Value]>),
    changes: &mut Changes,
) {
    let (old, new) = (by_step(facts, place, old), by_step(facts, place, new));
    let steps: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let none = Vec::new();
    for step in steps {
        let (before, after) = (old.get(step).unwrap_or(&none), new.get(step).unwrap_or(&none));
        let one = |before: Option<&&Value>, after: Option<&&Value>| {
            differ(facts, place.item(facts), before.copied(), after.copied())
        };
        let mut below = match (before.len(), after.len()) {
            (0 | 1, 0 | 1) => one(before.first(), after.first()),
            // Items that are there twice are one value.
            (2.., 2..) => Changes::default(),
            (2.., _) if after.is_empty() => Changes::default(),
            (2.., _) => one(None, after.first()),
            (_, _) if before.is_empty() => Changes::default(),
            (_, _) => one(before.first(), None),
        };
        match (before.len() > 1, after.len() > 1) {
            (true, true) => below.modified.here |= before != after,
            (true, false) => below.removed.here = true,
            (false, true) => below.added.here = true,
            (false, false) => {}
        }
        changes.attach(|| step.clone(), below);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods() -> Schema {
        Schema::builtin("v1", "Pod").unwrap()
    }

    #[test]
    fn a_configuration_owns_what_it_names() {
        let config = json!({
            "metadata": {"name": "a", "labels": {"app": "x"}, "finalizers": ["a/b"], "annotations": {}},
            "spec": {
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}],
                "nodeSelector": {"a": "b"}, "securityContext": {},
            },
        });
        assert_eq!(
            fields(&pods(), &config).paths(),
            [
                ".metadata.annotations",
                ".metadata.finalizers[=\"a/b\"]",
                ".metadata.labels.app",
                ".metadata.name",
                ".spec.containers[name=\"c\"]",
                ".spec.containers[name=\"c\"].image",
                ".spec.containers[name=\"c\"].name",
                ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"]",
                ".spec.containers[name=\"c\"].ports[containerPort=80,protocol=\"TCP\"].containerPort",
                // A node selector is owned as a whole.
                ".spec.nodeSelector",
                ".spec.securityContext",
            ]
        );
    }

    #[test]
    fn changes_are_found_item_by_item() {
        let old = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
        let new = json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}});
        let changes = compare(&pods(), &old, &new);
        assert_eq!(changes.modified.paths(), [".spec.containers[name=\"b\"].image"]);
        assert!(changes.added.paths().contains(&".spec.containers[name=\"c\"]".to_owned()));
        assert!(changes.removed.paths().contains(&".spec.containers[name=\"a\"].image".to_owned()));
        assert_eq!(compare(&pods(), &new, &new), Changes::default());
    }

    #[test]
    fn what_go_writes_as_null_comes_with_its_struct() {
        let new = json!({"status": {"conditions": [{"type": "X", "status": "True"}]}});
        let added = compare(&pods(), &pods().empty(), &new).added.paths();
        assert!(added.contains(&".status.conditions[type=\"X\"].lastProbeTime".to_owned()), "{added:?}");
    }

    #[test]
    fn items_that_are_there_twice_are_one() {
        let twice = |v: &str| json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "a", "image": v}]}});
        let once = json!({"spec": {"containers": [{"name": "a", "image": "1"}]}});
        let at = ".spec.containers[name=\"a\"]";
        assert_eq!(compare(&pods(), &twice("1"), &twice("2")).modified.paths(), [at]);
        assert_eq!(compare(&pods(), &twice("1"), &twice("1")), Changes::default());
        assert_eq!(compare(&pods(), &once, &twice("2")).added.paths(), [at]);
        assert_eq!(compare(&pods(), &twice("2"), &once).removed.paths(), [at]);
        assert_eq!(fields(&pods(), &twice("2")).paths(), [at]);
    }
}
