//! What lies below an object: one file a subresource.

mod binding;
mod connect;
mod eviction;
mod log;
mod log_socket;
mod node_proxy;
mod scale;
mod token;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use wherry_api::meta;
use wherry_api::status::Status;
use wherry_api::strategy::Sub;

use crate::engine::{Call, read_body};
use crate::layers::info::{RequestInfo, Verb};
use crate::{input, verbs};

/// Answers a request for the subresource of one object.
pub(crate) async fn dispatch(call: &Call, subresource: &str, body: Body) -> Result<Response, Status> {
    let row = call.resource.subresource(subresource).ok_or_else(Status::no_such_path)?;
    if !row.verbs.iter().any(|v| v.as_str() == call.info.verb.as_str()) {
        return Err(call.not_supported());
    }
    let core = call.resource.group.is_empty();
    match (subresource, call.resource.plural.as_str(), call.info.verb) {
        ("status" | "approval", _, Verb::Get) => verbs::get::run(call).await,
        ("approval", _, Verb::Update) => verbs::update::replace(call, body, Sub::Approval, subresource).await,
        ("approval", _, Verb::Patch) => verbs::patch::change(call, body, Sub::Approval, subresource).await,
        ("status", _, Verb::Update) => verbs::update::replace(call, body, Sub::Status, subresource).await,
        ("status", _, Verb::Patch) => verbs::patch::change(call, body, Sub::Status, subresource).await,
        ("scale", _, _) => scale::run(call, body).await,
        ("ephemeralcontainers" | "resize", "pods", verb) if core => {
            let sub = if subresource == "resize" { Sub::Resize } else { Sub::Ephemeral };
            match verb {
                Verb::Get => verbs::get::run(call).await,
                Verb::Update => verbs::update::replace(call, body, sub, subresource).await,
                Verb::Patch => verbs::patch::change(call, body, sub, subresource).await,
                _ => Err(call.not_supported()),
            }
        }
        ("finalize", "namespaces", Verb::Update) if core => {
            verbs::update::replace(call, body, Sub::Other, subresource).await
        }
        ("binding", "pods", Verb::Create) if core => binding::run(call, body).await,
        ("eviction", "pods", Verb::Create) if core => eviction::run(call, body).await,
        ("log", "pods", Verb::Get) if core => log::run(call).await,
        ("proxy", "nodes", _) if core => node_proxy::run(call, body).await,
        ("token", "serviceaccounts", Verb::Create) if core => token::run(call, body).await,
        ("exec" | "attach" | "portforward", "pods", _) if core => connect::run(call, subresource, body).await,
        ("proxy", "pods" | "services", _) if core => connect::run(call, subresource, body).await,
        _ => Err(call.not_supported()),
    }
}

/// POST of a Binding to its collection, the older way to bind: the Pod is the one of the binding's name.
pub(crate) async fn bind(call: &Call, body: Body) -> Result<Response, Status> {
    if call.info.verb != Verb::Create || call.info.name.is_some() {
        return Err(call.not_supported());
    }
    let bytes = read_body(body).await?;
    let name = meta::name(&input::document(call, &bytes, binding::schema())?).to_owned();
    let pods = call.engine.registry.find("", "v1", "pods").ok_or_else(Status::no_such_path)?;
    let info =
        Arc::new(RequestInfo { name: Some(name), resource: "pods".to_owned(), ..RequestInfo::clone(&call.info) });
    let call = Call {
        engine: Arc::clone(&call.engine),
        info,
        user: call.user.clone(),
        stored: Arc::clone(&pods),
        resource: pods,
        headers: call.headers.clone(),
        uri: call.uri.clone(),
        closing: None,
        upgrade: None,
        head: false,
    };
    binding::run(&call, Body::from(bytes)).await
}
