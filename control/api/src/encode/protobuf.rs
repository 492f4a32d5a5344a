//! Objects as protobuf messages, byte for byte as upstream's generated code writes them.
//!
//! Whatever serde can walk through (the stored JSON, a tree) is written in one pass, without a tree between: the values
//! of a message are written as they come, and once it ends put in the order of their numbers, together with what Go
//! writes although nobody set it. That is every scalar and every message that is held by value; what Go holds by pointer
//! is written if it is there, lists and maps item by item, maps in the order of their keys.
//!
//! Guarantees: what the type does not know is left out; time and memory are linear in the input (each level of nesting
//! copies once); nothing panics. Values must be in the form in which [`decode`](crate::decode) leaves them.

use std::ops::Range;

use serde::de::{Deserialize as _, DeserializeSeed, Deserializer};
use serde_json::Value;

use super::wire::{self, Wire};
use crate::facts::{Facts, Schema, Shape, Type, TypeId};
use crate::status::Status;

mod visit;

/// The message of an object in its JSON form.
pub fn from_json(json: &[u8], schema: &Schema) -> Result<Vec<u8>, Status> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    message(&mut parser, schema.facts(), schema.root()).map_err(Status::internal)
}

/// The message of a tree.
pub fn from_tree(tree: &Value, schema: &Schema) -> Result<Vec<u8>, Status> {
    message(tree, schema.facts(), schema.root()).map_err(Status::internal)
}

/// The message of some JSON's or tree's `metadata`, which is of type `meta.v1.` `type_name`.
pub fn metadata<'de, D: Deserializer<'de>>(metadata: D, type_name: &str) -> Result<Vec<u8>, Status> {
    let facts = Facts::builtin();
    let ty = facts.find(&format!("meta.v1.{type_name}"));
    let ty = ty.ok_or_else(|| Status::internal(format!("the type {type_name} is not in the table")))?;
    message(metadata, facts, ty).map_err(Status::internal)
}

/// The message of a document (an object, a list, a Status) of whichever built-in type it says to be; none if there is no
/// such type.
pub fn message_of(document: &Value) -> Option<Result<Vec<u8>, Status>> {
    let facts = Facts::builtin();
    let (api_version, kind) = (document["apiVersion"].as_str()?, document["kind"].as_str()?);
    let of_machinery = || match api_version {
        "v1" | "meta.k8s.io/v1" | "meta.k8s.io/v1beta1" => facts.find(&format!("meta.v1.{kind}")),
        _ => None,
    };
    let ty = facts.by_kind(api_version, kind).or_else(of_machinery)?;
    Some(message(document, facts, ty).map_err(Status::internal))
}

/// A document as a body of its own; none if [`message_of`] has none.
pub fn document(document: &Value) -> Option<Result<Vec<u8>, Status>> {
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let message = message_of(document)?;
    Some(message.map(|message| wire::envelope(text("apiVersion"), text("kind"), &message)))
}

fn message<'de, D: Deserializer<'de>>(object: D, facts: &Facts, ty: TypeId) -> Result<Vec<u8>, D::Error> {
    let mut writer = Writer { facts, out: Vec::with_capacity(1024), spare: Vec::new() };
    visit::MessageSeed { writer: &mut writer, ty: facts.get(ty) }.deserialize(object)?;
    Ok(writer.out)
}

/// One value of a field, where it lies in the buffer, without number and length.
struct Part {
    /// The field's place in the order of numbers.
    rank: u16,
    at: Range<usize>,
    wire: Wire,
}

struct Writer<'f> {
    facts: &'f Facts,
    out: Vec<u8>,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
}

impl<'f> Writer<'f> {
    /// Puts `parts`, all of what lies behind `start`, in order and completes them to a message of `ty`.
    fn finish(&mut self, ty: &Type, start: usize, parts: &mut [Part]) {
        // Stable: the items of a list keep their order.
        parts.sort_by_key(|part| part.rank);
        let mut body = self.spare.pop().unwrap_or_default();
        self.fields(ty, 0..ty.in_order().len(), 0, parts, &mut body);
        self.out.truncate(start);
        self.out.extend_from_slice(&body);
        self.recycle(body);
    }

    fn recycle(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.spare.push(buffer);
    }

    /// Appends the fields of these ranks, whose numbers agree up to `depth`.
    fn fields(&mut self, ty: &Type, ranks: Range<usize>, depth: usize, parts: &[Part], body: &mut Vec<u8>) {
        let order = ty.in_order();
        let mut rest = parts;
        let mut rank = ranks.start;
        while rank < ranks.end {
            let field = &ty.fields[usize::from(order[rank])];
            let number = field.numbers[depth];
            // A message that Go embeds: its fields are the type's own.
            let embedded = field.numbers.len() > depth + 1;
            let next = match embedded {
                true => {
                    let of_it = |i: &u16| ty.fields[usize::from(*i)].numbers.get(depth) == Some(&number);
                    rank + order[rank..ranks.end].iter().take_while(|i| of_it(i)).count()
                }
                false => rank + 1,
            };
            let (mine, after) = rest.split_at(rest.iter().take_while(|part| usize::from(part.rank) < next).count());
            rest = after;
            if embedded {
                let mut inner = self.spare.pop().unwrap_or_default();
                self.fields(ty, rank..next, depth + 1, mine, &mut inner);
                wire::bytes(body, number, &inner);
                self.recycle(inner);
            } else if mine.is_empty() && !field.pointer {
                self.zero_field(&field.shape, number, body);
            }
            if !embedded {
                for part in mine {
                    wire::key(body, number, part.wire);
                    if part.wire == Wire::Bytes {
                        wire::varint(body, part.at.len() as u64);
                    }
                    body.extend_from_slice(&self.out[part.at.clone()]);
                }
            }
            rank = next;
        }
    }

