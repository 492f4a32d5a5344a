//! Objects: JSON, YAML and protobuf, through all that a write does to them.

use wherry_api::decode::{ContentType, Decoded, FieldValidation, decode};
use wherry_api::encode::Encoded;
use wherry_api::resource::{Resource, Verb};
use wherry_api::strategy::Sub;

use crate::{header, pick, resource};

const FORMATS: [(&str, ContentType); 3] =
    [("json", ContentType::Json), ("yaml", ContentType::Yaml), ("protobuf", ContentType::Protobuf)];

/// `RESOURCE FORMAT`, then the body. What decodes must survive its own encoding, and no hook may fail on it.
pub(crate) fn run(input: &[u8]) {
    let (words, body) = header(input);
    let resource = resource(words[0]);
    let format = words.get(1).copied().unwrap_or_default();
    let (_, format) = pick(&FORMATS, format, |(name, _)| *name == format);
    let Ok(Decoded { object, .. }) = decode(body, *format, &resource, FieldValidation::Warn) else {
        return;
    };
    let again = decode(object.to_string().as_bytes(), ContentType::Json, &resource, FieldValidation::Strict);
    assert_eq!(again.map(|again| again.object), Ok(object.clone()), "what was decoded does not decode to itself");
    write(&resource, object);
}

/// What the server does with a new object, and with one that replaces it.
pub(crate) fn write(resource: &Resource, mut object: serde_json::Value) {
    let strategy = resource.strategy;
    strategy.default(&mut object);
    let defaulted = object.clone();
    strategy.default(&mut object);
    assert_eq!(object, defaulted, "defaults are not idempotent");
    strategy.prepare_create(&mut object);
    let valid = strategy.validate(&object).is_empty();
    strategy.warnings(&object);
    for sub in [Sub::Main, Sub::Status, Sub::Scale, Sub::Other] {
        let mut new = defaulted.clone();
        strategy.prepare_update(&mut new, &object, sub);
        strategy.validate_update(&new, &object, sub);
    }
    assert_eq!(strategy.row(&object, jiff::Timestamp::UNIX_EPOCH).len(), strategy.columns.len());
    resource.attributes(&object);
    strategy.grace(&object, None);
    resource.to_storage(&mut object);
    resource.from_storage(&mut object);
    // Reviews are answered and never stored.
    if valid && resource.allows(Verb::Get) {
        assert_eq!(Encoded::new(&object).err(), None, "a valid object cannot be stored");
    }
}
