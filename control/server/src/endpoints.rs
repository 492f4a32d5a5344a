//! Paths that are not about objects: health and version.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use wherry_api::exposition::{Exposition, Kind};
use wherry_api::openapi::KUBERNETES_VERSION;
use wherry_api::status::Status;

use crate::engine::Engine;
use crate::negotiate::{Format, Offers, accept};
use crate::respond::{self, Failure};
use crate::tokens;

pub(crate) type Answer = Result<Response, Failure>;

pub(crate) fn router() -> Router<Arc<Engine>> {
    Router::new()
        .route("/", get(paths))
        .route("/version", get(version))
        .route("/version/", get(version))
        .route("/healthz", get(health))
        .route("/healthz/{check}", get(check))
        .route("/livez", get(health))
        .route("/livez/{check}", get(check))
        .route("/readyz", get(health))
        .route("/readyz/{check}", get(check))
        .route("/metrics", get(metrics))
        .route("/metrics/slis", get(slis))
}

async fn paths(State(engine): State<Arc<Engine>>, request: Request) -> Answer {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for group in engine.registry.groups().iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{}", group.name, v.version)));
    }
    for path in ["/healthz", "/livez", "/metrics", "/metrics/slis", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
        .iter()
        .chain(&tokens::PATHS)
    {
        paths.push((*path).to_owned());
    }
    paths.sort();
    document(request.headers(), &json!({"paths": paths}))
}

async fn version(headers: HeaderMap) -> Answer {
    let version = json!({
        "major": "1", "minor": "36", "gitVersion": format!("{KUBERNETES_VERSION}+wherry.{}", env!("CARGO_PKG_VERSION")), "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "go1.26",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, arch()),
    });
    document(&headers, &version)
}

/// The machine's architecture by its Go name.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The checks behind the health paths: the server answers, and the store takes writes.
const CHECKS: [&str; 2] = ["ping", "store"];

fn passes(engine: &Engine, check: &str) -> bool {
    check != "store" || engine.store.refusal().is_none()
}

async fn health(State(engine): State<Arc<Engine>>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let verbose = form_urlencoded::parse(query.as_bytes()).any(|(k, _)| k == "verbose");
    let healthy = CHECKS.iter().all(|check| passes(&engine, check));
    if healthy && !verbose {
        return respond::text(StatusCode::OK, "ok");
    }
    let name = request.uri().path().trim_matches('/').to_owned();
    let mut text: String = CHECKS.iter().map(|check| line(&engine, check)).collect();
    let (code, outcome) = match healthy {
        true => (StatusCode::OK, "passed"),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
    };
    text.push_str(&format!("{name} check {outcome}\n"));
    respond::text(code, text)
}

/// What the health paths say of a check; the reason is for the log alone, since anybody may ask.
fn line(engine: &Engine, check: &str) -> String {
    match passes(engine, check) {
        true => format!("[+]{check} ok\n"),
        false => format!("[-]{check} failed: reason withheld\n"),
    }
}

async fn check(State(engine): State<Arc<Engine>>, Path(check): Path<String>) -> Response {
    if !CHECKS.contains(&check.as_str()) {
        respond::failure(&Status::no_such_path())
    } else if passes(&engine, &check) {
        respond::text(StatusCode::OK, "ok")
    } else {
        respond::text(StatusCode::INTERNAL_SERVER_ERROR, line(&engine, &check))
    }
}

/// What the server has done, for Prometheus.
async fn metrics(State(engine): State<Arc<Engine>>, headers: HeaderMap) -> Response {
    exposed(&headers, |to| engine.metrics.write(&engine, to))
}

/// Whether the health checks pass, for Prometheus.
async fn slis(State(engine): State<Arc<Engine>>, headers: HeaderMap) -> Response {
    exposed(&headers, |to| {
        let help = "[STABLE] This metric records the result of a single healthcheck.";
        let mut family = to.family("kubernetes_healthcheck", Kind::Gauge, help);
        for kind in ["healthz", "livez", "readyz"] {
            for check in CHECKS {
                family.sample(&[("name", check), ("type", kind)], f64::from(u8::from(passes(&engine, check))));
            }
        }
    })
}

fn exposed(headers: &HeaderMap, write: impl FnOnce(&mut Exposition)) -> Response {
    let mut to = Exposition::new(headers.get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    write(&mut to);
    let content_type = HeaderValue::from_static(to.content_type());
    respond::body(StatusCode::OK, content_type, to.finish().into())
}

/// Any other document.
pub(crate) fn document(headers: &HeaderMap, value: &Value) -> Answer {
    let accepted = accept(headers, Offers::Plain);
    // Clients that only know the aggregated forms of other groups fall back to what they get.
    let format = accepted.map_or(Format::Json, |a| a.format);
    Ok(respond::value(StatusCode::OK, value, format, headers)?)
}
