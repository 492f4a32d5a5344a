//! PATCH with `application/apply-patch+yaml`: server-side apply.
//!
//! The configuration is laid over the object; if there is none, it becomes the object (201).

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use wherry_api::decode::{self, ContentType, Decoded, FieldValidation};
use wherry_api::facts::Schema;
use wherry_api::meta;
use wherry_api::status::{Reason, Status};
use wherry_api::strategy::Sub;

use super::create::{self, Created};
use super::mutate::{Mutation, answer};
use crate::engine::Call;
use crate::ownership::{self, Manager};
use crate::{input, objects, respond};

pub(crate) async fn run(call: &Call, body: &[u8], sub: Sub, subresource: &str) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let query = call.query();
    let (dry_run, force) = (query.dry_run()?, query.flag("force"));
    let name = ownership::manager(call, &query)?;
    let mut warnings = Vec::new();
    let config = configuration(call, body, &call.resource.schema, input::field_validation(&query)?, &mut warnings)?;
    let manager = Manager { name: &name, sub, subresource };
    if sub == Sub::Main
        && call.engine.store.get(&call.key()).is_none()
        && let Some(created) = create(call, &config, manager, dry_run, &mut warnings).await?
    {
        let mut response = match created {
            Created::Stored(entry) => objects::entry_response(call, accepted, StatusCode::CREATED, &entry)?,
            Created::DryRun(object) => objects::tree_response(call, accepted, StatusCode::CREATED, object)?,
        };
        respond::warn(&mut response, &warnings);
        return Ok(response);
    }
    let mutation = Mutation { call, sub, subresource, dry_run, manager: None };
    let outcome =
        mutation.run(&mut warnings, |current, _| ownership::apply(call, current, &config, manager, force)).await?;
    answer(call, accepted, outcome, &warnings)
}

/// Makes the object; `None` if somebody else just did.
async fn create(
    call: &Call,
    config: &Value,
    manager: Manager<'_>,
    dry_run: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<Created>, Status> {
    let uid = meta::uid(config);
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Status::conflict(&call.group_resource(), call.name(), why));
    }
    let mut object = ownership::apply(call, &call.resource.schema.empty(), config, manager, true)?;
    input::check_name(call, &mut object)?;
    match create::create(call, object, None, dry_run, warnings).await {
        Ok(created) => Ok(Some(created)),
        Err(status) if status.reason == Reason::AlreadyExists => Ok(None),
        Err(status) => Err(status),
    }
}

/// The configuration in a body, which must be one of `schema` and about the object of the path.
pub(crate) fn configuration(
    call: &Call,
    body: &[u8],
    schema: &Schema,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Value, Status> {
    let Decoded { object: mut config, warnings: duplicates } = decode::decode_untyped(body, ContentType::Yaml)
        .map_err(|status| Status { message: format!("error decoding YAML: {}", status.message), ..status })?;
    if !config.is_object() {
        return Err(Status::bad_request("error decoding YAML: the configuration is no object"));
    }
    let (group, version) = meta::split_api_version(meta::api_version(&config));
    let kind = format!("{}/{version}, Kind={}", group, meta::kind(&config));
    if meta::api_version(&config) != schema.api_version() || meta::kind(&config) != schema.kind() {
        return Err(Status::bad_request(format!("invalid object type: {kind}")));
    }
    if config["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    fits(body, schema, &kind, &config)?;
    if !duplicates.is_empty() {
        let problem = format!("error strict decoding YAML: {}", duplicates.join(", "));
        match validation {
            FieldValidation::Strict => return Err(Status::bad_request(problem)),
            FieldValidation::Warn => warnings.extend(duplicates),
            FieldValidation::Ignore => {}
        }
    }
    if !config["metadata"].is_object() {
        config["metadata"] = json!({});
    }
    for (key, value) in [("name", call.name()), ("namespace", call.namespace())] {
        if config["metadata"].get(key).is_none() && !value.is_empty() {
            meta::set(&mut config, key, value);
        }
    }
    Ok(config)
}

/// What the type does not know is refused whatever `fieldValidation` says: nobody could manage it.
fn fits(body: &[u8], schema: &Schema, kind: &str, config: &Value) -> Result<(), Status> {
    let Decoded { warnings, .. } = decode::decode_as(body, ContentType::Yaml, schema, FieldValidation::Warn)?;
    let unknown: Vec<String> = warnings
        .iter()
        .filter_map(|problem| problem.strip_prefix("unknown field "))
        .map(|field| format!(".{}: field not declared in schema", field.trim_matches('"')))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let name = match (meta::namespace(config), meta::name(config)) {
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    let all = unknown.join("\n");
    let all = if unknown.len() == 1 { all } else { format!("errors:\n  {}", all.replace('\n', "\n  ")) };
    Err(Status::bad_request(format!("failed to create typed patch object ({name}; {kind}): {all}")))
}
