//! Sets of fields, as `metadata.managedFields` writes them (FieldsV1).
//!
//! A set is a tree. A step of a path is written as FieldsV1 writes it, in canonical form: `f:NAME` a field or a map's key,
//! `k:{"name":"c"}` the item of a list with these keys, `v:"x"` the item of a set. Each node says whether its own path is in
//! the set.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Paths into an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path to here is in the set.
    pub(super) here: bool,
    /// What lies below, by step. No empty set is kept.
    pub(super) below: BTreeMap<String, FieldSet>,
}

impl FieldSet {
    /// The set of these paths of field names.
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let mut at = &mut set;
            for name in *path {
                at = at.below.entry(format!("f:{name}")).or_default();
            }
            at.here = true;
        }
        set
    }

    /// Reads FieldsV1. An error says which step cannot be read.
    pub fn parse(fields: &Value) -> Result<Self, String> {
        let map = fields.as_object().ok_or("fields must be an object")?;
        let mut set = Self::default();
        for (step, below) in map {
            if step == "." {
                set.here = true;
                continue;
            }
            let step = canonical(step)?;
            let mut child = Self::parse(below)?;
            // A path that ends here needs no dot.
            child.here |= child.below.is_empty();
            set.attach(step, child);
        }
        Ok(set)
    }

    /// Writes FieldsV1.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.below.is_empty() {
            map.insert(".".to_owned(), Map::new().into());
        }
        for (step, below) in &self.below {
            map.insert(step.clone(), below.to_value());
        }
        map.into()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// Puts a set below a step; one that is empty leaves no trace.
    pub(super) fn attach(&mut self, step: String, set: Self) {
        if !set.is_empty() {
            self.below.entry(step).or_default().add(set);
        }
    }

    fn add(&mut self, other: Self) {
        self.here |= other.here;
        for (step, set) in other.below {
            self.below.entry(step).or_default().add(set);
        }
    }

    /// What is in either.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        self.add(other);
        self
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.keep(Some(other), &|here, there| here && !there.is_some_and(|there| there.here))
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.keep(Some(other), &|here, there| here && there.is_some_and(|there| there.here))
    }

    fn keep(&self, other: Option<&Self>, rule: &impl Fn(bool, Option<&Self>) -> bool) -> Self {
        let mut kept = Self { here: rule(self.here, other), below: BTreeMap::new() };
        for (step, set) in &self.below {
            let below = set.keep(other.and_then(|other| other.below.get(step)), rule);
            if !below.is_empty() {
                kept.below.insert(step.clone(), below);
            }
        }
        kept
    }

    /// What is neither in the other set nor below something in it.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut kept = Self { here: self.here, below: BTreeMap::new() };
        for (step, set) in &self.below {
            let below = match other.below.get(step) {
                Some(other) if other.here => continue,
                Some(other) => set.without(other),
                None => set.clone(),
            };
            if !below.is_empty() {
                kept.below.insert(step.clone(), below);
            }
        }
        kept
    }

    /// The paths as upstream prints them: `.spec.containers[name="c"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        if self.here {
            paths.push(prefix.to_owned());
        }
        for (step, below) in &self.below {
            below.collect(&format!("{prefix}{}", shown(step)), paths);
        }
    }
}

/// A step in the form that equal steps share.
fn canonical(step: &str) -> Result<String, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{step:?} is no step of a field path: {why}");
    match step.split_once(':') {
        Some(("f", _)) => Ok(step.to_owned()),
        Some((kind @ ("k" | "v" | "i"), json)) => {
            let value: Value = serde_json::from_str(json).map_err(|e| wrong(&e))?;
            let fits = match kind {
                "k" => value.is_object(),
                "i" => value.is_i64(),
                _ => true,
            };
            if fits { Ok(format!("{kind}:{value}")) } else { Err(wrong(&"wrong type")) }
        }
        _ => Err(wrong(&"it must begin with f:, k:, v: or i:")),
    }
}

/// A step as upstream prints it.
pub(super) fn shown(step: &str) -> String {
    let (kind, rest) = step.split_once(':').unwrap_or(("f", step));
    match (kind, serde_json::from_str::<Value>(rest)) {
        ("k", Ok(Value::Object(keys))) => {
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        ("v", Ok(value)) => format!("[={value}]"),
        ("i", Ok(value)) => format!("[{value}]"),
        _ => format!(".{rest}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_v1_is_read_and_written() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}, "f:x": {"v:1": {}, "i:3": {}}},
        });
        let set = FieldSet::parse(&fields).unwrap();
        assert_eq!(set.to_value(), fields);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.containers[name=\"c\"]",
                ".spec.containers[name=\"c\"].image",
                ".spec.x[3]",
                ".spec.x[=1]",
            ]
        );
        for bad in [json!({"x:a": {}}), json!({"k:[]": {}}), json!({"i:\"a\"": {}}), json!({"f:a": []}), json!([])] {
            assert!(FieldSet::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_takes_all_below() {
        let set = FieldSet::of(&[&["spec", "a", "b"], &["spec", "c"], &["status"]]);
        assert_eq!(set.without(&FieldSet::of(&[&["spec", "a"]])), FieldSet::of(&[&["spec", "c"], &["status"]]));
        assert_eq!(set.difference(&FieldSet::of(&[&["spec", "a"]])), set);
    }

    fn sets() -> impl Strategy<Value = FieldSet> {
        let step = prop_oneof![Just("a"), Just("b"), Just("c")];
        proptest::collection::vec(proptest::collection::vec(step, 1..4), 0..6).prop_map(|paths| {
            let paths: Vec<&[&str]> = paths.iter().map(Vec::as_slice).collect();
            FieldSet::of(&paths)
        })
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in sets(), b in sets()) {
            prop_assert_eq!(a.clone().union(b.clone()), b.clone().union(a.clone()));
            prop_assert_eq!(a.difference(&b).union(a.intersection(&b)), a.clone());
            prop_assert!(a.difference(&b).intersection(&b).is_empty());
            prop_assert_eq!(a.clone().union(b.clone()).difference(&b), a.difference(&b));
            prop_assert_eq!(FieldSet::parse(&a.to_value()), Ok(a));
        }
    }
}
