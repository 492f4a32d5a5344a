//! scale: the number of replicas of whatever has some, as `autoscaling/v1` Scale.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use wherry_api::decode;
use wherry_api::field::{FieldError, Path};
use wherry_api::meta;
use wherry_api::patch::PatchType;
use wherry_api::selector::LabelSelector;
use wherry_api::status::Status;
use wherry_api::strategy::Sub;

use crate::engine::{Call, read_body};
use crate::layers::info::Verb;
use crate::negotiate::{Format, Offers, accept, body_format};
use crate::ownership::{self, Manager};
use crate::verbs::mutate::{Mutation, Outcome};
use crate::verbs::patch::Patch;
use crate::{input, objects, respond, verbs};

pub(super) async fn run(call: &Call, body: Body) -> Result<Response, Status> {
    let accepted = accept(&call.headers, Offers::Documents)?;
    let query = call.query();
    let mut warnings = Vec::new();
    if call.info.verb == Verb::Get {
        let entry = call.engine.store.get(&call.key()).ok_or_else(|| call.not_found())?;
        let scale = of(&objects::tree(&call.resource, &entry)?);
        return respond::value(StatusCode::OK, &scale, accepted.format, &call.headers);
    }
    let validation = input::field_validation(&query)?;
    let manager = ownership::manager(call, &query)?;
    let dry_run = query.dry_run()?;
    let mutation = Mutation { call, sub: Sub::Scale, subresource: "scale", dry_run, manager: Some(&manager) };
    let schema = call.resource.subresource("scale").and_then(|s| s.schema.clone());
    let schema = schema.ok_or_else(Status::no_such_path)?;
    let outcome = if call.info.verb == Verb::Update {
        let content = body_format(&call.headers)?;
        let decoded = decode::decode_as(&read_body(body).await?, content, &schema, validation)?;
        warnings.extend(decoded.warnings);
        let scale = decoded.object;
        mutation.run(&mut warnings, |object, _| apply(call, object, &scale)).await?
    } else {
        let patch = Patch::read(call, body).await?;
        if patch.kind == PatchType::Apply {
            let config = verbs::apply::configuration(call, &patch.body, &schema, validation, &mut warnings)?;
            let config = of_parent(call, &config);
            let manager = Manager { name: &manager, sub: Sub::Scale, subresource: "scale" };
            let (force, applied) = (query.flag("force"), Mutation { manager: None, ..mutation });
            let change = |object: &Value, _: &mut Vec<String>| ownership::apply(call, object, &config, manager, force);
            let outcome = applied.run(&mut warnings, change).await?;
            return answer(call, &outcome, accepted.format, &warnings);
        }
        mutation
            .run(&mut warnings, |object, warnings| {
                let scale = patch.apply(&schema, &of(object), validation, warnings)?;
                apply(call, object, &scale)
            })
            .await?
    };
    answer(call, &outcome, accepted.format, &warnings)
}

fn answer(call: &Call, outcome: &Outcome, format: Format, warnings: &[String]) -> Result<Response, Status> {
    let scale = match outcome {
        Outcome::Stored(entry) => of(&objects::tree(&call.resource, entry)?),
        Outcome::DryRun(object) => of(&input::from_storage(call, object.clone())),
    };
    let mut response = respond::value(StatusCode::OK, &scale, format, &call.headers)?;
    respond::warn(&mut response, warnings);
    Ok(response)
}

/// A Scale's configuration as one of the object that has the replicas.
fn of_parent(call: &Call, scale: &Value) -> Value {
    let mut config = json!({
        "apiVersion": call.resource.api_version(), "kind": call.resource.kind, "metadata": scale["metadata"],
    });
    if let Some(replicas) = scale["spec"].get("replicas") {
        config["spec"] = json!({"replicas": replicas});
    }
    config
}

/// The Scale of `object`.
fn of(object: &Value) -> Value {
    let from = &object["metadata"];
    let mut metadata = json!({});
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = from.get(key) {
            metadata[key] = value.clone();
        }
    }
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)},
    });
    let selector = selector(&object["spec"]["selector"]);
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// A selector as text: of a ReplicationController it is a map, elsewhere a LabelSelector.
fn selector(selector: &Value) -> String {
    let plain = selector.as_object().is_some_and(|map| map.values().all(Value::is_string));
    let parsed = if plain {
        Ok(LabelSelector::from_map(&meta::string_map(Some(selector))))
    } else {
        LabelSelector::from_object(Some(selector))
    };
    parsed.map(|s| s.to_string()).unwrap_or_default()
}

/// `object` with the replicas of `scale`; the scale's version and uid are the object's.
fn apply(call: &Call, object: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    let path = Path::new("spec.replicas");
    if replicas < 0 {
        let error = FieldError::invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(Status::invalid("autoscaling", "Scale", call.name(), &[error]));
    }
    if !meta::name(scale).is_empty() && meta::name(scale) != call.name() {
        return Err(Status::bad_request("the name of the scale does not match the name on the URL"));
    }
    let mut scaled = object.clone();
    meta::map_mut(&mut scaled, "spec").insert("replicas".to_owned(), replicas.into());
    for key in ["resourceVersion", "uid"] {
        let asked = scale["metadata"][key].as_str().unwrap_or_default();
        if !asked.is_empty() {
            meta::set(&mut scaled, key, asked);
        }
    }
    Ok(scaled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_text() {
        assert_eq!(selector(&json!({"a": "b"})), "a=b");
        assert_eq!(selector(&json!({"matchLabels": {"a": "b"}})), "a=b");
        assert_eq!(selector(&Value::Null), "");
    }
}
