//! The components of a document: every type that its resources are made of.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::describe::Descriptions;
use super::{component_name, enums, group_version_kind, reference, split_kind};
use crate::facts::{Facts, Field, Shape, TypeId};
use crate::meta;
use crate::resource::{Resource, Version};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const RAW_EXTENSION: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";

/// All components of the document of one version.
pub(super) fn components(group: &str, version: &Version) -> Map<String, Value> {
    let api_version = meta::join_api_version(group, &version.version);
    let mut kinds = Vec::new();
    for resource in &version.resources {
        kinds.push((resource.schema.api_version(), resource.schema.kind()));
        kinds.extend(
            resource.subresources.iter().filter_map(|s| s.schema.as_ref()).map(|s| (s.api_version(), s.kind())),
        );
    }
    let descriptions = Descriptions::of(kinds.into_iter());
    let mut components = common(&api_version);
    let mut machinery = BTreeSet::new();
    for resource in &version.resources {
        let facts = resource.schema.facts();
        let mut writer = Writer { facts, descriptions: &descriptions, components: &mut components };
        writer.add(resource.schema.root());
        for schema in resource.subresources.iter().filter_map(|s| s.schema.as_ref()) {
            writer.add(schema.root());
        }
        list(&mut writer, resource);
        machinery.extend(["DeleteOptions", "Status", "ListMeta"]);
    }
    let facts = Facts::builtin();
    let mut writer = Writer { facts, descriptions: &descriptions, components: &mut components };
    for name in machinery {
        if let Some(id) = facts.find(&format!("meta.v1.{name}")) {
            writer.add(id);
        }
    }
    let (group, version) = meta::split_api_version(&api_version);
    for name in ["DeleteOptions", "Status"] {
        if let Some(component) = components.get_mut(&format!("{META}.{name}")) {
            let at = if name == "Status" { ("", "v1") } else { (group, version) };
            component["x-kubernetes-group-version-kind"] = json!([group_version_kind(at.0, at.1, name)]);
        }
    }
    components
}

/// The name of the component of a resource's list.
pub(super) fn list_component(resource: &Resource) -> String {
    let item = component_name(resource.schema.facts(), resource.schema.root());
    format!("{item}List")
}

fn list(writer: &mut Writer<'_, '_>, resource: &Resource) {
    let name = list_component(resource);
    let facts_name = format!("{}List", writer.facts.get(resource.schema.root()).name);
    if !resource.allows(crate::resource::Verb::List) || writer.components.contains_key(&name) {
        return;
    }
    if let Some(id) = writer.facts.find(&facts_name) {
        writer.add(id);
        if let Some(component) = writer.components.get_mut(&name) {
            component["description"] = format!("{} is a list of {} objects.", resource.list_kind, resource.kind).into();
        }
    }
}

struct Writer<'a, 'c> {
    facts: &'a Facts,
    descriptions: &'a Descriptions,
    components: &'c mut Map<String, Value>,
}

impl Writer<'_, '_> {
    /// Writes a type and all that it holds.
    fn add(&mut self, id: TypeId) {
        let name = component_name(self.facts, id);
        if self.components.contains_key(&name) {
            return;
        }
        // The place is taken before the fields are written: types may hold themselves.
        self.components.insert(name.clone(), Value::Null);
        let ty = self.facts.get(id);
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in &ty.fields {
            properties.insert(field.name.to_string(), self.property(&name, &ty.name, field));
            if field.required {
                required.push(field.name.as_ref());
            }
        }
        let mut schema = json!({"type": "object", "properties": properties});
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        if let Some(description) = self.descriptions.of_type(&name) {
            schema["description"] = description.into();
        }
        if let Some(kind) = &ty.api_version_kind {
            schema["x-kubernetes-group-version-kind"] = json!([split_kind(kind)]);
        }
        if ty.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        self.components.insert(name, schema);
    }

