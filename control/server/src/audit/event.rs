//! One event of the log, from what was noted on the way to its JSON.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};
use wherry_api::decode::{self, ContentType, FieldValidation};
use wherry_api::resource::Resource;

use super::policy::Stage;
use crate::User;

/// A body that passed by.
#[derive(Clone)]
pub(super) struct Captured {
    pub(super) bytes: Bytes,
    /// The media type, without parameters.
    pub(super) content: String,
}

/// An event on its way to the log.
pub(super) struct Event {
    /// All that was known when the request came.
    pub(super) base: Arc<Value>,
    pub(super) stage: Stage,
    pub(super) at: Timestamp,
    pub(super) impersonated: Option<User>,
    pub(super) annotations: Value,
    /// The answer's code, once there is one.
    pub(super) code: Option<u16>,
    /// The answer, if it says why something failed.
    pub(super) failure: Option<Captured>,
    pub(super) request: Option<Captured>,
    pub(super) response: Option<Captured>,
    /// The row of the path, by which protobuf bodies are read.
    pub(super) resource: Option<Arc<Resource>>,
    pub(super) omit_managed_fields: bool,
}

impl Event {
    /// About how much memory the event holds beside what it shares.
    pub(super) fn weight(&self) -> usize {
        let bodies = [&self.failure, &self.request, &self.response].into_iter().flatten();
        512 + bodies.map(|body| body.bytes.len()).sum::<usize>()
    }

    /// The event as it is written.
    pub(super) fn into_value(self) -> Value {
        let mut event = Value::clone(&self.base);
        event["stage"] = format!("{:?}", self.stage).into();
        event["stageTimestamp"] = time(self.at).into();
        if let Some(user) = &self.impersonated {
            event["impersonatedUser"] = of_user(user);
        }
        if let Some(code) = self.code {
            event["responseStatus"] = self.status(code);
        }
        for (key, body) in [("requestObject", &self.request), ("responseObject", &self.response)] {
            if let Some(object) = body.as_ref().and_then(|body| self.object(body)) {
                event[key] = object;
            }
        }
        if self.annotations.as_object().is_some_and(|map| !map.is_empty()) {
            event["annotations"] = self.annotations;
        }
        event
    }

    fn status(&self, code: u16) -> Value {
        let mut status = json!({"metadata": {}, "code": code});
        let said: Option<Value> = self.failure.as_ref().and_then(|body| serde_json::from_slice(&body.bytes).ok());
        if let Some(said) = said.filter(|said| said["kind"] == "Status") {
            for key in ["status", "message", "reason", "details"] {
                if !said[key].is_null() {
                    status[key] = said[key].clone();
                }
            }
        }
        status
    }

    /// A body as a tree; none if it is not of a form that has one.
    fn object(&self, body: &Captured) -> Option<Value> {
        if body.bytes.is_empty() {
            return None;
        }
        let mut object = match body.content.as_str() {
            "application/yaml" | "application/x-yaml" | "text/yaml" => serde_yaml::from_slice(&body.bytes).ok()?,
            "application/apply-patch+yaml" => serde_yaml::from_slice(&body.bytes).ok()?,
            "application/vnd.kubernetes.protobuf" => {
                let resource = self.resource.as_deref()?;
                let decoded =
                    decode::decode(&body.bytes, ContentType::Protobuf, resource, FieldValidation::Ignore).ok()?;
                decoded.object
            }
            _ => serde_json::from_slice(&body.bytes).ok()?,
        };
        if self.omit_managed_fields {
            drop_managed_fields(&mut object);
            object["items"].as_array_mut().into_iter().flatten().for_each(drop_managed_fields);
            if object["items"].is_null()
                && let Some(map) = object.as_object_mut()
            {
                map.remove("items");
            }
        }
        Some(object)
    }
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// A user as events show it.
pub(super) fn of_user(user: &User) -> Value {
    let mut shown = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        shown["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        shown["extra"] = json!(user.extra);
    }
    shown
}

/// A time with its microseconds.
pub(super) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_become_trees_without_managed_fields() {
        let body = |content: &str, text: &str| {
            Some(Captured { bytes: Bytes::from(text.to_owned()), content: content.to_owned() })
        };
        let event = Event {
            base: Arc::new(json!({"kind": "Event"})),
            stage: Stage::ResponseComplete,
            at: Timestamp::UNIX_EPOCH,
            impersonated: Some(User::new("jane", ["dev"])),
            annotations: json!({"a": "b"}),
            code: Some(403),
            failure: body("application/json", r#"{"kind": "Status", "reason": "Forbidden", "message": "no"}"#),
            request: body("application/yaml", "metadata: {name: a, managedFields: [1]}"),
            response: body("application/json", r#"{"items": [{"metadata": {"managedFields": []}}]}"#),
            resource: None,
            omit_managed_fields: true,
        };
        assert_eq!(
            event.into_value(),
            json!({
                "kind": "Event", "stage": "ResponseComplete", "stageTimestamp": "1970-01-01T00:00:00.000000Z",
                "impersonatedUser": {"username": "jane", "groups": ["dev", "system:authenticated"]},
                "responseStatus": {"metadata": {}, "code": 403, "reason": "Forbidden", "message": "no"},
                "requestObject": {"metadata": {"name": "a"}},
                "responseObject": {"items": [{"metadata": {}}]},
                "annotations": {"a": "b"},
            })
        );
    }
}
