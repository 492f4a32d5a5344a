//! Kubernetes' protobuf bodies, led through the facts about the type into a tree.
//!
//! A body is the magic `k8s\0` and a `runtime.Unknown` that holds apiVersion, kind and the object's message. The
//! tree comes out as the JSON of the same object would read, and is checked like it afterwards.
//!
//! Guarantees: fields that the table does not know are skipped, as protobuf has it; lengths are checked against what
//! is there, so memory is linear in the body; messages nest 100 deep at most; nothing panics.

use base64::Engine as _;
use jiff::tz::Offset;
use serde_json::{Map, Value};

use crate::facts::{Facts, Schema, Shape, Type};

const MAGIC: &[u8] = b"k8s\0";
const DEPTH: usize = 100;

/// Why a body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoMagic,
    #[error("proto: unexpected end of message")]
    Truncated,
    #[error("proto: illegal field number or wire type")]
    Wire,
    #[error("proto: wrong wire type of a known field")]
    Mismatch,
    #[error("proto: string field contains invalid UTF-8")]
    Utf8,
    #[error("proto: invalid embedded JSON")]
    Json,
    #[error("proto: messages are nested too deep")]
    Depth,
}

/// The tree of a whole body.
pub(super) fn read(bytes: &[u8], schema: &Schema) -> Result<Value, Malformed> {
    let mut rest = bytes.strip_prefix(MAGIC).ok_or(Malformed::NoMagic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, wire)) = next(&mut rest)? {
        match number {
            1 => {
                let mut meta = wire.bytes()?;
                while let Some((number, wire)) = next(&mut meta)? {
                    match number {
                        1 => api_version = text(wire.bytes()?)?,
                        2 => kind = text(wire.bytes()?)?,
                        _ => {}
                    }
                }
            }
            2 => raw = wire.bytes()?,
            _ => {}
        }
    }
    let mut object = Map::new();
    // Another kind's message would read as nonsense: its name alone is enough to refuse it.
    let said = |text: &str, expected: &str| text.is_empty() || expected.is_empty() || text == expected;
    if said(&api_version, schema.api_version()) && (schema.api_version().is_empty() || said(&kind, schema.kind())) {
        let reader = Reader { facts: schema.facts() };
        reader.message(raw, schema.root_type(), &[], &mut object, DEPTH)?;
    }
    for (key, value) in [("apiVersion", api_version), ("kind", kind)] {
        if !value.is_empty() {
            object.insert(key.to_owned(), value.into());
        }
    }
    Ok(Value::Object(object))
}

/// The value of a field as it is on the wire.
#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed::Mismatch),
        }
    }

    fn varint(self) -> Result<u64, Malformed> {
        match self {
            Wire::Varint(value) => Ok(value),
            _ => Err(Malformed::Mismatch),
        }
    }
}

/// Takes the next field; `None` at the end.
fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u64, Wire<'a>)>, Malformed> {
    if rest.is_empty() {
        return Ok(None);
    }
    let key = varint(rest)?;
    let wire = match key & 7 {
        0 => Wire::Varint(varint(rest)?),
        1 => Wire::Fixed64(u64::from_le_bytes(fixed(rest)?)),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| Malformed::Truncated)?;
            let (value, after) = rest.split_at_checked(length).ok_or(Malformed::Truncated)?;
            *rest = after;
            Wire::Bytes(value)
        }
        5 => Wire::Fixed32(u32::from_le_bytes(fixed(rest)?)),
        _ => return Err(Malformed::Wire),
    };
    match key >> 3 {
        0 => Err(Malformed::Wire),
        number => Ok(Some((number, wire))),
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(Malformed::Truncated)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed::Wire)
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (value, after) = rest.split_first_chunk().ok_or(Malformed::Truncated)?;
    *rest = after;
    Ok(*value)
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed::Utf8)
}

/// Two's complement, as protobuf writes negative numbers.
fn signed(value: u64) -> i64 {
    value.cast_signed()
}

struct Reader<'a> {
    facts: &'a Facts,
}

