//! A configuration laid over an object, and fields taken out of one
//! (upstream: structured-merge-diff, `typed/merge.go` and `typed/remove.go`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::set::{FieldSet, shown};
use super::shape::{Parts, Place, is_bare};
use crate::facts::{Facts, Schema};

/// `live` with all that `config` says. An error names the path of a list item that is there twice.
pub(super) fn merge(schema: &Schema, live: &Value, config: &Value) -> Result<Value, String> {
    let merged = Merging(schema.facts()).merge(Place::root(schema), Some(live), Some(config));
    merged.map(Option::unwrap_or_default)
}

struct Merging<'f>(&'f Facts);

impl<'f> Merging<'f> {
    fn merge(&self, place: Place<'f>, live: Option<&Value>, config: Option<&Value>) -> Result<Option<Value>, String> {
        let parts = place.parts(live).is_some() || place.parts(config).is_some();
        if !parts || (is_bare(live) && is_bare(config)) {
            return Ok(config.or(live).cloned());
        }
        if place.is_list() {
            let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
            return self.lists(place, &list(live), &list(config));
        }
        let (live, config) = (live.and_then(Value::as_object), config.and_then(Value::as_object));
        let keys: BTreeSet<&String> = live.into_iter().chain(config).flat_map(Map::keys).collect();
        let mut merged = Map::new();
        for key in keys {
            let of = |map: Option<&Map<String, Value>>| map.and_then(|map| map.get(key)).cloned();
            let (live, config) = (of(live), of(config));
            let value = self
                .merge(place.child(self.0, key), live.as_ref(), config.as_ref())
                .map_err(|why| format!(".{key}{why}"))?;
            if let Some(value) = value {
                merged.insert(key.clone(), value);
            }
        }
        Ok((!merged.is_empty()).then_some(Value::Object(merged)))
    }

    /// The items of both: those of the configuration in its order, the others where they stood between them.
    fn lists(&self, place: Place<'f>, live: &[Value], config: &[Value]) -> Result<Option<Value>, String> {
        let step = |item: &Value| place.step(self.0, item);
        let mut wanted: BTreeMap<String, &Value> = BTreeMap::new();
        for item in config {
            if wanted.insert(step(item), item).is_some() {
                return Err(format!(": duplicate entries for key {}", shown(&step(item))));
            }
        }
        // An item that is there twice is not merged with the configuration's, it is replaced.
        let mut present: BTreeMap<String, Option<&Value>> = BTreeMap::new();
        for item in live {
            present.entry(step(item)).and_modify(|found| *found = None).or_insert(Some(item));
        }
        let item = place.item(self.0);
        let both = |at: &str| {
            let (live, config) = (present.get(at).copied().flatten(), wanted.get(at).copied());
            self.merge(item, live, config).map_err(|why| format!("{}{why}", shown(at)))
        };
        let mut shared: VecDeque<String> = config.iter().map(step).filter(|at| present.contains_key(at)).collect();
        let mut left: VecDeque<(String, &Value)> = live.iter().map(|item| (step(item), item)).collect();
        let mut right: VecDeque<String> = config.iter().map(step).collect();
        let mut done = BTreeSet::new();
        let mut merged = Vec::new();
        loop {
            if let (Some((at, _)), Some(next)) = (left.front(), right.front()) {
                if at == next {
                    merged.extend(both(at)?);
                    done.insert(at.clone());
                    shared.pop_front();
                    left.pop_front();
                    right.pop_front();
                    continue;
                }
                if wanted.contains_key(at) && shared.front().is_some_and(|next| next != at) {
                    // It is in both, and its turn comes later.
                    left.pop_front();
                    continue;
                }
            }
            if let Some((at, value)) = left.front() {
                if !wanted.contains_key(at) {
                    merged.push((*value).clone());
                    left.pop_front();
                    continue;
                }
                if done.contains(at) {
                    left.pop_front();
                }
            }
            match right.pop_front() {
                Some(at) => {
                    merged.extend(both(&at)?);
                    if shared.front() == Some(&at) {
                        shared.pop_front();
                    }
                    done.insert(at);
                }
                None if left.is_empty() => break,
                None => {}
            }
        }
        Ok((!merged.is_empty()).then_some(Value::Array(merged)))
    }
}