    /// Appends a field that Go writes although it is not set; nothing for what it leaves out.
    fn zero_field(&mut self, shape: &Shape, number: u16, body: &mut Vec<u8>) {
        let mut value = self.spare.pop().unwrap_or_default();
        if let Some(wire) = self.zero(shape, &mut value) {
            wire::key(body, number, wire);
            if wire == Wire::Bytes {
                wire::varint(body, value.len() as u64);
            }
            body.extend_from_slice(&value);
        }
        self.recycle(value);
    }

    /// Appends the value that Go has where nothing is set, and says in which form; none where it has nil.
    fn zero(&mut self, shape: &Shape, value: &mut Vec<u8>) -> Option<Wire> {
        match shape {
            Shape::List(_) | Shape::Map(_) | Shape::Bytes => return None,
            Shape::Bool | Shape::Int32 | Shape::Int64 => {
                value.push(0);
                return Some(Wire::Varint);
            }
            Shape::Double => {
                value.extend_from_slice(&[0; 8]);
                return Some(Wire::Fixed64);
            }
            Shape::Struct(id) => {
                let ty = self.facts.get(*id);
                self.fields(ty, 0..ty.in_order().len(), 0, &[], value);
            }
            Shape::String | Shape::Time | Shape::MicroTime | Shape::FieldsV1 | Shape::Raw => {}
            Shape::Quantity => value.extend_from_slice(&[0x0a, 1, b'0']),
            Shape::Duration => value.extend_from_slice(&[8, 0]),
            Shape::IntOrString => value.extend_from_slice(&[8, 0, 0x10, 0, 0x1a, 0]),
        }
        Some(Wire::Bytes)
    }

    /// Appends the zero value of an item that is null.
    fn null_item(&mut self, shape: &Shape) -> Option<Wire> {
        let mut value = self.spare.pop().unwrap_or_default();
        let wire = self.zero(shape, &mut value);
        self.out.extend_from_slice(&value);
        self.recycle(value);
        wire
    }

    /// Puts number and length before what lies behind `start`, the value of field `number`.
    fn prefix(&mut self, start: usize, number: u16, wire: Wire) {
        let mut prefix = self.spare.pop().unwrap_or_default();
        wire::key(&mut prefix, number, wire);
        if wire == Wire::Bytes {
            wire::varint(&mut prefix, (self.out.len() - start) as u64);
        }
        self.out.splice(start..start, prefix.iter().copied());
        self.recycle(prefix);
    }
}

/// The bytes of embedded JSON.
fn embedded<'de, D: Deserializer<'de>>(value: D) -> Result<Box<serde_json::value::RawValue>, D::Error> {
    Box::<serde_json::value::RawValue>::deserialize(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::{ContentType, FieldValidation, decode_as};

    #[test]
    fn unset_is_written_where_go_writes_it() {
        let schema = Schema::builtin("v1", "ConfigMap").unwrap();
        let tree = json!({"metadata": {"name": "a"}, "data": {"b": "2", "a": ""}});
        let message = from_tree(&tree, &schema).unwrap();
        let mut expected = vec![0x0a, 17, 0x0a, 1, b'a', 0x12, 0, 0x1a, 0, 0x22, 0, 0x2a, 0, 0x32, 0, 0x38, 0, 0x42, 0];
        expected.extend_from_slice(&[0x12, 5, 0x0a, 1, b'a', 0x12, 0]);
        expected.extend_from_slice(&[0x12, 6, 0x0a, 1, b'b', 0x12, 1, b'2']);
        assert_eq!(message, expected);
        assert_eq!(from_json(tree.to_string().as_bytes(), &schema).unwrap(), expected);
    }

    #[test]
    fn what_is_written_reads_as_it_was() {
        let tree = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "p", "creationTimestamp": "2026-01-02T03:04:05Z", "labels": {"x": "y", "a": "é"}, "generation": -1,
                "managedFields": [{"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {".": {}}}}],
            },
            "spec": {
                "containers": [{
                    "name": "c", "image": "i", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 5},
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                }],
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "w", "secret": {"secretName": "s"}}],
                "terminationGracePeriodSeconds": 0, "hostNetwork": true,
                "securityContext": {"supplementalGroups": [1, 2]},
            },
        });
        let schema = Schema::builtin("v1", "Pod").unwrap();
        let read = |bytes: &[u8], content| decode_as(bytes, content, &schema, FieldValidation::Strict).unwrap().object;
        let object = read(tree.to_string().as_bytes(), ContentType::Json);
        let body = document(&object).unwrap().unwrap();
        assert_eq!(read(&body, ContentType::Protobuf), object);
    }

    #[test]
    fn what_has_no_type_is_no_message() {
        assert!(document(&json!({"apiVersion": "x.io/v1", "kind": "X"})).is_none());
        assert!(document(&json!({})).is_none());
        let schema = Schema::builtin("v1", "Pod").unwrap();
        for wrong in
            [json!([]), json!({"spec": 1}), json!({"metadata": {"name": 1}}), json!({"metadata": {"labels": []}})]
        {
            assert!(from_tree(&wrong, &schema).is_err(), "{wrong}");
        }
        let status = document(&json!({"apiVersion": "v1", "kind": "Status", "code": 404})).unwrap().unwrap();
        assert!(status.starts_with(b"k8s\0"));
    }
}
