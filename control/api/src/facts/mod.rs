//! What is known about the fields of the built-in types: names, types, protobuf numbers, merge keys, list types.
//!
//! The table is generated offline (`control/api/facts`, a Go program that reads upstream's types) and checked in; `metrics.txt`
//! beside it holds the few types of `metrics.k8s.io` and `custom.metrics.k8s.io`, which are not upstream's own. Their lines are
//!
//! ```text
//! =core.v1.ContainerPort [apiVersion/Kind] [atomic]
//! name shape number -flags [strategy=..] [mergekey=..] [list=..] [keys=..] [default=json]
//! ```
//!
//! `shape` is one letter (see [`Shape`]), `[]` or `{}` before another shape, or the name of a type. `number` is the
//! protobuf field; `2.1` means field 1 of the message in field 2, 0 that the field has none. Flags: `o` omitempty, `z`
//! omitzero, `p` pointer, `r` required, `a` atomic, `g` granular.
//!
//! Guarantees: the built-in table is parsed once, is never changed, and every shape in it refers to a type that exists
//! (the test of the table says so).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value};

mod parse;
mod schema;

pub use parse::FactsError;
pub use schema::Schema;

/// A type's place in its [`Facts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeId(u32);

/// What a value looks like on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// `s`: a string.
    String,
    /// `b`: true or false.
    Bool,
    /// `i`: an integer of 32 bits.
    Int32,
    /// `l`: an integer of 64 bits.
    Int64,
    /// `d`: a floating-point number.
    Double,
    /// `y`: bytes, as base64 text.
    Bytes,
    /// `Q`: a quantity such as `500m`.
    Quantity,
    /// `T`: a time in whole seconds.
    Time,
    /// `M`: a time in microseconds.
    MicroTime,
    /// `D`: a duration such as `1h30m`.
    Duration,
    /// `X`: an integer or a string.
    IntOrString,
    /// `F`: a tree of field names.
    FieldsV1,
    /// `R`: any object.
    Raw,
    /// A type of the table.
    Struct(TypeId),
    /// `[]`: a list.
    List(Box<Shape>),
    /// `{}`: a map of strings.
    Map(Box<Shape>),
}

/// How a strategic merge patch treats a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    /// Lists are merged: by the merge key, or as a set of primitives.
    pub merge: bool,
    /// Only fields named in `$retainKeys` stay.
    pub retain_keys: bool,
}

/// How the items of a list belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    /// The list is one value.
    Atomic,
    /// Items are unique.
    Set,
    /// Items are objects that differ in their keys.
    Map,
}

impl ListType {
    /// As in `x-kubernetes-list-type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Atomic => "atomic",
            Self::Set => "set",
            Self::Map => "map",
        }
    }
}

/// One field of a type.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The JSON name.
    pub name: Box<str>,
    /// Its type.
    pub shape: Shape,
    /// The protobuf field numbers from the message to the field; empty if it has none.
    pub numbers: Box<[u16]>,
    /// An empty value is left out.
    pub omitempty: bool,
    /// A zero value (also of a struct) is left out.
    pub omitzero: bool,
    /// Unset differs from zero.
    pub pointer: bool,
    /// The schema calls it required.
    pub required: bool,
    /// The value is owned as a whole in server-side apply.
    pub atomic: bool,
    /// The fields of the value are owned one by one, even if its type says otherwise.
    pub granular: bool,
    /// The strategy of strategic merge patches, if one is declared.
    pub patch_strategy: Option<Box<str>>,
    /// The key by which list items are merged.
    pub merge_key: Option<Box<str>>,
    /// The list type, if one is declared.
    pub list_type: Option<ListType>,
    /// The keys of a list of type map.
    pub list_map_keys: Box<[Box<str>]>,
    /// The default that the schema declares, if it is not just the zero value.
    pub default: Option<Value>,
}

impl Field {
    /// How a strategic merge patch treats this field.
    pub fn strategy(&self) -> PatchStrategy {
        let mut strategy = PatchStrategy::default();
        for word in self.patch_strategy.as_deref().unwrap_or_default().split(',') {
            match word {
                "merge" => strategy.merge = true,
                "retainKeys" => strategy.retain_keys = true,
                _ => {}
            }
        }
        strategy
    }

    /// How server-side apply treats the list: as declared, else by the patch strategy, else as one value.
    pub fn effective_list_type(&self) -> ListType {
        match (self.list_type, self.strategy().merge, &self.merge_key) {
            (Some(declared), ..) => declared,
            (None, true, Some(_)) => ListType::Map,
            (None, true, None) => ListType::Set,
            (None, false, _) => ListType::Atomic,
        }
    }

    /// The value that the field has even if nobody set it: Go always writes scalars and structs held by value.
    fn implied(&self, facts: &Facts) -> Option<Value> {
        if self.pointer || self.omitzero {
            return None;
        }
        match &self.shape {
            Shape::Struct(id) => Some(Value::Object(facts.get(*id).empty(facts))),
            _ if self.omitempty => None,
            Shape::String => Some("".into()),
            Shape::Bool => Some(false.into()),
            Shape::Int32 | Shape::Int64 => Some(0.into()),
            _ => None,
        }
    }