/// `object` without what is in `set`. What becomes empty by it becomes null.
pub(super) fn remove(schema: &Schema, object: &Value, set: &FieldSet) -> Value {
    take(schema.facts(), Place::root(schema), object, set)
}

fn take(facts: &Facts, place: Place<'_>, value: &Value, set: &FieldSet) -> Value {
    let Some(parts) = place.parts(Some(value)) else {
        return value.clone();
    };
    let kept = |step: &str, place: Place<'_>, value: &Value| match set.below.get(step) {
        Some(set) if set.here => None,
        Some(set) => Some(take(facts, place, value, set)),
        None => Some(value.clone()),
    };
    match parts {
        Parts::Map(map) => {
            let kept: Map<String, Value> = map
                .iter()
                .filter_map(|(key, value)| {
                    Some((key.clone(), kept(&format!("f:{key}"), place.child(facts, key), value)?))
                })
                .collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        Parts::List(list) => {
            let kept: Vec<Value> =
                list.iter().filter_map(|item| kept(&place.step(facts, item), place.item(facts), item)).collect();
            if kept.is_empty() { Value::Null } else { Value::Array(kept) }
        }
    }
}

/// `set` with every struct's field on the way to something in it: who owns a field owns the struct around it
/// (`EnsureNamedFieldsAreMembers`).
pub(super) fn with_structs(schema: &Schema, set: &FieldSet) -> FieldSet {
    surround(schema.facts(), Place::root(schema), set)
}

fn surround(facts: &Facts, place: Place<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet { here: set.here, ..FieldSet::default() };
    for (step, below) in &set.below {
        let (place, named) = match step.strip_prefix("f:") {
            Some(name) => (place.child(facts, name), place.names(name)),
            None => (place.item(facts), false),
        };
        let mut below = surround(facts, place, below);
        below.here |= named;
        out.attach(step.clone(), below);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(live: &[&str], config: &[&str]) -> Vec<String> {
        let pod = |names: &[&str]| json!({"spec": {"containers": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}});
        let schema = Schema::builtin("v1", "Pod").unwrap();
        let merged = merge(&schema, &pod(live), &pod(config)).unwrap();
        let items = merged["spec"]["containers"].as_array().unwrap();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn lists_keep_both_orders() {
        for (live, config, expected) in [
            (&["a", "b", "c"][..], &["b"][..], &["a", "b", "c"][..]),
            (&["a", "b"], &["c"], &["a", "b", "c"]),
            (&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]),
            (&["a", "b", "c"], &["a", "d", "c"], &["a", "b", "d", "c"]),
            (&[], &["b", "a"], &["b", "a"]),
            (&["a", "x", "b"], &["b", "y", "a"], &["x", "b", "y", "a"]),
        ] {
            assert_eq!(merged(live, config), expected, "{live:?} and {config:?}");
        }
    }

    #[test]
    fn a_configuration_says_each_item_once() {
        let schema = Schema::builtin("v1", "Pod").unwrap();
        let config = json!({"spec": {"containers": [{"name": "a"}, {"name": "a"}]}});
        let error = merge(&schema, &json!({}), &config).unwrap_err();
        assert_eq!(error, ".spec.containers: duplicate entries for key [name=\"a\"]");
    }

    #[test]
    fn what_is_taken_out_leaves_null() {
        let schema = Schema::builtin("v1", "Pod").unwrap();
        let pod = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"hostname": "h", "containers": [{"name": "a"}]}});
        let labels = FieldSet::of(&[&["metadata", "labels", "a"], &["spec", "hostname"]]);
        let left = remove(&schema, &pod, &labels);
        assert_eq!(left, json!({"metadata": {"labels": null}, "spec": {"containers": [{"name": "a"}]}}));
    }
}
