//! OpenAPI v2, for clients that know no other: the v3 documents in the older form, in one.

use serde_json::{Map, Value, json};

use super::KUBERNETES_VERSION;
use crate::resource::Registry;

/// The whole document.
pub(super) fn write(registry: &Registry) -> Value {
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for group in registry.groups() {
        for version in &group.versions {
            let document = super::write(&group.name, version);
            if let Some(found) = document["paths"].as_object() {
                paths.extend(found.iter().map(|(path, operations)| (path.clone(), path_item(operations))));
            }
            for (name, component) in document["components"]["schemas"].as_object().into_iter().flatten() {
                add_definition(&mut definitions, name, schema(component));
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": {
            "type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer token authentication",
        }},
        "security": [{"BearerToken": []}],
    })
}

/// A type that belongs to several documents belongs to the kinds of all of them.
fn add_definition(definitions: &mut Map<String, Value>, name: &str, definition: Value) {
    const KINDS: &str = "x-kubernetes-group-version-kind";
    match definitions.get_mut(name) {
        Some(known) => {
            if let (Some(known), Some(more)) =
                (known.get_mut(KINDS).and_then(Value::as_array_mut), definition[KINDS].as_array())
            {
                for kind in more {
                    if !known.contains(kind) {
                        known.push(kind.clone());
                    }
                }
            }
        }
        None => {
            definitions.insert(name.to_owned(), definition);
        }
    }
}

/// A schema: references point elsewhere, `allOf` of one and defaults are not known.
fn schema(v3: &Value) -> Value {
    match v3 {
        Value::Object(map) => {
            let mut out = Map::new();
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("$ref", Value::String(to)) => {
                        out.insert(key.clone(), to.replace("#/components/schemas/", "#/definitions/").into());
                    }
                    ("allOf", Value::Array(parts)) if parts.len() == 1 => {
                        if let Value::Object(part) = schema(&parts[0]) {
                            out.extend(part);
                        }
                    }
                    ("default", _) => {}
                    // What may be a number or a text is a text with a format here.
                    ("oneOf", Value::Array(_)) => {
                        out.insert("type".into(), "string".into());
                    }
                    ("properties", Value::Object(fields)) => {
                        let fields = fields.iter().map(|(name, field)| (name.clone(), schema(field)));
                        out.insert(key.clone(), Value::Object(fields.collect()));
                    }
                    ("items" | "additionalProperties", value) => {
                        out.insert(key.clone(), schema(value));
                    }
                    (_, value) => {
                        out.insert(key.clone(), value.clone());
                    }
                }
            }
            Value::Object(out)
        }
        other => other.clone(),
    }
}

fn path_item(v3: &Value) -> Value {
    let Some(operations) = v3.as_object() else {
        return json!({});
    };
    let converted = operations.iter().map(|(key, value)| {
        let value = if key == "parameters" { parameters(value) } else { operation(value) };
        (key.clone(), value)
    });
    Value::Object(converted.collect())
}

/// A parameter's schema stands in the parameter itself.
fn parameters(v3: &Value) -> Value {
    let flat = |parameter: &Value| {
        let mut flat = parameter.as_object().cloned().unwrap_or_default();
        if let Some(Value::Object(schema)) = flat.remove("schema") {
            flat.extend(schema);
        }
        Value::Object(flat)
    };
    v3.as_array().into_iter().flatten().map(flat).collect()
}

fn operation(v3: &Value) -> Value {
    let mut out = v3.as_object().cloned().unwrap_or_default();
    let mut all: Vec<Value> = match parameters(&v3["parameters"]) {
        Value::Array(parameters) => parameters,
        _ => Vec::new(),
    };
    if let Some(body) = out.remove("requestBody")
        && let Some(content) = body["content"].as_object()
    {
        let of = content.values().next().map(|media| schema(&media["schema"]));
        let mut parameter = json!({"in": "body", "name": "body", "schema": of});
        if body["required"] == true {
            parameter["required"] = true.into();
        }
        all.push(parameter);
        out.insert("consumes".into(), content.keys().cloned().collect());
    }
    if !all.is_empty() {
        out.insert("parameters".into(), all.into());
    }
    let mut produces = Vec::new();
    let mut responses = Map::new();
    for (code, response) in v3["responses"].as_object().into_iter().flatten() {
        let mut converted = json!({"description": response["description"]});
        if let Some(content) = response["content"].as_object() {
            produces = content.keys().cloned().collect();
            if let Some(media) = content.values().next() {
                converted["schema"] = schema(&media["schema"]);
            }
        }
        responses.insert(code.clone(), converted);
    }
    out.insert("produces".into(), produces.into());
    out.insert("responses".into(), Value::Object(responses));
    out.insert("schemes".into(), json!(["https"]));
    Value::Object(out)
}
