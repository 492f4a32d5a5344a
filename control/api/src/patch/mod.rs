//! Patches: JSON patch, merge patch, strategic merge patch.
//!
//! [`patch`] is the whole way: parse, apply to a copy, check the result against the type. Server-side apply is not a
//! function of object and patch alone and lives elsewhere.
//!
//! Guarantees: the object is unchanged on failure; time and memory are bounded (operations, copies and depth of a JSON
//! patch are limited); the result has upstream's form.

use serde_json::Value;

use crate::decode::{self, ContentType, Decoded, FieldValidation, Misfit};
use crate::facts::Schema;
use crate::field::{FieldError, Path};
use crate::status::{Reason, Status};

mod json;
mod merge;
mod order;
mod strategic;

pub use json::{MAX_OPERATIONS, json_patch};
pub use merge::merge_patch;
pub use strategic::strategic_merge;

/// The kind of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own: lists are merged by key.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchType {
    /// All media types, for the 415 message.
    pub const MEDIA_TYPES: &[&str] = &[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];

    /// By media type, without parameters.
    pub fn parse(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// Applies the patch in `body` to `current` and checks the result. `Apply` is refused.
pub fn patch(
    kind: PatchType,
    schema: &Schema,
    current: &Value,
    body: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let Decoded { object: patch, warnings: mut problems } = decode::decode_untyped(body, ContentType::Json)?;
    let patched = match kind {
        PatchType::Json => json_patch(current, &patch)?,
        PatchType::Merge => merge_patch(current, &patch),
        PatchType::Strategic => strategic_merge(schema, current, &patch)?,
        PatchType::Apply => {
            return Err(Status::unsupported_media_type(&PatchType::MEDIA_TYPES[..3]));
        }
    };
    // As upstream, the message shows what was checked: the patch if it was merged by type, else its result.
    let shown = if kind == PatchType::Strategic { patch } else { patched.clone() };
    let mut decoded = decode::conform(patched, schema).map_err(|misfit| match misfit {
        Misfit::Type(why) => unfit(&shown, why),
        Misfit::Identity(status) => status,
    })?;
    problems.append(&mut decoded.warnings);
    match validation {
        FieldValidation::Strict if !problems.is_empty() => Err(unfit(&shown, decode::strict_text(&problems))),
        FieldValidation::Warn => Ok(Decoded { warnings: problems, ..decoded }),
        FieldValidation::Strict | FieldValidation::Ignore => Ok(decoded),
    }
}

/// 422: the result of the patch is no object of the type.
fn unfit(shown: &Value, why: String) -> Status {
    Status::invalid("", "", "", &[FieldError::invalid(&Path::new("patch"), shown.to_string(), why)])
}

/// 422: the patch is well-formed and does not fit the object.
fn rejected(why: impl std::fmt::Display) -> Status {
    Status::new(422, Reason::Invalid, format!("the server rejected our request due to an error in our request: {why}"))
}

#[cfg(test)]
mod tests;