impl Reader<'_> {
    /// Reads the fields of `ty` whose numbers begin with `prefix` out of a message.
    fn message(
        &self,
        mut rest: &[u8],
        ty: &Type,
        prefix: &[u16],
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Result<(), Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed::Depth)?;
        while let Some((number, wire)) = next(&mut rest)? {
            let Some(field) = u16::try_from(number).ok().and_then(|number| ty.numbered(prefix, number)) else {
                continue;
            };
            if field.numbers.len() > prefix.len() + 1 {
                // A message that Go embeds: its fields are the type's own.
                let inner = &field.numbers[..prefix.len() + 1];
                self.message(wire.bytes()?, ty, inner, out, depth)?;
                continue;
            }
            let slot = out.entry(field.name.as_ref()).or_insert(Value::Null);
            self.field(&field.shape, wire, slot, depth)?;
        }
        Ok(())
    }

    /// Adds one occurrence of a field to what earlier ones have made of it.
    fn field(&self, shape: &Shape, wire: Wire<'_>, slot: &mut Value, depth: usize) -> Result<(), Malformed> {
        match shape {
            Shape::List(item) => {
                if !slot.is_array() {
                    *slot = Value::Array(Vec::new());
                }
                let Value::Array(items) = slot else { return Ok(()) };
                match (item.as_ref(), wire) {
                    (Shape::Int32 | Shape::Int64 | Shape::Bool, Wire::Bytes(mut packed)) => {
                        while !packed.is_empty() {
                            items.push(self.value(item, Wire::Varint(varint(&mut packed)?), depth)?);
                        }
                    }
                    _ => items.push(self.value(item, wire, depth)?),
                }
            }
            Shape::Map(item) => {
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                let mut entry = wire.bytes()?;
                let (mut key, mut value) = (String::new(), None);
                while let Some((number, wire)) = next(&mut entry)? {
                    match number {
                        1 => key = text(wire.bytes()?)?,
                        2 => value = Some(self.value(item, wire, depth)?),
                        _ => {}
                    }
                }
                // An entry without a value has the empty one.
                let value = value.map_or_else(|| self.value(item, empty(item), depth), Ok)?;
                if let Value::Object(map) = slot {
                    map.insert(key, value);
                }
            }
            // A message that comes in parts is one message.
            Shape::Struct(id) => {
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(map) = slot {
                    self.message(wire.bytes()?, self.facts.get(*id), &[], map, depth)?;
                }
            }
            _ => *slot = self.value(shape, wire, depth)?,
        }
        Ok(())
    }

    fn value(&self, shape: &Shape, wire: Wire<'_>, depth: usize) -> Result<Value, Malformed> {
        Ok(match shape {
            Shape::String => text(wire.bytes()?)?.into(),
            Shape::Bool => (wire.varint()? != 0).into(),
            Shape::Int32 | Shape::Int64 => signed(wire.varint()?).into(),
            Shape::Double => match wire {
                Wire::Fixed64(bits) => f64::from_bits(bits).into(),
                Wire::Fixed32(bits) => f64::from(f32::from_bits(bits)).into(),
                _ => return Err(Malformed::Mismatch),
            },
            Shape::Bytes => base64::engine::general_purpose::STANDARD.encode(wire.bytes()?).into(),
            Shape::Quantity => match member(wire.bytes()?, 1)? {
                Some(value) => text(value.bytes()?)?.into(),
                None => "0".into(),
            },
            Shape::Time => time(wire.bytes()?, "%Y-%m-%dT%H:%M:%SZ")?,
            Shape::MicroTime => time(wire.bytes()?, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
            Shape::Duration => {
                let nanos = member(wire.bytes()?, 1)?.map(Wire::varint).transpose()?.unwrap_or(0);
                format!("{}ns", signed(nanos)).into()
            }
            Shape::IntOrString => int_or_string(wire.bytes()?)?,
            Shape::FieldsV1 | Shape::Raw => match member(wire.bytes()?, 1)? {
                Some(json) => serde_json::from_slice(json.bytes()?).map_err(|_| Malformed::Json)?,
                None => Value::Null,
            },
            Shape::Struct(id) => {
                let mut map = Map::new();
                self.message(wire.bytes()?, self.facts.get(*id), &[], &mut map, depth)?;
                Value::Object(map)
            }
            // A list in a list or a map is wrapped in a message with the items as field 1.
            Shape::List(_) => {
                let (mut items, mut rest) = (Value::Array(Vec::new()), wire.bytes()?);
                while let Some((number, wire)) = next(&mut rest)? {
                    if number == 1 {
                        self.field(shape, wire, &mut items, depth.checked_sub(1).ok_or(Malformed::Depth)?)?;
                    }
                }
                items
            }
            Shape::Map(_) => return Err(Malformed::Mismatch),
        })
    }
}

