//! Strategic merge patch: a merge patch that knows the type, so that lists are merged by key.
//!
//! Directives: `$patch: replace | delete` in an object, `$retainKeys` beside fields, `$setElementOrder/LIST` and
//! `$deleteFromPrimitiveList/LIST` beside lists. Fields that the type does not know are merged as by a merge patch; the
//! check of the result then names or drops them.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::order::{arrange, identity};
use super::rejected;
use crate::facts::{Facts, Field, Schema, Shape, Type};
use crate::status::Status;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList/";

/// What `current` becomes by `patch`.
pub fn strategic_merge(schema: &Schema, current: &Value, patch: &Value) -> Result<Value, Status> {
    let Value::Object(patch) = patch else {
        return Err(Status::bad_request("invalid JSON document"));
    };
    let Value::Object(current) = current else {
        return Err(Status::internal("cannot patch what is not an object"));
    };
    let merge = Merge { facts: schema.facts() };
    merge.object(current.clone(), patch.clone(), Known::Type(schema.root_type())).map(Value::Object)
}

/// What is known about the fields of an object.
#[derive(Clone, Copy)]
enum Known<'f> {
    Type(&'f Type),
    MapOf(&'f Shape),
    Nothing,
}

impl<'f> Known<'f> {
    fn field(self, name: &str) -> Option<&'f Field> {
        match self {
            Self::Type(ty) => ty.field(name),
            Self::MapOf(_) | Self::Nothing => None,
        }
    }

    fn shape(self, name: &str) -> Option<&'f Shape> {
        match self {
            Self::Type(ty) => ty.field(name).map(|field| &field.shape),
            Self::MapOf(shape) => Some(shape),
            Self::Nothing => None,
        }
    }
}

struct Merge<'f> {
    facts: &'f Facts,
}

