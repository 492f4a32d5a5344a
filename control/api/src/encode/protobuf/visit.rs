//! What serde calls while it walks through an object: each value goes to the end of the buffer.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

use super::{Part, Writer, embedded};
use crate::decode::duration_nanos;
use crate::encode::wire::{self, Wire};
use crate::facts::{Shape, Type};

/// Writes a whole message.
pub(super) struct MessageSeed<'w, 'f> {
    pub(super) writer: &'w mut Writer<'f>,
    pub(super) ty: &'f Type,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a {}", self.ty.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { writer, ty } = self;
        let start = writer.out.len();
        let mut parts = Vec::with_capacity(ty.fields.len().min(16));
        while let Some(position) = map.next_key_seed(FieldName(ty))? {
            match position.and_then(|i| Some((ty.rank(i)?, &ty.fields[i].shape))) {
                Some((rank, shape)) => {
                    map.next_value_seed(FieldSeed { writer: &mut *writer, shape, rank, parts: &mut parts })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        writer.finish(ty, start, &mut parts);
        Ok(())
    }
}

/// Which field a key names.
struct FieldName<'f>(&'f Type);

impl<'de> DeserializeSeed<'de> for FieldName<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldName<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.position(name))
    }
}

/// Writes all values of one field.
struct FieldSeed<'w, 'f, 'p> {
    writer: &'w mut Writer<'f>,
    shape: &'f Shape,
    rank: u16,
    parts: &'p mut Vec<Part>,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shape)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.shape {
            Shape::List(_) => deserializer.deserialize_seq(self),
            Shape::Map(_) => deserializer.deserialize_map(self),
            shape => {
                let start = self.writer.out.len();
                if let Some(wire) = (ValueSeed { writer: &mut *self.writer, shape }).deserialize(deserializer)? {
                    self.parts.push(Part { rank: self.rank, at: start..self.writer.out.len(), wire });
                }
                Ok(())
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Shape::List(item) = self.shape else {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        };
        loop {
            let start = self.writer.out.len();
            let Some(wire) = items.next_element_seed(ValueSeed { writer: &mut *self.writer, shape: item })? else {
                return Ok(());
            };
            // Bytes and lists that are null are empty as items.
            let wire = wire.or_else(|| self.writer.null_item(item)).unwrap_or(Wire::Bytes);
            self.parts.push(Part { rank: self.rank, at: start..self.writer.out.len(), wire });
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Shape::Map(item) = self.shape else {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        };
        let mut entries: Vec<(String, Part)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let start = self.writer.out.len();
            let wire = map.next_value_seed(ValueSeed { writer: &mut *self.writer, shape: item })?;
            if let Some(wire) = wire.or_else(|| self.writer.null_item(item)) {
                self.writer.prefix(start, 2, wire);
            }
            let mut head = self.writer.spare.pop().unwrap_or_default();
            wire::bytes(&mut head, 1, key.as_bytes());
            self.writer.out.splice(start..start, head.iter().copied());
            self.writer.recycle(head);
            let at = start..self.writer.out.len();
            entries.push((key, Part { rank: self.rank, at, wire: Wire::Bytes }));
        }
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.parts.extend(entries.into_iter().map(|(_, part)| part));
        Ok(())
    }
}

/// Writes one value and says in which form; none for null.
struct ValueSeed<'w, 'f> {
    writer: &'w mut Writer<'f>,
    shape: &'f Shape,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_, '_> {
    type Value = Option<Wire>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        match self.shape {
            Shape::FieldsV1 | Shape::Raw => {
                let json = embedded(deserializer)?;
                if json.get() == "null" {
                    return Ok(None);
                }
                wire::bytes(&mut self.writer.out, 1, json.get().as_bytes());
                Ok(Some(Wire::Bytes))
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl ValueSeed<'_, '_> {
    fn time<E: Error>(&mut self, text: &str, fractions: bool) -> Result<(), E> {
        let time: jiff::Timestamp = text.parse().map_err(E::custom)?;
        let nanos = if fractions { time.subsec_nanosecond() / 1000 * 1000 } else { 0 };
        let out = &mut self.writer.out;
        out.push(8);
        wire::varint(out, time.as_second().cast_unsigned());
        out.push(0x10);
        wire::varint(out, i64::from(nanos).cast_unsigned());
        Ok(())
    }

    fn int_or_string(&mut self, number: Option<i64>, text: &str) {
        let out = &mut self.writer.out;
        out.extend_from_slice(&[8, u8::from(number.is_none()), 0x10]);
        wire::varint(out, number.unwrap_or(0).cast_unsigned());
        wire::bytes(out, 3, text.as_bytes());
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_, '_> {
    type Value = Option<Wire>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shape)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        if *self.shape != Shape::Bool {
            return Err(E::invalid_type(Unexpected::Bool(value), &self));
        }
        self.writer.out.push(u8::from(value));
        Ok(Some(Wire::Varint))
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<Self::Value, E> {
        match self.shape {
            Shape::Int32 | Shape::Int64 => {
                wire::varint(&mut self.writer.out, value.cast_unsigned());
                Ok(Some(Wire::Varint))
            }
            Shape::Double => self.visit_f64(value as f64),
            Shape::IntOrString => {
                self.int_or_string(Some(value), "");
                Ok(Some(Wire::Bytes))
            }
            _ => Err(E::invalid_type(Unexpected::Signed(value), &self)),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(value), &self)),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        if *self.shape != Shape::Double {
            return Err(E::invalid_type(Unexpected::Float(value), &self));
        }
        self.writer.out.extend_from_slice(&value.to_le_bytes());
        Ok(Some(Wire::Fixed64))
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<Self::Value, E> {
        match self.shape {
            Shape::String => self.writer.out.extend_from_slice(text.as_bytes()),
            Shape::Bytes => STANDARD.decode_vec(text, &mut self.writer.out).map_err(E::custom)?,
            Shape::Quantity => wire::bytes(&mut self.writer.out, 1, text.as_bytes()),
            Shape::Time => self.time(text, false)?,
            Shape::MicroTime => self.time(text, true)?,
            Shape::Duration => {
                let nanos = duration_nanos(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
                self.writer.out.push(8);
                wire::varint(&mut self.writer.out, nanos.cast_unsigned());
            }
            Shape::IntOrString => self.int_or_string(None, text),
            _ => return Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
        Ok(Some(Wire::Bytes))
    }

    /// A list in a list or a map is wrapped in a message with the items as field 1.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let Shape::List(item) = self.shape else {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        };
        loop {
            let start = self.writer.out.len();
            let Some(wire) = items.next_element_seed(ValueSeed { writer: &mut *self.writer, shape: item })? else {
                return Ok(Some(Wire::Bytes));
            };
            let wire = wire.or_else(|| self.writer.null_item(item)).unwrap_or(Wire::Bytes);
            self.writer.prefix(start, 1, wire);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let Shape::Struct(id) = self.shape else {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        };
        let ty = self.writer.facts.get(*id);
        MessageSeed { writer: self.writer, ty }.visit_map(map)?;
        Ok(Some(Wire::Bytes))
    }
}