    fn property(&mut self, owner: &str, type_name: &str, field: &Field) -> Value {
        let mut schema = self.shape(&field.shape);
        enums::add(&mut schema, type_name, &field.name);
        if let Some(default) = field.default.clone().or_else(|| zero(field)) {
            schema["default"] = default;
        }
        // What stands beside a $ref is not read.
        if let Some(reference) = schema.get("$ref").cloned() {
            schema["allOf"] = json!([{"$ref": reference}]);
            if let Some(schema) = schema.as_object_mut() {
                schema.remove("$ref");
            }
        }
        let words = [
            ("description", self.descriptions.of_field(owner, &field.name).map(str::to_owned)),
            ("x-kubernetes-patch-strategy", field.patch_strategy.as_deref().map(str::to_owned)),
            ("x-kubernetes-patch-merge-key", field.merge_key.as_deref().map(str::to_owned)),
            ("x-kubernetes-list-type", field.list_type.map(|list| list.as_str().to_owned())),
            ("x-kubernetes-map-type", map_type(field).map(str::to_owned)),
        ];
        for (key, word) in words {
            if let Some(word) = word {
                schema[key] = word.into();
            }
        }
        if !field.list_map_keys.is_empty() {
            schema["x-kubernetes-list-map-keys"] = field.list_map_keys.iter().map(|key| key.as_ref()).collect();
        }
        schema
    }

    fn shape(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::String => json!({"type": "string"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Quantity => reference(QUANTITY),
            Shape::Time => reference(&format!("{META}.Time")),
            Shape::MicroTime => reference(&format!("{META}.MicroTime")),
            Shape::Duration => reference(&format!("{META}.Duration")),
            Shape::IntOrString => reference(INT_OR_STRING),
            Shape::FieldsV1 => reference(&format!("{META}.FieldsV1")),
            Shape::Raw => reference(RAW_EXTENSION),
            Shape::Struct(id) => {
                self.add(*id);
                reference(&component_name(self.facts, *id))
            }
            Shape::List(item) => json!({"type": "array", "items": self.item(item)}),
            Shape::Map(item) => json!({"type": "object", "additionalProperties": self.item(item)}),
        }
    }

    fn item(&mut self, shape: &Shape) -> Value {
        match shape {
            Shape::String => json!({"type": "string", "default": ""}),
            Shape::Int32 => json!({"type": "integer", "format": "int32", "default": 0}),
            Shape::Int64 => json!({"type": "integer", "format": "int64", "default": 0}),
            Shape::Struct(_) => json!({"allOf": [self.shape(shape)], "default": {}}),
            _ => self.shape(shape),
        }
    }
}

fn map_type(field: &Field) -> Option<&'static str> {
    match (field.atomic, field.granular) {
        (true, _) => Some("atomic"),
        (false, true) => Some("granular"),
        (false, false) => None,
    }
}

/// The zero value of fields that are always written.
fn zero(field: &Field) -> Option<Value> {
    if field.pointer || field.omitzero {
        return None;
    }
    match &field.shape {
        Shape::Struct(_) => Some(json!({})),
        _ if field.omitempty => None,
        Shape::String => Some("".into()),
        Shape::Bool => Some(false.into()),
        Shape::Int32 | Shape::Int64 => Some(0.into()),
        _ => None,
    }
}

/// Types that are not made of fields.
fn common(api_version: &str) -> Map<String, Value> {
    let (group, version) = meta::split_api_version(api_version);
    let mut components = Map::new();
    let mut add = |name: String, schema: Value| components.insert(name, schema);
    let time = "A time as RFC 3339 text.";
    add(format!("{META}.Time"), json!({"type": "string", "format": "date-time", "description": time}));
    add(format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time", "description": time}));
    add(format!("{META}.Duration"), json!({"type": "string", "description": "A duration such as 1h30m."}));
    add(
        format!("{META}.FieldsV1"),
        json!({"type": "object", "description": "A set of fields as a tree of their names."}),
    );
    add(
        format!("{META}.Patch"),
        json!({"type": "object", "description": "A change to an object; its form is that of the content type."}),
    );
    add(
        QUANTITY.to_owned(),
        json!({"oneOf": [{"type": "string"}, {"type": "number"}], "description": "An amount with an optional suffix, such as 500m or 1Gi."}),
    );
    add(
        INT_OR_STRING.to_owned(),
        json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}], "description": "A number or a text, such as a port's number or name."}),
    );
    add(RAW_EXTENSION.to_owned(), json!({"type": "object", "description": "An object of any kind."}));
    add(
        format!("{META}.WatchEvent"),
        json!({
            "type": "object", "required": ["type", "object"], "description": "One change that a watch tells about.",
            "properties": {
                "type": {"type": "string", "default": "", "description": "ADDED, MODIFIED, DELETED, BOOKMARK or ERROR."},
                "object": {"allOf": [reference(RAW_EXTENSION)], "description": "The object as it is now, or was last."},
            },
            "x-kubernetes-group-version-kind": [group_version_kind(group, version, "WatchEvent")],
        }),
    );
    components
}