impl<'f> Merge<'f> {
    fn known(&self, shape: Option<&'f Shape>) -> Known<'f> {
        match shape {
            Some(Shape::Struct(id)) => Known::Type(self.facts.get(*id)),
            Some(Shape::Map(item)) => Known::MapOf(item),
            _ => Known::Nothing,
        }
    }

    fn object(
        &self,
        mut current: Map<String, Value>,
        mut patch: Map<String, Value>,
        known: Known<'f>,
    ) -> Result<Map<String, Value>, Status> {
        if let Some(directive) = patch.remove(PATCH) {
            return match directive.as_str() {
                Some("replace") => Ok(patch),
                Some("delete") => Ok(Map::new()),
                _ => Err(bad_directive(&directive)),
            };
        }
        retain_keys(&mut current, &mut patch)?;
        let directives = Directives::take(&mut patch)?;

        for (key, value) in patch {
            let order = directives.order.get(&key).map(Vec::as_slice);
            let merged = match (current.remove(&key), value) {
                (_, Value::Null) => continue,
                (Some(Value::Object(old)), Value::Object(new)) => {
                    let replaced = known.field(&key).is_some_and(|f| f.patch_strategy.as_deref() == Some("replace"));
                    if replaced {
                        Value::Object(new)
                    } else {
                        Value::Object(self.object(old, new, self.known(known.shape(&key)))?)
                    }
                }
                (old, Value::Array(new)) => {
                    let old = match old {
                        Some(Value::Array(old)) => old,
                        _ => Vec::new(),
                    };
                    Value::Array(self.list(old, new, order, known.field(&key))?)
                }
                (_, value) => match stripped(value) {
                    Some(value) => value,
                    None => continue,
                },
            };
            current.insert(key, merged);
        }
        directives.finish(&mut current, known);
        Ok(current)
    }

    fn list(
        &self,
        old: Vec<Value>,
        new: Vec<Value>,
        order: Option<&[Value]>,
        field: Option<&'f Field>,
    ) -> Result<Vec<Value>, Status> {
        let Some(field) = field.filter(|field| field.strategy().merge) else {
            return Ok(new.into_iter().filter_map(stripped).collect());
        };
        match field.merge_key.as_deref() {
            Some(merge_key) => self.list_by_key(old, new, order, field, merge_key),
            None => {
                check_order(&new, order, None)?;
                let wanted = order.unwrap_or(&new).to_vec();
                let mut seen = HashSet::new();
                let merged = old.iter().cloned().chain(new).filter(|item| seen.insert(item.to_string())).collect();
                Ok(arrange(merged, &wanted, &old, None))
            }
        }
    }

    fn list_by_key(
        &self,
        old: Vec<Value>,
        new: Vec<Value>,
        order: Option<&[Value]>,
        field: &'f Field,
        merge_key: &str,
    ) -> Result<Vec<Value>, Status> {
        let shape = match &field.shape {
            Shape::List(item) => Some(item.as_ref()),
            _ => None,
        };
        let (mut items, mut deleted, mut replace) = (Vec::with_capacity(new.len()), HashSet::new(), false);
        for item in new {
            let Value::Object(mut item) = item else {
                return Err(rejected(format_args!(
                    "expected an object with the merge key {merge_key} in {}",
                    field.name
                )));
            };
            let directive = item.remove(PATCH);
            let directive = directive.as_ref().map(|d| d.as_str().ok_or_else(|| bad_directive(d))).transpose()?;
            let item = Value::Object(item);
            let keyed = item.get(merge_key).is_some();
            match directive {
                Some("replace") => replace = true,
                _ if !keyed => {
                    return Err(rejected(format_args!("map: {item} does not contain declared merge key: {merge_key}")));
                }
                Some("delete") => {
                    deleted.insert(identity(&item, Some(merge_key)));
                }
                None => items.push(item),
                Some(other) => return Err(bad_directive(&other.into())),
            }
        }
        check_order(&items, order, Some(merge_key))?;
        let wanted = order.unwrap_or(&items).to_vec();
        if replace {
            return Ok(arrange(items.into_iter().filter_map(stripped).collect(), &wanted, &[], Some(merge_key)));
        }
        let live: Vec<Value> = old.iter().map(|item| key_only(item, merge_key)).collect();
        let mut merged: Vec<Value> =
            old.into_iter().filter(|item| !deleted.contains(&identity(item, Some(merge_key)))).collect();
        let mut places: HashMap<String, usize> = HashMap::with_capacity(merged.len());
        for (i, item) in merged.iter().enumerate() {
            places.entry(identity(item, Some(merge_key))).or_insert(i);
        }
        for item in items {
            match (places.get(&identity(&item, Some(merge_key))), item) {
                (Some(at), Value::Object(item)) => {
                    let Value::Object(old) = std::mem::take(&mut merged[*at]) else {
                        return Err(Status::internal("a list that is merged by key holds something else than objects"));
                    };
                    merged[*at] = Value::Object(self.object(old, item, self.known(shape))?);
                }
                (_, item) => {
                    if let Some(item) = stripped(item) {
                        places.insert(identity(&item, Some(merge_key)), merged.len());
                        merged.push(item);
                    }
                }
            }
        }
        Ok(arrange(merged, &wanted, &live, Some(merge_key)))
    }
}

/// The directives that stand beside lists.
#[derive(Default)]
struct Directives {
    order: HashMap<String, Vec<Value>>,
    delete: HashMap<String, Vec<Value>>,
    /// Lists that the patch orders without naming them otherwise.
    order_only: Vec<String>,
}

impl Directives {
    fn take(patch: &mut Map<String, Value>) -> Result<Self, Status> {
        let mut directives = Self::default();
        let keys: Vec<String> = patch.keys().filter(|key| key.starts_with('$')).cloned().collect();
        for key in keys {
            let into = if let Some(list) = key.strip_prefix(SET_ELEMENT_ORDER) {
                Some((&mut directives.order, list, "setElementOrder list"))
            } else {
                key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST)
                    .map(|list| (&mut directives.delete, list, "primitive list"))
            };
            let Some((map, list, what)) = into else {
                continue;
            };
            match patch.remove(&key) {
                Some(Value::Array(items)) => {
                    map.insert(list.to_owned(), items);
                }
                _ => {
                    return Err(Status::bad_request(format!("invalid patch format of {what}")));
                }
            }
        }
        directives.order_only = directives.order.keys().filter(|list| !patch.contains_key(*list)).cloned().collect();
        Ok(directives)
    }

