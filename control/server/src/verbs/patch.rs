//! PATCH: a change of the object as it is when the change is made.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;
use wherry_api::decode::{Decoded, FieldValidation};
use wherry_api::facts::Schema;
use wherry_api::meta;
use wherry_api::patch::{self, PatchType};
use wherry_api::status::Status;
use wherry_api::strategy::Sub;

use super::apply;
use super::mutate::{Mutation, answer};
use crate::engine::{Call, read_body};
use crate::{input, negotiate, objects, ownership};

pub(crate) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    change(call, body, Sub::Main, "").await
}

/// Patches what the endpoint `sub` may change.
pub(crate) async fn change(call: &Call, body: Body, sub: Sub, subresource: &str) -> Result<Response, Status> {
    let accepted = objects::negotiate(call)?;
    let query = call.query();
    let dry_run = query.dry_run()?;
    let validation = input::field_validation(&query)?;
    let patch = Patch::read(call, body).await?;
    if patch.kind == PatchType::Apply {
        return apply::run(call, &patch.body, sub, subresource).await;
    }
    let manager = ownership::manager(call, &query)?;
    let mutation = Mutation { call, sub, subresource, dry_run, manager: Some(&manager) };
    let mut warnings = Vec::new();
    let outcome = mutation
        .run(&mut warnings, |current, warnings| {
            let mut patched = patch.apply(&call.resource.schema, current, validation, warnings)?;
            // The name cannot be patched away; a changed one is refused below.
            if meta::name(&patched).is_empty() {
                meta::set(&mut patched, "name", call.name());
            }
            Ok(patched)
        })
        .await?;
    answer(call, accepted, outcome, &warnings)
}

/// A patch as it came.
pub(crate) struct Patch {
    pub(crate) kind: PatchType,
    pub(crate) body: Bytes,
}

impl Patch {
    /// Reads the patch; 415 for what is none.
    pub(crate) async fn read(call: &Call, body: Body) -> Result<Self, Status> {
        let kind = PatchType::parse(negotiate::content_type(&call.headers))
            .ok_or_else(|| Status::unsupported_media_type(PatchType::MEDIA_TYPES))?;
        ownership::check_patch(&call.query(), kind)?;
        Ok(Self { kind, body: read_body(body).await? })
    }

    /// The object that `current` becomes, checked against its type like one that was sent.
    pub(crate) fn apply(
        &self,
        schema: &Schema,
        current: &Value,
        validation: FieldValidation,
        warnings: &mut Vec<String>,
    ) -> Result<Value, Status> {
        let Decoded { object, warnings: found } = patch::patch(self.kind, schema, current, &self.body, validation)?;
        warnings.extend(found);
        Ok(object)
    }
}
