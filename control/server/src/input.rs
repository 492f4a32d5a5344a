//! From a request's body to an object that belongs where the path says.

use serde_json::Value;
pub(crate) use wherry_api::decode::Decoded;
use wherry_api::decode::{self, FieldValidation};
use wherry_api::facts::Schema;
use wherry_api::field::{FieldError, Path};
use wherry_api::meta;
use wherry_api::resource::Resource;
use wherry_api::status::Status;

use crate::engine::Call;
use crate::negotiate::body_format;
use crate::options::{Query, invalid};

/// `fieldValidation`; what unknown and duplicate fields lead to.
pub(crate) fn field_validation(query: &Query<'_>) -> Result<FieldValidation, Status> {
    let text = query.get("fieldValidation").unwrap_or_default();
    FieldValidation::parse(text).ok_or_else(|| {
        let supported = ["Ignore", "Strict", "Warn"];
        invalid("CreateOptions", FieldError::not_supported(&Path::new("fieldValidation"), text, &supported))
    })
}

/// The object in `body`, of the kind that the path is about.
pub(crate) fn object(call: &Call, body: &[u8], validation: FieldValidation) -> Result<Decoded, Status> {
    decode::decode(body, body_format(&call.headers)?, &call.resource, validation)
}

/// A document of the machinery in `body` (delete options, a binding, ...); what is unknown in it is dropped.
pub(crate) fn document(call: &Call, body: &[u8], schema: Option<Schema>) -> Result<Value, Status> {
    let schema = schema.ok_or_else(|| Status::internal("the type of the request's body is not known"))?;
    Ok(decode::decode_as(body, body_format(&call.headers)?, &schema, FieldValidation::Ignore)?.object)
}

/// The object's namespace is the path's, said or not.
pub(crate) fn check_namespace(call: &Call, object: &mut Value) -> Result<(), Status> {
    let (in_path, in_body) = (call.namespace(), meta::namespace(object));
    if in_path == in_body {
        return Ok(());
    }
    if !in_body.is_empty() && !in_path.is_empty() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let in_path = in_path.to_owned();
    meta::set(object, "namespace", &in_path);
    Ok(())
}

/// The object's name is the path's.
pub(crate) fn check_name(call: &Call, object: &mut Value) -> Result<(), Status> {
    let (in_path, in_body) = (call.name(), meta::name(object));
    if in_path == in_body {
        return Ok(());
    }
    if in_body.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    Err(Status::bad_request(format!(
        "the name of the object ({in_body}) does not match the name on the URL ({in_path})"
    )))
}

/// Whether writes of this resource take cluster IPs and node ports.
pub(crate) fn allocates(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

/// From the served version to the stored one.
pub(crate) fn to_storage(call: &Call, mut object: Value) -> Value {
    call.resource.to_storage(&mut object);
    object
}

/// From the stored version to the served one.
pub(crate) fn from_storage(call: &Call, mut object: Value) -> Value {
    call.resource.from_storage(&mut object);
    object
}