    /// Whether `value` is what Go leaves out when it writes this field.
    pub(crate) fn is_omitted(&self, value: &Value) -> bool {
        self.omitempty
            && !self.pointer
            && match value {
                Value::Null => true,
                Value::Bool(b) => !b && self.shape == Shape::Bool,
                Value::Number(n) => n.as_i64() == Some(0) && matches!(self.shape, Shape::Int32 | Shape::Int64),
                Value::String(s) => s.is_empty() && matches!(self.shape, Shape::String | Shape::Bytes),
                Value::Array(items) => items.is_empty(),
                Value::Object(map) => map.is_empty() && matches!(self.shape, Shape::Map(_)),
            }
    }
}

/// One type.
#[derive(Debug, Clone, PartialEq)]
pub struct Type {
    /// `core.v1.Pod`.
    pub name: Box<str>,
    /// `apiVersion` and `kind`, if objects of this type stand alone.
    pub api_version_kind: Option<(Box<str>, Box<str>)>,
    /// Values are owned as a whole in server-side apply.
    pub atomic: bool,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// The fields that are always there, by index.
    implied: Vec<u16>,
    /// The fields that have a protobuf number, by index, in the order of their numbers.
    order: Vec<u16>,
    /// For each field its place in `order`.
    ranks: Vec<Option<u16>>,
}

impl Type {
    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|i| &self.fields[i])
    }

    /// The index of the field of this name.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()
    }

    /// The indexes of the fields in the order of their protobuf numbers.
    pub(crate) fn in_order(&self) -> &[u16] {
        &self.order
    }

    /// The first field whose protobuf numbers begin with those of `prefix` and then `number`.
    pub(crate) fn numbered(&self, prefix: &[u16], number: u16) -> Option<&Field> {
        let wanted = || prefix.iter().copied().chain([number]);
        let at = self.order.partition_point(|i| self.fields[usize::from(*i)].numbers.iter().copied().lt(wanted()));
        let field = &self.fields[usize::from(*self.order.get(at)?)];
        let numbers = field.numbers.iter().copied().take(prefix.len() + 1);
        numbers.eq(wanted()).then_some(field)
    }

    /// The place of field `index` in the order of protobuf numbers; none if it has no number.
    pub(crate) fn rank(&self, index: usize) -> Option<u16> {
        self.ranks[index]
    }

    /// The Go struct's name: `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// Puts in what Go always writes.
    pub(crate) fn complete(&self, facts: &Facts, map: &mut Map<String, Value>) {
        for index in &self.implied {
            let field = &self.fields[usize::from(*index)];
            if !map.contains_key(field.name.as_ref())
                && let Some(value) = field.implied(facts)
            {
                map.insert(field.name.to_string(), value);
            }
        }
    }

    fn empty(&self, facts: &Facts) -> Map<String, Value> {
        let mut map = Map::new();
        self.complete(facts, &mut map);
        map
    }
}

/// A closed set of types.
#[derive(Debug, Default)]
pub struct Facts {
    types: Vec<Type>,
    by_name: HashMap<Box<str>, TypeId>,
    by_kind: HashMap<(Box<str>, Box<str>), TypeId>,
    digest: String,
}

static BUILTIN: LazyLock<Arc<Facts>> =
    LazyLock::new(|| match Facts::parse(concat!(include_str!("table.txt"), include_str!("metrics.txt"))) {
        Ok(facts) => Arc::new(facts),
        // The table is part of the program: one that cannot be read is a defect of the build.
        Err(error) => panic!("the table of facts is damaged: {error}"),
    });

impl Facts {
    /// The types of Kubernetes itself.
    pub fn builtin() -> &'static Arc<Facts> {
        &BUILTIN
    }

    /// The type of this id, which must come from these facts.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// The type of this name (`core.v1.Pod`).
    pub fn find(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The type of objects with this `apiVersion` and `kind`.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        self.by_kind.get(&(api_version.into(), kind.into())).copied()
    }

    /// Differs for different tables.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// All types.
    pub fn types(&self) -> impl Iterator<Item = &Type> {
        self.types.iter()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn field<'a>(name: &str, field: &str) -> &'a Field {
        let facts = Facts::builtin();
        facts.get(facts.find(name).unwrap()).field(field).unwrap()
    }

    #[test]
    fn the_table_is_sound() {
        let facts = Facts::builtin();
        assert!(facts.types().count() > 500);
        for ty in facts.types() {
            let fields = || ty.fields.iter().map(|f| &f.name);
            assert!(fields().zip(fields().skip(1)).all(|(a, b)| a < b), "{} has a field twice", ty.name);
            ty.empty(facts);
        }
        assert!(facts.by_kind("apps/v1", "Deployment").is_some());
        assert!(facts.by_kind("apps/v1", "Pod").is_none());
    }

    #[test]
    fn some_facts() {
        let containers = field("core.v1.PodSpec", "containers");
        assert!(containers.strategy().merge);
        assert_eq!(containers.merge_key.as_deref(), Some("name"));
        assert_eq!(containers.effective_list_type(), ListType::Map);
        assert_eq!(field("core.v1.ContainerPort", "protocol").default, Some("TCP".into()));
        assert!(field("apps.v1.DeploymentSpec", "strategy").strategy().retain_keys);
        assert_eq!(*field("core.v1.Volume", "emptyDir").numbers, [2, 2]);
        assert_eq!(field("core.v1.Secret", "data").shape, Shape::Map(Box::new(Shape::Bytes)));
        assert_eq!(field("meta.v1.ObjectMeta", "finalizers").effective_list_type(), ListType::Set);
    }
}
