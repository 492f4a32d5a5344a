//! JSON patch (RFC 6902), with bounds on what a small patch can make of an object.

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde::Deserialize as _;
use serde_json::Value;

use super::rejected;
use crate::decode::BODY_LIMIT;
use crate::status::{Reason, Status};

/// As many operations as upstream allows.
pub const MAX_OPERATIONS: usize = 10_000;
/// As deep as the parser lets an object be.
const MAX_DEPTH: usize = 127;

/// Applies `patch`, a list of operations, to a copy of `current`.
pub fn json_patch(current: &Value, patch: &Value) -> Result<Value, Status> {
    if let Some(count) = patch.as_array().map(Vec::len).filter(|count| *count > MAX_OPERATIONS) {
        return Err(Status::new(
            413,
            Reason::RequestEntityTooLarge,
            format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
            ),
        ));
    }
    // What is a list of objects is a patch, if one that cannot be applied.
    let well_formed = patch.as_array().is_some_and(|operations| operations.iter().all(Value::is_object));
    let operations: Vec<PatchOperation> = Vec::deserialize(patch).map_err(|e| match well_formed {
        true => super::rejected(e),
        false => Status::bad_request(format!("error decoding patch: {e}")),
    })?;
    let mut object = current.clone();
    let mut copied = 0;
    for operation in &operations {
        copied += check(&object, operation)?;
        if copied > BODY_LIMIT {
            return Err(rejected("the copies that the patch makes are too large"));
        }
        json_patch::patch_unsafe(&mut object, std::slice::from_ref(operation)).map_err(rejected)?;
    }
    Ok(object)
}

/// Refuses an operation that would make the object too deep; gives the size of what it copies.
fn check(object: &Value, operation: &PatchOperation) -> Result<usize, Status> {
    let (path, value, copies) = match operation {
        PatchOperation::Add(op) => (&op.path, Some(&op.value), false),
        PatchOperation::Replace(op) => (&op.path, Some(&op.value), false),
        PatchOperation::Copy(op) => (&op.path, resolve(object, &op.from), true),
        PatchOperation::Move(op) => (&op.path, resolve(object, &op.from), false),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(0),
    };
    // What cannot be resolved fails when the operation is applied.
    let Some(value) = value else { return Ok(0) };
    let (depth, size) = measure(value);
    if path.count() + depth > MAX_DEPTH {
        return Err(rejected(format_args!("the patch makes the object deeper than {MAX_DEPTH} levels")));
    }
    Ok(if copies { size } else { 0 })
}

fn resolve<'a>(object: &'a Value, path: &Pointer) -> Option<&'a Value> {
    object.pointer(path.as_str())
}

/// The depth of a value and about the size of its JSON.
fn measure(value: &Value) -> (usize, usize) {
    let children = |parts: &mut dyn Iterator<Item = (usize, usize)>| {
        parts.fold((0, 2), |(depth, size), (d, s)| (depth.max(d), size + s + 1))
    };
    match value {
        Value::Array(items) => {
            let (depth, size) = children(&mut items.iter().map(measure));
            (depth + 1, size)
        }
        Value::Object(map) => {
            let (depth, size) = children(&mut map.iter().map(|(key, value)| {
                let (depth, size) = measure(value);
                (depth, size + key.len() + 3)
            }));
            (depth + 1, size)
        }
        Value::String(text) => (0, text.len() + 2),
        _ => (0, 8),
    }
}
