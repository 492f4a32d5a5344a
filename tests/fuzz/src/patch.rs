//! Patches of every type against objects of every kind.

use wherry_api::decode::{ContentType, Decoded, FieldValidation, decode};
use wherry_api::patch::{PatchType, patch};

use crate::body::write;
use crate::{header, pick, resource};

const TYPES: [(&str, PatchType); 3] =
    [("json", PatchType::Json), ("merge", PatchType::Merge), ("strategic", PatchType::Strategic)];

/// `RESOURCE TYPE`, a line with the object as JSON, then the patch. The result must be an object that can be written.
pub(crate) fn run(input: &[u8]) {
    let (words, rest) = header(input);
    let resource = resource(words[0]);
    let word = words.get(1).copied().unwrap_or_default();
    let (_, kind) = pick(&TYPES, word, |(name, _)| *name == word);
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let Ok(Decoded { object, .. }) = decode(&rest[..end], ContentType::Json, &resource, FieldValidation::Ignore) else {
        return;
    };
    let body = rest.get(end + 1..).unwrap_or_default();
    if let Ok(patched) = patch(*kind, &resource.schema, &object, body, FieldValidation::Warn) {
        write(&resource, patched.object);
    }
}
