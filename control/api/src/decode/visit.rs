//! Leads a parser's events through the facts about a type.
//!
//! `None` stands for null: the field is as if it were not there.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::facts::{Shape, TypeId};

use super::context::{Context, Step};
use super::scalar;
use super::untyped::{Key, Untyped};

/// What is expected next.
#[derive(Clone, Copy)]
pub(super) enum At<'f> {
    /// A whole type.
    Struct(TypeId),
    /// A value of this shape.
    Shape(&'f Shape),
}

/// Decodes one value of a known shape.
pub(super) struct Typed<'c, 'f> {
    pub(super) context: &'c mut Context<'f>,
    pub(super) shape: At<'f>,
}

impl<'de> DeserializeSeed<'de> for Typed<'_, '_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if let At::Shape(Shape::Raw | Shape::FieldsV1) = self.shape {
            return Untyped(self.context).deserialize(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'f> Typed<'_, 'f> {
    fn mismatch<E: Error>(self, found: &str) -> Result<Option<Value>, E> {
        let expected = match self.shape {
            At::Struct(id) => self.context.struct_name(id),
            At::Shape(shape) => self.context.go_type(shape),
        };
        self.context.mismatch(found, &expected);
        Err(E::custom("type mismatch"))
    }

    fn number<E: Error>(self, number: Number) -> Result<Option<Value>, E> {
        let integer = number.as_i64();
        match self.shape {
            At::Shape(Shape::Int64) if integer.is_some() => Ok(Some(number.into())),
            At::Shape(Shape::Int32 | Shape::IntOrString) if integer.is_some_and(|n| i32::try_from(n).is_ok()) => {
                Ok(Some(number.into()))
            }
            At::Shape(Shape::Double) => Ok(Some(number.into())),
            At::Shape(Shape::Quantity) => self.text(&number.to_string()),
            At::Shape(Shape::Duration) if integer.is_some() => self.mismatch("number"),
            At::Shape(Shape::Int32 | Shape::Int64 | Shape::IntOrString) => self.mismatch(&format!("number {number}")),
            _ => self.mismatch("number"),
        }
    }

    fn text<E: Error>(self, text: &str) -> Result<Option<Value>, E> {
        let checked = match self.shape {
            At::Shape(Shape::String | Shape::IntOrString) => Ok(Some(text.to_owned())),
            At::Shape(Shape::Quantity) => scalar::quantity(text).map(Some),
            At::Shape(Shape::Time) => scalar::time(text),
            At::Shape(Shape::MicroTime) => scalar::micro_time(text),
            At::Shape(Shape::Duration) => scalar::duration(text).map(Some),
            At::Shape(Shape::Bytes) => scalar::bytes(text).map(Some),
            _ => return self.mismatch("string"),
        };
        checked.map(|text| text.map(Value::String)).map_err(|problem| {
            self.context.problem(problem);
            E::custom("malformed text")
        })
    }

    fn list<'de, A: SeqAccess<'de>>(self, item: &'f Shape, mut items: A) -> Result<Option<Value>, A::Error> {
        let mut list = Vec::with_capacity(items.size_hint().unwrap_or(4).min(64));
        loop {
            self.context.path.push(Step::Index(list.len()));
            let next = items.next_element_seed(Typed { context: self.context, shape: At::Shape(item) })?;
            self.context.path.pop();
            match next {
                // A null item is the zero value of its type.
                Some(value) => list.push(value.unwrap_or_else(|| zero(self.context, item))),
                None => return Ok(Some(Value::Array(list))),
            }
        }
    }

    fn entries<'de, A: MapAccess<'de>>(self, item: &'f Shape, mut entries: A) -> Result<Option<Value>, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key)? {
            if map.contains_key(&key) {
                self.context.duplicate(&key);
            }
            self.context.path.push(Step::Key(key));
            let value = entries.next_value_seed(Typed { context: self.context, shape: At::Shape(item) })?;
            let Some(Step::Key(key)) = self.context.path.pop() else { unreachable!("pushed above") };
            map.insert(key, value.unwrap_or_else(|| zero(self.context, item)));
        }
        Ok(Some(Value::Object(map)))
    }

    fn fields<'de, A: MapAccess<'de>>(self, id: TypeId, mut entries: A) -> Result<Option<Value>, A::Error> {
        let facts = self.context.facts;
        let ty = facts.get(id);
        let outer = self.context.owner;
        let mut map = Map::new();
        // No type has more than 128 fields; a later one would only lose the finding of duplicates.
        let mut seen = 0u128;
        while let Some(key) = entries.next_key_seed(Key)? {
            let Some(position) = ty.position(&key) else {
                self.context.unknown(&key);
                entries.next_value::<serde::de::IgnoredAny>()?;
                continue;
            };
            let field = &ty.fields[position];
            let bit = 1u128.checked_shl(u32::try_from(position).unwrap_or(u32::MAX)).unwrap_or_default();
            if seen & bit != 0 {
                self.context.duplicate(&key);
                map.remove(&key);
            }
            seen |= bit;
            self.context.owner = Some(id);
            self.context.path.push(Step::Field(&field.name));
            let value = entries.next_value_seed(Typed { context: self.context, shape: At::Shape(&field.shape) })?;
            self.context.path.pop();
            if let Some(value) = value
                && !field.is_omitted(&value)
            {
                map.insert(key, value);
            }
        }
        self.context.owner = outer;
        ty.complete(facts, &mut map);
        Ok(Some(Value::Object(map)))
    }
}

fn zero(context: &Context<'_>, shape: &Shape) -> Value {
    match shape {
        Shape::Bool => false.into(),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => 0.into(),
        Shape::Double => 0.0.into(),
        Shape::Quantity => "0".into(),
        Shape::Struct(id) => {
            let mut map = Map::new();
            context.facts.get(*id).complete(context.facts, &mut map);
            Value::Object(map)
        }
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Map(_) | Shape::Raw | Shape::FieldsV1 => Value::Object(Map::new()),
        Shape::Time | Shape::MicroTime => Value::Null,
        Shape::Duration => "0s".into(),
        Shape::String | Shape::Bytes => "".into(),
    }
}

impl<'de> Visitor<'de> for Typed<'_, '_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a Kubernetes object")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        match self.shape {
            At::Shape(Shape::Bool) => Ok(Some(value.into())),
            _ => self.mismatch("bool"),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.number(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.number(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        match Number::from_f64(value) {
            Some(number) => self.number(number),
            None => self.mismatch("number"),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        self.text(text)
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        match self.shape {
            At::Shape(Shape::String | Shape::IntOrString) => Ok(Some(Value::String(text))),
            _ => self.text(&text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        match self.shape {
            At::Shape(Shape::List(item)) => self.list(item, items),
            _ => self.mismatch("array"),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        match self.shape {
            At::Struct(id) => self.fields(id, entries),
            At::Shape(Shape::Struct(id)) => self.fields(*id, entries),
            At::Shape(Shape::Map(item)) => self.entries(item, entries),
            _ => self.mismatch("object"),
        }
    }
}
