//! May they: SelfSubjectAccessReview, SubjectAccessReview and LocalSubjectAccessReview.
//!
//! The question is checked and put to the authorizer like a request. A selector in it narrows what is asked; what of it cannot
//! be read is left out, which only widens the question, and told as an evaluation error.

use serde_json::{Value, json};
use wherry_api::field::{FieldError, Path};
use wherry_api::selector::{FieldRequirement, FieldSelector, LabelSelector, Operator, Requirement};
use wherry_api::status::Status;

use crate::User;
use crate::engine::Call;
use crate::layers::authorize::{Attributes, Decision};

/// The answer to the question in `review` about `user`.
pub(super) fn answer(call: &Call, user: &User, review: &Value) -> Result<Value, Status> {
    let errors = check(call, review);
    if !errors.is_empty() {
        return Err(Status::invalid(&call.resource.group, &call.resource.kind, "", &errors));
    }
    let spec = &review["spec"];
    let is_resource = spec["resourceAttributes"].is_object();
    let asked = &spec[if is_resource { "resourceAttributes" } else { "nonResourceAttributes" }];
    let text = |key: &str| asked[key].as_str().unwrap_or_default();
    let fields = field_selector(&asked["fieldSelector"]);
    let selector = FieldSelector::of(fields.requirements.clone()).to_string();
    let attributes = Attributes {
        is_resource,
        verb: text("verb"),
        group: text("group"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        path: text("path"),
        fields: &selector,
    };
    let decision = call.engine.authorizer.authorize(user, &attributes);
    let mut status = json!({"allowed": decision.is_allowed()});
    if matches!(decision, Decision::Deny { .. }) {
        status["denied"] = true.into();
    }
    let (Decision::Allow { reason } | Decision::Deny { reason } | Decision::NoOpinion { reason }) = decision;
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    let ignored = [fields.ignored("fieldSelector"), label_selector(&asked["labelSelector"]).ignored("labelSelector")];
    let ignored: Vec<String> = ignored.into_iter().flatten().collect();
    if !ignored.is_empty() {
        status["evaluationError"] = ignored.join("; ").into();
    }
    Ok(status)
}

/// What is wrong with a question.
fn check(call: &Call, review: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = Path::new("spec");
    let spec = &review["spec"];
    let (objects, paths) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if objects.is_object() && paths.is_object() {
        let detail = "cannot be specified in combination with resourceAttributes";
        errors.push(FieldError::invalid(&path.child("nonResourceAttributes"), paths.clone(), detail));
    }
    if !objects.is_object() && !paths.is_object() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid(&path.child("resourceAttributes"), Value::Null, detail));
    }
    let is_own = call.resource.kind == "SelfSubjectAccessReview";
    let named = |key: &str| spec[key].as_str().is_some_and(|text| !text.is_empty());
    if !is_own && !named("user") && spec["groups"].as_array().is_none_or(Vec::is_empty) {
        let detail = "at least one of user or group must be specified";
        errors.push(FieldError::invalid(&path.child("user"), "", detail));
    }
    let within = path.child("resourceAttributes");
    check_selector(&objects["fieldSelector"], &within.child("fieldSelector"), check_field_key, &mut errors);
    check_selector(&objects["labelSelector"], &within.child("labelSelector"), check_label_key, &mut errors);
    // What clients send of metadata is empty; fields that hold nothing do not count.
    let holds = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    let local = call.resource.namespaced;
    let other = |key: &str| key != "managedFields" && !(local && key == "namespace");
    if review["metadata"].as_object().is_some_and(|map| map.iter().any(|(key, value)| other(key) && holds(value))) {
        let detail = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid(&Path::new("metadata"), review["metadata"].clone(), detail));
    }
    if local {
        let asked = objects["namespace"].as_str().unwrap_or_default();
        if objects.is_object() && asked != call.namespace() {
            errors.push(FieldError::invalid(&within.child("namespace"), asked, "must match metadata.namespace"));
        }
        if paths.is_object() {
            let detail = "disallowed on this kind of request";
            errors.push(FieldError::invalid(&path.child("nonResourceAttributes"), paths.clone(), detail));
        }
    }
    errors
}

fn check_selector(
    selector: &Value,
    path: &Path,
    check_key: fn(&Value, &Path, &mut Vec<FieldError>),
    errors: &mut Vec<FieldError>,
) {
    if !selector.is_object() {
        return;
    }
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    let requirements = items(&selector["requirements"]);
    if !raw.is_empty() && !requirements.is_empty() {
        let detail = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(&path.child("rawSelector"), raw, detail));
    }
    if raw.is_empty() && requirements.is_empty() {
        let detail = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(&path.child("requirements"), detail));
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let path = path.child("requirements").index(index);
        let some = !items(&requirement["values"]).is_empty();
        // Operators that are not known are those of newer clients: they are left out of the question.
        match requirement["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if !some => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&path.child("values"), detail));
            }
            "Exists" | "DoesNotExist" if some => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&path.child("values"), detail));
            }
            _ => {}
        }
        check_key(requirement, &path, errors);
    }
}

