//! From bytes to a checked tree, in one pass.
//!
//! The parser's events are led through the facts about the type: unknown and duplicate fields, wrong types and
//! malformed scalars are found while the tree is built, and the tree comes out in the form in which upstream would
//! write it (empty optional values left out, quantities and times canonical, structs held by value always there).
//!
//! Guarantees: the depth is limited to 127, the time and memory are linear in the body (YAML aliases included: the
//! parser bounds their repetition); nothing that the type does not know is in the result; the last duplicate wins.

use serde::de::DeserializeSeed;
use serde_json::Value;

use crate::facts::Schema;
use crate::field::quote;
use crate::meta;
use crate::resource::Resource;
use crate::status::Status;

mod context;
mod protobuf;
mod scalar;
mod untyped;
mod visit;

use context::Context;
pub use scalar::duration_nanos;

/// The largest body that is read: 3 MiB, as upstream.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// What to do about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Refuse the request.
    Strict,
    /// Drop them and say so.
    #[default]
    Warn,
    /// Drop them.
    Ignore,
}

impl FieldValidation {
    /// From the query parameter; empty is the default.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            "Ignore" => Some(Self::Ignore),
            _ => None,
        }
    }
}

/// A checked object.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, in upstream's form.
    pub object: Value,
    /// For the client, when unknown or duplicate fields only warn.
    pub warnings: Vec<String>,
}

/// Reads an object of `resource`.
pub fn decode(
    bytes: &[u8],
    content: ContentType,
    resource: &Resource,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    decode_as(bytes, content, &resource.schema, validation)
}

/// Reads an object of any known type, such as the body of a subresource or `DeleteOptions`.
pub fn decode_as(
    bytes: &[u8],
    content: ContentType,
    schema: &Schema,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if bytes.len() > BODY_LIMIT {
        return Err(Status::too_large(BODY_LIMIT));
    }
    let mut context = Context::new(schema.facts());
    let result = match content {
        ContentType::Json => {
            let mut parser = serde_json::Deserializer::from_slice(bytes);
            context
                .root(schema.root())
                .deserialize(&mut parser)
                .and_then(|object| parser.end().map(|()| object))
                .map_err(|e| e.to_string())
        }
        ContentType::Yaml => context
            .root(schema.root())
            .deserialize(serde_yaml::Deserializer::from_slice(bytes))
            .map_err(|e| e.to_string()),
        ContentType::Protobuf => protobuf::read(bytes, schema).map_err(|e| e.to_string()).and_then(|tree| {
            let result = context.root(schema.root()).deserialize(tree);
            result.map_err(|e: serde_json::Error| e.to_string())
        }),
    };
    finish(context, result, content, schema, validation)
}

/// Why a tree does not become an object of its type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Misfit {
    /// A field has the wrong type.
    Type(String),
    /// It says another `apiVersion` or `kind`.
    Identity(Status),
}

/// Checks a tree that is already there, such as the result of a patch, and brings it into upstream's form. Unknown
/// fields are dropped and named among the warnings.
pub(crate) fn conform(object: Value, schema: &Schema) -> Result<Decoded, Misfit> {
    let mut context = Context::new(schema.facts());
    let result = context.root(schema.root()).deserialize(object);
    let mut object = match (result, context.problem) {
        (_, Some(problem)) => return Err(Misfit::Type(problem)),
        (Err(error), None) => return Err(Misfit::Type(serde_json::Error::to_string(&error))),
        (Ok(None), None) => return Err(Misfit::Type("null is no object".to_owned())),
        (Ok(Some(object)), None) => object,
    };
    identify(&mut object, schema).map_err(Misfit::Identity)?;
    Ok(Decoded { object, warnings: context.strict })
}

/// As [`decode`], for a tree that the server itself put together. 400 if it is none of the type.
pub fn conformed(object: Value, schema: &Schema) -> Result<Value, Status> {
    conform(object, schema).map(|decoded| decoded.object).map_err(|misfit| match misfit {
        Misfit::Type(problem) => cannot_handle(schema, &problem),
        Misfit::Identity(status) => status,
    })
}

