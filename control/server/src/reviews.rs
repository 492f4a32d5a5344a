//! Reviews: questions in the form of objects that are answered and never stored.
//!
//! SelfSubjectReview (who am I), SelfSubjectAccessReview and SubjectAccessReview (may I, may they),
//! SelfSubjectRulesReview (what may I), TokenReview (whose token is this). The answer is the question with its status.

mod access;

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};
use wherry_api::meta;
use wherry_api::resource::Resource;
use wherry_api::status::Status;

use crate::engine::{Call, read_body};
use crate::layers::authorize::{Rule, Rules};
use crate::layers::info::Verb;
use crate::negotiate::{Offers, accept};
use crate::rbac::aggregate;
use crate::{User, input, respond, times};

/// Whether objects of this resource are questions.
pub(crate) fn is_review(resource: &Resource) -> bool {
    matches!(resource.group.as_str(), "authentication.k8s.io" | "authorization.k8s.io")
}

pub(crate) async fn dispatch(call: &Call, body: Body) -> Result<Response, Status> {
    // A table of a question has no meaning: 406 when only that is accepted.
    let accepted = accept(&call.headers, Offers::Documents)?;
    if call.info.verb != Verb::Create || call.info.name.is_some() {
        return Err(call.not_supported());
    }
    let query = call.query();
    query.dry_run()?;
    let validation = input::field_validation(&query)?;
    let input::Decoded { mut object, warnings } = input::object(call, &read_body(body).await?, validation)?;
    input::check_namespace(call, &mut object)?;
    let status = match call.resource.kind.as_str() {
        "SelfSubjectReview" => {
            meta::set(&mut object, "creationTimestamp", &times::now());
            json!({"userInfo": user_info(&call.user)})
        }
        "SelfSubjectAccessReview" => access::answer(call, &call.user, &object)?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => access::answer(call, &subject(&object), &object)?,
        "SelfSubjectRulesReview" => rules(call, &object)?,
        "TokenReview" => token(call, &object).await?,
        _ => return Err(call.not_supported()),
    };
    object["status"] = status;
    let mut response = respond::value(StatusCode::CREATED, &object, accepted.format, &call.headers)?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

/// `extra` of a user in an object.
fn extra(value: &Value) -> BTreeMap<String, Vec<String>> {
    let strings =
        |list: &Value| list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    value.as_object().into_iter().flatten().map(|(key, list)| (key.to_lowercase(), strings(list))).collect()
}

/// The user that a SubjectAccessReview is about; the question names all groups: none is added.
fn subject(review: &Value) -> User {
    let spec = &review["spec"];
    let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
    let groups = spec["groups"].as_array().into_iter().flatten().filter_map(|g| g.as_str().map(str::to_owned));
    User { name: text("user"), uid: text("uid"), groups: groups.collect(), extra: extra(&spec["extra"]) }
}

fn rules(call: &Call, review: &Value) -> Result<Value, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let Rules { rules, incomplete, errors } = call.engine.authorizer.rules(&call.user, namespace);
    let about = |keep: fn(&Rule) -> bool| rules.iter().filter(|r| keep(r)).map(Rule::to_value).collect::<Vec<_>>();
    let mut status = json!({
        "resourceRules": about(|rule| !rule.resources.is_empty()),
        "nonResourceRules": about(|rule| !rule.paths.is_empty()),
        "incomplete": incomplete,
    });
    if !errors.is_empty() {
        status["evaluationError"] = aggregate(errors).into();
    }
    Ok(status)
}

async fn token(call: &Call, review: &Value) -> Result<Value, Status> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = review["spec"]["audiences"].as_array().into_iter().flatten();
    let audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(match call.engine.authenticators.token(token, &audiences).await {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user_info(&user), "audiences": audiences}),
        Err(why) => json!({"user": {}, "error": why.to_string()}),
    })
}