    fn finish(self, current: &mut Map<String, Value>, known: Known<'_>) {
        for list in self.order_only {
            let (Some(Value::Array(items)), Some(wanted)) = (current.get_mut(&list), self.order.get(&list)) else {
                continue;
            };
            let merge_key = known.field(&list).and_then(|field| field.merge_key.as_deref());
            let live: Vec<Value> = match merge_key {
                Some(key) => items.iter().map(|item| key_only(item, key)).collect(),
                None => items.clone(),
            };
            *items = arrange(std::mem::take(items), wanted, &live, merge_key);
        }
        for (list, gone) in self.delete {
            if let Some(Value::Array(items)) = current.get_mut(&list) {
                let gone: HashSet<String> = gone.iter().map(Value::to_string).collect();
                items.retain(|item| !gone.contains(&item.to_string()));
            }
        }
    }
}

/// An item reduced to its merge key: all that the order needs.
fn key_only(item: &Value, merge_key: &str) -> Value {
    let key = item.get(merge_key).cloned().unwrap_or_default();
    Value::Object(Map::from_iter([(merge_key.to_owned(), key)]))
}

/// Drops all fields that `$retainKeys` does not name; the patch itself may not set others.
fn retain_keys(current: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), Status> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let malformed = || Status::bad_request("invalid patch format of retainKeys");
    let keys: HashSet<&str> = keys.as_array().ok_or_else(malformed)?.iter().filter_map(Value::as_str).collect();
    let sets_others = patch.iter().any(|(key, value)| {
        let directive = key.starts_with(SET_ELEMENT_ORDER) || key.starts_with(DELETE_FROM_PRIMITIVE_LIST);
        !value.is_null() && !directive && !keys.contains(key.as_str())
    });
    if sets_others {
        return Err(malformed());
    }
    current.retain(|key, _| keys.contains(key.as_str()));
    Ok(())
}

/// The items of the patch must stand in the order that `$setElementOrder` gives.
fn check_order(items: &[Value], order: Option<&[Value]>, merge_key: Option<&str>) -> Result<(), Status> {
    let Some(order) = order.filter(|order| !order.is_empty()) else {
        return Ok(());
    };
    let mut wanted = order.iter().map(|item| identity(item, merge_key));
    for item in items {
        let item = identity(item, merge_key);
        if !wanted.any(|wanted| wanted == item) {
            return Err(rejected(format_args!("The order in patch list doesn't match $setElementOrder list: {item}")));
        }
    }
    Ok(())
}

fn bad_directive(directive: &Value) -> Status {
    rejected(format_args!("unknown patch type: {directive}"))
}

/// A new value without directives and nulls; none if it only says what to delete.
fn stripped(value: Value) -> Option<Value> {
    match value {
        Value::Object(mut map) => {
            // Nothing is there to replace or delete.
            match map.remove(PATCH).as_ref().map(Value::as_str) {
                None | Some(Some("replace")) => {}
                Some(_) => return None,
            }
            let kept = map.into_iter().filter(|(key, value)| {
                let directive = key == RETAIN_KEYS
                    || key.starts_with(SET_ELEMENT_ORDER)
                    || key.starts_with(DELETE_FROM_PRIMITIVE_LIST);
                !value.is_null() && !directive
            });
            Some(Value::Object(kept.filter_map(|(key, value)| Some((key, stripped(value)?))).collect()))
        }
        Value::Array(items) => Some(items.into_iter().filter_map(stripped).collect()),
        value => Some(value),
    }
}
