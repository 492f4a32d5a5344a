//! PUT: the object as it should be, of the resource itself or of its status.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use wherry_api::meta;
use wherry_api::status::Status;
use wherry_api::strategy::Sub;

use super::create::{self, Created};
use super::mutate::{Mutation, answer};
use crate::engine::{Call, read_body};
use crate::input::{self, Decoded};
use crate::{objects, ownership, respond};

pub(crate) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    replace(call, body, Sub::Main, "").await
}

/// Replaces what the endpoint `sub` may change.
pub(crate) async fn replace(call: &Call, body: Body, sub: Sub, subresource: &str) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let query = call.query();
    let dry_run = query.dry_run()?;
    let validation = input::field_validation(&query)?;
    let manager = ownership::manager(call, &query)?;
    let bytes = read_body(body).await?;
    let Decoded { mut object, mut warnings } = input::object(call, &bytes, validation)?;
    input::check_name(call, &mut object)?;
    if sub == Sub::Main && creates(call, &object) {
        let created = create::create(call, object, Some(&manager), dry_run, &mut warnings).await?;
        let mut response = match created {
            Created::Stored(entry) => objects::entry_response(call, accepted, StatusCode::CREATED, &entry)?,
            Created::DryRun(object) => objects::tree_response(call, accepted, StatusCode::CREATED, object)?,
        };
        respond::warn(&mut response, &warnings);
        return Ok(response);
    }
    let mutation = Mutation { call, sub, subresource, dry_run, manager: Some(&manager) };
    let outcome = mutation.run(&mut warnings, |_, _| Ok(object.clone())).await?;
    answer(call, accepted, outcome, &warnings)
}

/// Some resources can be made by PUT; who names a version or uid means an object that exists.
fn creates(call: &Call, object: &serde_json::Value) -> bool {
    call.stored.strategy.allow_create_on_update
        && meta::resource_version(object).is_empty()
        && meta::uid(object).is_empty()
        && call.engine.store.get(&call.key()).is_none()
}
