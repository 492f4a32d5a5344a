//! The one error of the API: a `v1` `Status` with HTTP code, reason, message and causes.
//!
//! Texts and codes are upstream's, since clients and people match on them.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::field::FieldError;

/// The text of a conflict of resource versions.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// Why a request failed, for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "Kubernetes' own terms, one for one")]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The reason as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::Expired => "Expired",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// A group and a plural name, printed `pods` or `deployments.apps`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// Empty for core.
    pub group: String,
    /// The plural name.
    pub resource: String,
}

impl GroupResource {
    /// From its two parts.
    pub fn new(group: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// One detail of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cause {
    /// A CamelCase word for machines, such as `FieldValueRequired`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The field's path, if it is about one.
    pub field: String,
}

/// What the failure is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The API group.
    pub group: String,
    /// The kind, or the plural resource name (as upstream has it).
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// What was wrong, one by one.
    pub causes: Vec<Cause>,
    /// When to try again; 0 says nothing.
    pub retry_after_seconds: u32,
}

/// A failed request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// The reason for machines.
    pub reason: Reason,
    /// The message for people.
    pub message: String,
    /// What it is about; boxed to keep `Result`s small.
    pub details: Option<Box<Details>>,
}

impl Status {
    /// A status with no details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(code: u16, reason: Reason, gr: &GroupResource, name: &str, message: String) -> Self {
        Self::new(code, reason, message).with_details(Details {
            name: name.to_owned(),
            group: gr.group.clone(),
            kind: gr.resource.clone(),
            ..Details::default()
        })
    }

    /// The same with `details`.
    #[must_use]
    pub fn with_details(mut self, details: Details) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    /// The same with a hint when to come back (also sent as `Retry-After`).
    #[must_use]
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The same with one cause more.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// 404: no such object.
    pub fn not_found(gr: &GroupResource, name: &str) -> Self {
        Self::about(404, Reason::NotFound, gr, name, format!("{gr} \"{name}\" not found"))
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        Self::new(404, Reason::NotFound, "the server could not find the requested resource")
            .with_details(Details::default())
    }

    /// 404: another version of the resource is served, which is said: old manifests and clients ask for what is gone.
    pub fn not_served_as(plural: &str, asked: &str, served: &str) -> Self {
        let message = format!(
            "the server could not find the requested resource: {plural} are served as {served}, not as {asked}"
        );
        Self::new(404, Reason::NotFound, message).with_details(Details::default())
    }

    /// 409: there is one of this name.
    pub fn already_exists(gr: &GroupResource, name: &str) -> Self {
        Self::about(409, Reason::AlreadyExists, gr, name, format!("{gr} \"{name}\" already exists"))
    }

    /// 409 after every generated name was taken.
    pub fn generate_name_conflict(gr: &GroupResource, name: &str) -> Self {
        let message =
            format!("{gr} \"{name}\" already exists, the server was not able to generate a unique name for the object");
        Self::about(409, Reason::AlreadyExists, gr, name, message).with_retry_after(1)
    }

    /// 409: a precondition does not hold; `detail` is often [`MODIFIED`].
    pub fn conflict(gr: &GroupResource, name: &str, detail: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {gr} \"{name}\": {detail}");
        Self::about(409, Reason::Conflict, gr, name, message)
    }

    /// 422: the object is well-formed and wrong. `kind` is printed `Deployment.apps`.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let causes = errors
            .iter()
            .map(|e| Cause { reason: e.kind.reason().to_owned(), message: e.body(), field: e.path.to_string() })
            .collect();
        let mut texts: Vec<String> = Vec::with_capacity(errors.len());
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let qualified = GroupResource::new(group, kind);
        let message = match texts.as_slice() {
            [] => format!("{qualified} \"{name}\" is invalid"),
            [one] => format!("{qualified} \"{name}\" is invalid: {one}"),
            many => format!("{qualified} \"{name}\" is invalid: [{}]", many.join(", ")),
        };
        Self::new(422, Reason::Invalid, message).with_details(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..Details::default()
        })
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 403: `pods "x" is forbidden: why`; the name may be empty.
    pub fn forbidden(gr: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = match (gr.resource.is_empty(), name) {
            (true, _) => format!("forbidden: {why}"),
            (false, "") => format!("{gr} is forbidden: {why}"),
            (false, name) => format!("{gr} \"{name}\" is forbidden: {why}"),
        };
        Self::about(403, Reason::Forbidden, gr, name, message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 405: `verb` is what the resource does not do.
    pub fn method_not_allowed(gr: &GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{gr}\"");
        Self::about(405, Reason::MethodNotAllowed, gr, "", message)
    }

    /// 406: none of the media types asked for can be produced.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, Reason::NotAcceptable, message)
    }

    /// 415: the body is of a type that cannot be read here.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// 413: the body has more bytes than `limit`.
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(413, Reason::RequestEntityTooLarge, message)
    }

    /// 410: the revision asked for is no longer kept.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 429 with `Retry-After`.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        Self::new(429, Reason::TooManyRequests, message).with_retry_after(seconds)
    }

    /// 504: it took too long.
    pub fn timeout(message: impl fmt::Display) -> Self {
        Self::new(504, Reason::Timeout, format!("Timeout: {message}"))
    }

    /// 504: the client has seen a later revision than this server has.
    pub fn resource_version_too_large(asked: u64, current: u64) -> Self {
        Self::timeout(format_args!("Too large resource version: {asked}, current: {current}"))
            .with_retry_after(1)
            .with_cause(Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            })
    }

    /// 500: our own fault.
    pub fn internal(error: impl fmt::Display) -> Self {
        let error = error.to_string();
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {error}"))
            .with_cause(Cause { message: error, ..Cause::default() })
    }

    /// 503: not now.
    pub fn server_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if self.reason != Reason::Unknown {
            status["reason"] = self.reason.as_str().into();
        }
        if let Some(details) = &self.details {
            status["details"] = details.to_value();
        }
        status
    }

    /// The `Status` of what went well, such as the answer to a delete.
    pub fn success(group: &str, kind: &str, name: &str, uid: &str) -> Value {
        let details = Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            uid: uid.to_owned(),
            ..Details::default()
        };
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_value(),
        })
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)] {
            if !text.is_empty() {
                map.insert(key.to_owned(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut map = Map::new();
                for (key, text) in [("reason", &cause.reason), ("message", &cause.message), ("field", &cause.field)] {
                    if !text.is_empty() {
                        map.insert(key.to_owned(), text.as_str().into());
                    }
                }
                Value::Object(map)
            });
            map.insert("causes".to_owned(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".to_owned(), self.retry_after_seconds.into());
        }
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Path;

    #[test]
    fn texts_are_upstreams() {
        let deployments = GroupResource::new("apps", "deployments");
        assert_eq!(Status::not_found(&deployments, "x").message, "deployments.apps \"x\" not found");
        assert_eq!(
            Status::conflict(&GroupResource::new("", "pods"), "x", MODIFIED).message,
            format!("Operation cannot be fulfilled on pods \"x\": {MODIFIED}")
        );
        let image = Path::new("spec.containers").index(0).child("image");
        let one = [FieldError::required(&image, "")];
        assert_eq!(
            Status::invalid("", "Pod", "x", &one).message,
            "Pod \"x\" is invalid: spec.containers[0].image: Required value"
        );
        let two = [one[0].clone(), one[0].clone(), FieldError::forbidden(&image, "no")];
        let status = Status::invalid("apps", "Deployment", "x", &two);
        assert_eq!(
            status.message,
            "Deployment.apps \"x\" is invalid: [spec.containers[0].image: Required value, spec.containers[0].image: Forbidden: no]"
        );
        assert_eq!(status.to_value()["details"]["causes"][0]["field"], "spec.containers[0].image");
    }

    #[test]
    fn empty_details_stay_an_object() {
        assert_eq!(Status::no_such_path().to_value()["details"], json!({}));
        assert_eq!(
            Status::resource_version_too_large(5, 4).to_value()["details"]["causes"][0]["reason"],
            "ResourceVersionTooLarge"
        );
    }
}