fn check_field_key(requirement: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    if requirement["key"].as_str().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&path.child("key"), "must be specified"));
    }
}

fn check_label_key(requirement: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    use wherry_api::validation::names;
    let key = requirement["key"].as_str().unwrap_or_default();
    errors.extend(names::qualified(key).into_iter().map(|why| FieldError::invalid(&path.child("key"), key, why)));
    for (index, value) in items(&requirement["values"]).iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        let path = path.child("values").index(index);
        errors.extend(names::label_value(value).into_iter().map(|why| FieldError::invalid(&path, value, why)));
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What could be read of a selector.
struct Read<T> {
    requirements: Vec<T>,
    /// Whether there was something that could not be.
    failed: bool,
}

impl<T> Read<T> {
    /// What is said of the part that could not be read.
    fn ignored(&self, name: &str) -> Option<String> {
        let partially = if self.requirements.is_empty() { "" } else { "partially " };
        self.failed.then(|| format!("spec.resourceAttributes.{name} {partially}ignored due to parse error"))
    }

    /// The requirements of a selector that can be read one by one.
    fn each(selector: &Value, read: impl Fn(&Value) -> Option<T>) -> Self {
        let all = items(&selector["requirements"]);
        let requirements: Vec<T> = all.iter().filter_map(read).collect();
        Self { failed: requirements.len() < all.len(), requirements }
    }
}

fn raw(selector: &Value) -> Option<&str> {
    selector["rawSelector"].as_str().filter(|raw| !raw.is_empty())
}

fn field_selector(selector: &Value) -> Read<FieldRequirement> {
    if let Some(raw) = raw(selector) {
        return match FieldSelector::parse(raw) {
            Ok(selector) => Read { requirements: selector.requirements().to_vec(), failed: false },
            Err(_) => Read { requirements: Vec::new(), failed: true },
        };
    }
    Read::each(selector, |requirement| {
        let [value] = items(&requirement["values"]) else { return None };
        let equal = match requirement["operator"].as_str()? {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        let field = requirement["key"].as_str()?.to_owned();
        Some(FieldRequirement { field, equal, value: value.as_str()?.to_owned() })
    })
}

fn label_selector(selector: &Value) -> Read<Requirement> {
    if let Some(raw) = raw(selector) {
        return match LabelSelector::parse(raw) {
            Ok(selector) => Read { requirements: selector.requirements().to_vec(), failed: false },
            Err(_) => Read { requirements: Vec::new(), failed: true },
        };
    }
    Read::each(selector, |requirement| {
        let operator = match requirement["operator"].as_str()? {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return None,
        };
        let values = items(&requirement["values"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Requirement::new(requirement["key"].as_str()?, operator, values).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_far_as_possible() {
        let read = |selector: Value| {
            let read = field_selector(&selector);
            (FieldSelector::of(read.requirements.clone()).to_string(), read.ignored("fieldSelector"))
        };
        let one = json!({"key": "a", "operator": "In", "values": ["b"]});
        let not = json!({"key": "a", "operator": "NotIn", "values": ["c"]});
        let many = json!({"key": "a", "operator": "In", "values": ["b", "c"]});
        let new = json!({"key": "a", "operator": "Near", "values": ["b"]});
        let whole = "spec.resourceAttributes.fieldSelector ignored due to parse error".to_owned();
        let part = "spec.resourceAttributes.fieldSelector partially ignored due to parse error".to_owned();
        for (selector, fields, error) in [
            (Value::Null, "", None),
            (json!({"rawSelector": "a=b,c!=d"}), "a=b,c!=d", None),
            (json!({"rawSelector": "a"}), "", Some(whole.clone())),
            (json!({"requirements": [one, not]}), "a=b,a!=c", None),
            (json!({"requirements": [one, many]}), "a=b", Some(part)),
            (json!({"requirements": [new]}), "", Some(whole)),
        ] {
            assert_eq!(read(selector.clone()), (fields.to_owned(), error), "{selector}");
        }
        let labels = json!({"requirements": [{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "x"}]});
        assert_eq!(
            label_selector(&labels).ignored("labelSelector").as_deref(),
            Some("spec.resourceAttributes.labelSelector partially ignored due to parse error")
        );
    }
}
