//! How a value is owned: as a whole, field by field, or item by item.

use serde_json::{Map, Value};

use crate::facts::{Facts, Field, ListType, Schema, Shape, Type};

/// How values of a place are merged and owned (upstream's schema atoms).
#[derive(Clone, Copy)]
pub(super) enum Place<'f> {
    /// As a whole.
    Leaf,
    /// Field by field.
    Struct(&'f Type),
    /// Key by key; the values are of this shape.
    Map(&'f Shape),
    /// Item by item, told apart by the field's keys.
    Keyed(&'f Field, &'f Shape),
    /// Item by item, told apart by their values.
    Set,
    /// As the value happens to be: objects key by key.
    Any,
}

impl<'f> Place<'f> {
    pub(super) fn root(schema: &'f Schema) -> Self {
        Self::Struct(schema.root_type())
    }

    fn of(facts: &'f Facts, shape: &'f Shape, field: Option<&'f Field>) -> Self {
        let (atomic, granular) = field.map_or((false, false), |field| (field.atomic, field.granular));
        match shape {
            Shape::Struct(id) => {
                let ty = facts.get(*id);
                if atomic || (ty.atomic && !granular) { Self::Leaf } else { Self::Struct(ty) }
            }
            Shape::Map(_) if atomic => Self::Leaf,
            Shape::Map(item) => Self::Map(item),
            Shape::List(item) => match field.map(|field| (field, field.effective_list_type())) {
                Some((field, ListType::Map)) => Self::Keyed(field, item),
                Some((_, ListType::Set)) => Self::Set,
                _ => Self::Leaf,
            },
            Shape::Raw => Self::Any,
            _ => Self::Leaf,
        }
    }

    /// The place of a field or key.
    pub(super) fn child(self, facts: &'f Facts, name: &str) -> Self {
        match self {
            Self::Struct(ty) => ty.field(name).map_or(Self::Leaf, |field| Self::of(facts, &field.shape, Some(field))),
            Self::Map(item) => Self::of(facts, item, None),
            Self::Any => Self::Any,
            _ => Self::Leaf,
        }
    }

    /// The place of a list's items.
    pub(super) fn item(self, facts: &'f Facts) -> Self {
        match self {
            Self::Keyed(_, item) => Self::of(facts, item, None),
            _ => Self::Leaf,
        }
    }

    /// Whether it holds a list that is owned item by item.
    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Keyed(..) | Self::Set)
    }

    /// Whether `name` is a field of a struct, not a key of a map.
    pub(super) fn names(self, name: &str) -> bool {
        matches!(self, Self::Struct(ty) if ty.field(name).is_some())
    }

    /// Whether a missing field counts as null: Go writes it even if nothing is in it.
    pub(super) fn implies(self, name: &str) -> bool {
        matches!(self, Self::Struct(ty) if ty.field(name).is_some_and(is_always_written))
    }

    /// The fields that Go always writes.
    pub(super) fn implied(self) -> impl Iterator<Item = &'f str> {
        let fields = match self {
            Self::Struct(ty) => ty.fields.as_slice(),
            _ => &[],
        };
        fields.iter().filter(|field| is_always_written(field)).map(|field| field.name.as_ref())
    }

    /// The map or list that `value` is to this place, if it is owned in parts.
    pub(super) fn parts<'v>(self, value: Option<&'v Value>) -> Option<Parts<'v>> {
        match (self, value) {
            (Self::Struct(_) | Self::Map(_) | Self::Any, Some(Value::Object(map))) => Some(Parts::Map(map)),
            (Self::Keyed(..) | Self::Set, Some(Value::Array(list))) => Some(Parts::List(list)),
            _ => None,
        }
    }

    /// The step to an item of this list.
    pub(super) fn step(self, facts: &Facts, item: &Value) -> String {
        let Self::Keyed(field, shape) = self else {
            return format!("v:{item}");
        };
        let ty = match shape {
            Shape::Struct(id) => Some(facts.get(*id)),
            _ => None,
        };
        let single = field.merge_key.as_slice();
        let names = if field.list_map_keys.is_empty() { single } else { &field.list_map_keys };
        let mut keys = Map::new();
        for name in names {
            let given = item.get(name.as_ref()).filter(|value| !value.is_null()).cloned();
            let default = || ty?.field(name)?.default.clone();
            if let Some(value) = given.or_else(default) {
                keys.insert(name.to_string(), value);
            }
        }
        format!("k:{}", Value::Object(keys))
    }
}

/// `omitempty` does not leave out a Go struct, such as a time held by value.
fn is_always_written(field: &Field) -> bool {
    let by_value = !field.pointer && matches!(field.shape, Shape::Time | Shape::MicroTime);
    !field.omitzero && (!field.omitempty || by_value)
}

/// A value that is owned in parts.
pub(super) enum Parts<'v> {
    Map(&'v Map<String, Value>),
    List(&'v [Value]),
}

/// Whether a map or list has nothing in it: null, or empty.
pub(super) fn is_bare(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}
