//! What the API consists of: discovery in both forms, OpenAPI v3 and v2.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use wherry_api::discovery::{self, Aggregated};
use wherry_api::openapi;
use wherry_api::status::Status;

use crate::endpoints::{Answer, document};
use crate::engine::Engine;
use crate::negotiate::{Format, ranges};
use crate::respond;

pub(crate) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/api", get(api))
        .route("/api/", get(api))
        .route("/api/{version}", get(core_resources))
        .route("/api/{version}/", get(core_resources))
        .route("/apis", get(apis))
        .route("/apis/", get(apis))
        .route("/apis/{group}", get(group))
        .route("/apis/{group}/", get(group))
        .route("/apis/{group}/{version}", get(group_resources))
        .route("/apis/{group}/{version}/", get(group_resources))
        .route("/openapi/v2", get(openapi_v2))
        .route("/openapi/v3", get(openapi_index))
        .route("/openapi/v3/{*path}", get(openapi_document))
}

async fn api(State(engine): State<Arc<Engine>>, request: Request) -> Answer {
    if let Some((form, media)) = aggregated(request.headers()) {
        return discovered(request.headers(), media, &discovery::aggregated_core(&engine.registry, form));
    }
    let host = request.headers().get(http::header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    document(request.headers(), &discovery::api_versions(&engine.registry, host))
}

async fn apis(State(engine): State<Arc<Engine>>, request: Request) -> Answer {
    if let Some((form, media)) = aggregated(request.headers()) {
        return discovered(
            request.headers(),
            media,
            &discovery::aggregated_groups(&engine.registry, &engine.aggregator.remotes(), form),
        );
    }
    document(request.headers(), &discovery::api_group_list(&engine.registry, &engine.aggregator.remotes()))
}

async fn group(State(engine): State<Arc<Engine>>, Path(group): Path<String>, request: Request) -> Answer {
    let found = discovery::api_group(&engine.registry, &engine.aggregator.remotes(), &group)
        .ok_or_else(Status::no_such_path)?;
    document(request.headers(), &found)
}

async fn core_resources(State(engine): State<Arc<Engine>>, Path(version): Path<String>, request: Request) -> Answer {
    let found = discovery::api_resource_list(&engine.registry, "", &version).ok_or_else(Status::no_such_path)?;
    document(request.headers(), &found)
}

async fn group_resources(
    State(engine): State<Arc<Engine>>,
    Path((group, version)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let found = discovery::api_resource_list(&engine.registry, &group, &version).ok_or_else(Status::no_such_path)?;
    document(request.headers(), &found)
}

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2_BETA_1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// The aggregated form that the client prefers to all else, with its media type.
fn aggregated(headers: &HeaderMap) -> Option<(Aggregated, &'static str)> {
    for range in ranges(headers).iter().filter(|r| matches!(r.media, "application/json" | "*/*")) {
        let of_discovery = range.parameter("as") == Some("APIGroupDiscoveryList")
            && range.parameter("g") == Some("apidiscovery.k8s.io");
        match range.parameter("v") {
            Some("v2") if of_discovery => return Some((Aggregated::V2, V2)),
            Some("v2beta1") if of_discovery => return Some((Aggregated::V2Beta1, V2_BETA_1)),
            // A form that is not known: the next best.
            Some(_) => {}
            None => return None,
        }
    }
    None
}

/// An aggregated discovery document with its ETag.
fn discovered(headers: &HeaderMap, media: &'static str, value: &Value) -> Answer {
    let bytes = Bytes::from(serde_json::to_vec(value).map_err(Status::internal)?);
    let mut response = tagged(headers, bytes);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    if response.status() == StatusCode::OK {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    }
    Ok(response)
}

/// JSON with an ETag; 304 if the client has it.
fn tagged(headers: &HeaderMap, bytes: Bytes) -> Response {
    let tag = format!("\"{}\"", hex::encode_upper(Sha256::digest(&bytes)));
    let has =
        |v: &HeaderValue| v.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().trim_start_matches("W/") == tag));
    let mut response = if headers.get_all(IF_NONE_MATCH).iter().any(has) {
        let mut empty = respond::text(StatusCode::NOT_MODIFIED, "");
        empty.headers_mut().remove(CONTENT_TYPE);
        empty
    } else {
        respond::written(StatusCode::OK, bytes, Format::Json, headers)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

async fn openapi_index(State(engine): State<Arc<Engine>>, request: Request) -> Answer {
    Ok(tagged(request.headers(), engine.aggregator.openapi_index(&engine)))
}

async fn openapi_document(State(engine): State<Arc<Engine>>, Path(path): Path<String>, request: Request) -> Answer {
    let bytes = openapi::document(&engine.registry, &path).ok_or_else(Status::no_such_path)?;
    let mut response = tagged(request.headers(), bytes);
    // An address with a hash names this very document: it need not be asked for again.
    if request.uri().query().is_some_and(|q| q.starts_with("hash=")) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable, max-age=31536000"));
    }
    Ok(response)
}

/// The names of the protobuf form: today's, and the older one that clients ask for but cannot read in an answer.
const OPENAPI_V2_PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

async fn openapi_v2(State(engine): State<Arc<Engine>>, request: Request) -> Answer {
    let wants_protobuf =
        ranges(request.headers()).first().is_some_and(|range| OPENAPI_V2_PROTOBUF.contains(&range.media));
    if !wants_protobuf {
        return Ok(tagged(request.headers(), openapi::v2(&engine.registry)));
    }
    let mut response = tagged(request.headers(), openapi::v2_protobuf(&engine.registry));
    if response.status() == StatusCode::OK {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPENAPI_V2_PROTOBUF[0]));
    }
    Ok(response)
}
