//! The OpenAPI v2 document as protobuf, the only form in which kubectl asks for it (an unknown kind's error, `explain` in
//! the old format).
//!
//! The messages are those of gnostic's openapi.v2; only fields that the JSON document has are written. What begins with
//! `x-` becomes an extension whose value is YAML (JSON is).

use serde_json::Value;

/// The document that [`super::v2::write`] made.
pub(super) fn write(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        for (path, item) in entries(&document["paths"]) {
            paths.named(2, path, |out| path_item(out, item));
        }
    });
    out.message(9, |definitions| {
        for (name, definition) in entries(&document["definitions"]) {
            definitions.named(1, name, |out| schema(out, definition));
        }
    });
    for requirement in items(&document["security"]) {
        out.message(12, |out| {
            for (name, scopes) in entries(requirement) {
                out.named(1, name, |out| out.texts(1, scopes));
            }
        });
    }
    out.message(13, |definitions| {
        for (name, definition) in entries(&document["securityDefinitions"]) {
            definitions.named(1, name, |item| {
                item.message(2, |key| {
                    for (number, field) in [(1, "type"), (2, "name"), (3, "in"), (4, "description")] {
                        key.text(number, &definition[field]);
                    }
                });
            });
        }
    });
    out.0
}

fn path_item(out: &mut Message, item: &Value) {
    let methods = [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")];
    for (number, method) in methods {
        if let Some(found) = item.get(method) {
            out.message(number, |out| operation(out, found));
        }
    }
    for found in items(&item["parameters"]) {
        out.message(9, |out| parameter(out, found));
    }
    out.extensions(10, item);
}

fn operation(out: &mut Message, operation: &Value) {
    out.texts(1, &operation["tags"]);
    out.text(2, &operation["summary"]);
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    for found in items(&operation["parameters"]) {
        out.message(8, |out| parameter(out, found));
    }
    out.message(9, |responses| {
        for (code, response) in entries(&operation["responses"]) {
            responses.named(1, code, |value| {
                value.message(1, |out| {
                    out.text(1, &response["description"]);
                    if let Some(found) = response.get("schema") {
                        out.message(2, |item| item.message(1, |out| schema(out, found)));
                    }
                });
            });
        }
    });
    out.texts(10, &operation["schemes"]);
    out.flag(11, &operation["deprecated"]);
    out.extensions(13, operation);
}

/// One message for each place where a parameter can be.
fn parameter(out: &mut Message, parameter: &Value) {
    let body = |out: &mut Message| {
        out.text(1, &parameter["description"]);
        out.text(2, &parameter["name"]);
        out.text(3, &parameter["in"]);
        out.flag(4, &parameter["required"]);
        out.message(5, |out| schema(out, &parameter["schema"]));
        out.extensions(6, parameter);
    };
    // A query parameter has one field more before its type.
    let plain = |out: &mut Message, shift: u32| {
        out.flag(1, &parameter["required"]);
        out.text(2, &parameter["in"]);
        out.text(3, &parameter["description"]);
        out.text(4, &parameter["name"]);
        out.text(5 + shift, &parameter["type"]);
        out.text(6 + shift, &parameter["format"]);
        out.flag(19 + shift, &parameter["uniqueItems"]);
    };
    out.message(1, |out| match parameter["in"].as_str() {
        Some("body") => out.message(1, body),
        Some("query") => out.message(2, |out| out.message(3, |out| plain(out, 1))),
        Some("header") => out.message(2, |out| out.message(1, |out| plain(out, 0))),
        _ => out.message(2, |out| out.message(4, |out| plain(out, 0))),
    });
}

fn schema(out: &mut Message, schema: &Value) {
    out.text(1, &schema["$ref"]);
    out.text(2, &schema["format"]);
    out.text(3, &schema["title"]);
    out.text(4, &schema["description"]);
    out.texts(19, &schema["required"]);
    for value in items(&schema["enum"]) {
        out.message(20, |any| any.string(2, &value.to_string()));
    }
    match &schema["additionalProperties"] {
        Value::Null => {}
        Value::Bool(_) => out.message(21, |out| out.flag(2, &schema["additionalProperties"])),
        found => out.message(21, |out| out.message(1, |out| self::schema(out, found))),
    }
    if schema["type"].is_string() {
        out.message(22, |out| out.text(1, &schema["type"]));
    }
    if let Some(found) = schema.get("items") {
        out.message(23, |out| out.message(1, |out| self::schema(out, found)));
    }
    for found in items(&schema["allOf"]) {
        out.message(24, |out| self::schema(out, found));
    }
    if schema["properties"].is_object() {
        out.message(25, |properties| {
            for (name, property) in entries(&schema["properties"]) {
                properties.named(1, name, |out| self::schema(out, property));
            }
        });
    }
    out.extensions(31, schema);
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A message's bytes as they grow.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn string(&mut self, number: u32, text: &str) {
        self.bytes(number, text.as_bytes());
    }

    /// A text, if the value is one.
    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.string(number, text);
        }
    }

    fn texts(&mut self, number: u32, values: &Value) {
        items(values).for_each(|value| self.text(number, value));
    }

    /// A flag, if the value is true.
    fn flag(&mut self, number: u32, value: &Value) {
        if value == &Value::Bool(true) {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    fn message(&mut self, number: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes(number, &inner.0);
    }

    /// An entry of what is a map elsewhere.
    fn named(&mut self, number: u32, name: &str, write: impl FnOnce(&mut Self)) {
        self.message(number, |entry| {
            entry.string(1, name);
            entry.message(2, write);
        });
    }

    fn extensions(&mut self, number: u32, value: &Value) {
        for (name, value) in entries(value).filter(|(name, _)| name.starts_with("x-")) {
            self.named(number, name, |any| any.string(2, &value.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_have_their_numbers() {
        let document = json!({"swagger": "2.0", "info": {}, "definitions": {"A": {"type": "object", "x-k": [1]}}});
        let written = write(&document);
        // swagger, info, paths (empty), definitions.
        assert!(written.starts_with(b"\x0a\x032.0\x12\x00\x42\x00\x4a"), "{written:?}");
        let text = String::from_utf8_lossy(&written);
        assert!(text.contains("\u{6}object") && text.contains("x-k") && text.contains("[1]"), "{text}");
    }
}
