//! What others need to verify this cluster's tokens: the OIDC discovery document and the key set (upstream's
//! `openidmetadata.go`). Both are public in content, but served to those only whom authorization lets in.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::Issuer;
use crate::engine::Engine;
use crate::respond;

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEY_SET: &str = "/openid/v1/jwks";

/// The paths served here, for the index of all paths.
pub(crate) const PATHS: [&str; 2] = [CONFIGURATION, KEY_SET];

pub(crate) fn router() -> Router<Arc<Engine>> {
    Router::new().route(CONFIGURATION, get(configuration)).route(KEY_SET, get(key_set))
}

async fn configuration(State(engine): State<Arc<Engine>>) -> Response {
    document("application/json", &engine.issuer.configuration())
}

async fn key_set(State(engine): State<Arc<Engine>>) -> Response {
    document("application/jwk-set+json", &engine.issuer.keys.jwks())
}

impl Issuer {
    fn configuration(&self) -> Value {
        json!({
            "issuer": self.url,
            "jwks_uri": format!("{}{KEY_SET}", self.url),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": self.keys.algorithms(),
        })
    }
}

fn document(media: &'static str, value: &Value) -> Response {
    let mut response = respond::json(StatusCode::OK, Bytes::from(value.to_string()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}