/// The wire form of the empty value.
fn empty(shape: &Shape) -> Wire<'static> {
    match shape {
        Shape::Bool | Shape::Int32 | Shape::Int64 => Wire::Varint(0),
        Shape::Double => Wire::Fixed64(0),
        _ => Wire::Bytes(&[]),
    }
}

/// The last field `wanted` of a message.
fn member(mut rest: &[u8], wanted: u64) -> Result<Option<Wire<'_>>, Malformed> {
    let mut found = None;
    while let Some((number, wire)) = next(&mut rest)? {
        if number == wanted {
            found = Some(wire);
        }
    }
    Ok(found)
}

/// Seconds and nanoseconds; an empty message is no time.
fn time(message: &[u8], format: &str) -> Result<Value, Malformed> {
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let seconds = member(message, 1)?.map(Wire::varint).transpose()?.map_or(0, signed);
    let nanos = member(message, 2)?.map(Wire::varint).transpose()?.map_or(0, signed);
    let time = i32::try_from(nanos).ok().and_then(|nanos| jiff::Timestamp::new(seconds, nanos).ok());
    let time = time.ok_or(Malformed::Wire)?;
    Ok(Offset::UTC.to_datetime(time).strftime(format).to_string().into())
}

/// type (0 integer, 1 string), integer, string.
fn int_or_string(message: &[u8]) -> Result<Value, Malformed> {
    if member(message, 1)?.map(Wire::varint).transpose()?.unwrap_or(0) == 1 {
        let value = member(message, 3)?.map(Wire::bytes).transpose()?.unwrap_or_default();
        return text(value).map(Value::from);
    }
    Ok(member(message, 2)?.map(Wire::varint).transpose()?.map_or(0, signed).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::decode::{ContentType, FieldValidation, decode_as};

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        let mut length = content.len();
        while length >= 0x80 {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(content);
        out
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn a_config_map() {
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let no_value = field(1, b"e");
        let raw = [field(1, &field(1, b"name")), field(2, &entry), field(2, &no_value), field(9, b"unknown")].concat();
        let schema = Schema::builtin("v1", "ConfigMap").unwrap();
        let bytes = body("v1", "ConfigMap", &raw);
        let decoded = decode_as(&bytes, ContentType::Protobuf, &schema, FieldValidation::Strict).unwrap();
        assert_eq!(decoded.object["data"], json!({"k": "v", "e": ""}));
        assert_eq!(decoded.object["metadata"]["name"], "name");
        let wrong = body("v1", "Secret", &raw);
        assert_eq!(decode_as(&wrong, ContentType::Protobuf, &schema, FieldValidation::Warn).unwrap_err().code, 400);
        for cut in 0..bytes.len() {
            // Whatever is left of it is refused or read, never a panic.
            let _ = decode_as(&bytes[..cut], ContentType::Protobuf, &schema, FieldValidation::Warn);
        }
    }

    proptest! {
        #[test]
        fn noise_is_refused_or_read(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let schema = Schema::builtin("v1", "Pod").unwrap();
            let _ = decode_as(&body("v1", "Pod", &raw), ContentType::Protobuf, &schema, FieldValidation::Warn);
            let _ = decode_as(&raw, ContentType::Protobuf, &schema, FieldValidation::Warn);
        }
    }
}