/// Parses a patch or another body without a type: any JSON or YAML value, and the duplicate fields in it.
pub fn decode_untyped(bytes: &[u8], content: ContentType) -> Result<Decoded, Status> {
    if bytes.len() > BODY_LIMIT {
        return Err(Status::too_large(BODY_LIMIT));
    }
    let facts = crate::facts::Facts::builtin();
    let mut context = Context::new(facts);
    let result = match content {
        ContentType::Json => {
            let mut parser = serde_json::Deserializer::from_slice(bytes);
            untyped::Untyped(&mut context)
                .deserialize(&mut parser)
                .and_then(|object| parser.end().map(|()| object))
                .map_err(|e| e.to_string())
        }
        ContentType::Yaml => untyped::Untyped(&mut context)
            .deserialize(serde_yaml::Deserializer::from_slice(bytes))
            .map_err(|e| e.to_string()),
        // Without a type its fields have no names.
        ContentType::Protobuf => Err("a body without a type cannot be protobuf".to_owned()),
    };
    let object =
        result.map_err(|e| Status::bad_request(format!("{} parse error: {e}", content.name())))?.unwrap_or_default();
    Ok(Decoded { object, warnings: context.strict })
}

impl ContentType {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Protobuf => "protobuf",
        }
    }
}

/// How unknown and duplicate fields are named in a refusal.
pub(crate) fn strict_text(problems: &[String]) -> String {
    format!("strict decoding error: {}", problems.join(", "))
}

/// The refusal of unknown or duplicate fields.
fn strict_error(schema: &Schema, problems: &[String]) -> Status {
    cannot_handle(schema, &strict_text(problems))
}

fn cannot_handle(schema: &Schema, why: &str) -> Status {
    let (_, version) = meta::split_api_version(schema.api_version());
    let kind = schema.kind();
    Status::bad_request(format!("{kind} in version {} cannot be handled as a {kind}: {why}", quote(version)))
}

fn finish(
    context: Context<'_>,
    result: Result<Option<Value>, String>,
    content: ContentType,
    schema: &Schema,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let Context { problem, strict, .. } = context;
    let mut object = match (result, problem) {
        (_, Some(problem)) => return Err(cannot_handle(schema, &problem)),
        (Ok(Some(object @ Value::Object(_))), None) => object,
        (Ok(_), None) => return Err(cannot_handle(schema, "unexpected end of JSON input")),
        (Err(syntax), None) => {
            return Err(Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; {} parse error: {syntax}",
                schema.kind(),
                content.name(),
            )));
        }
    };
    identify(&mut object, schema)?;
    match validation {
        FieldValidation::Strict if !strict.is_empty() => Err(strict_error(schema, &strict)),
        FieldValidation::Warn => Ok(Decoded { object, warnings: strict }),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Decoded { object, warnings: Vec::new() }),
    }
}

/// The object must say the endpoint's `apiVersion` and `kind`, or nothing.
fn identify(object: &mut Value, schema: &Schema) -> Result<(), Status> {
    if schema.api_version().is_empty() {
        return Ok(());
    }
    let (kind, api_version) = (meta::kind(object), meta::api_version(object));
    if !kind.is_empty() && kind != schema.kind() {
        let (_, version) = meta::split_api_version(api_version);
        return Err(Status::bad_request(format!(
            "{kind} in version {} cannot be handled as a {}: the kind in the data does not match the expected kind",
            quote(version),
            schema.kind(),
        )));
    }
    if !api_version.is_empty() && api_version != schema.api_version() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            schema.api_version(),
        )));
    }
    object["kind"] = schema.kind().into();
    object["apiVersion"] = schema.api_version().into();
    Ok(())
}

#[cfg(test)]
mod tests;
