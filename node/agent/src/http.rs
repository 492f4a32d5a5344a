//! The agent's HTTP API, which the API server reaches through its node connector: logs, what runs, health.

pub(crate) mod metrics;

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::driver::shared::View;
use crate::logs::{LogOptions, Logs};

#[derive(Clone)]
struct Context {
    view: Arc<View>,
    logs: Arc<Logs>,
}

/// The routes. The connection that carries them is trusted by whoever made it.
pub(crate) fn router(view: Arc<View>, logs: Arc<Logs>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .with_state(Context { view, logs })
}

async fn pods(State(context): State<Context>) -> Response {
    let items: Vec<_> = context.view.read().values().map(|seen| seen.pod.clone()).collect();
    let items: Vec<_> = items.iter().map(|pod| &**pod).collect();
    match serde_json::to_vec(
        &serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }),
    ) {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// As `PodLogOptions` in a query.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LogQuery {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    limit_bytes: Option<i64>,
}

impl LogQuery {
    fn options(&self, now: Timestamp) -> Result<LogOptions, String> {
        let count = |name: &str, value: Option<i64>| match value {
            Some(value) if value < 0 => Err(format!("{name} must be greater than or equal to 0")),
            value => Ok(value.map(i64::unsigned_abs)),
        };
        let since = match (&self.since_time, self.since_seconds) {
            (Some(_), Some(_)) => return Err("at most one of sinceTime or sinceSeconds may be specified".to_owned()),
            (Some(time), None) => {
                Some(time.parse::<Timestamp>().map_err(|error| format!("sinceTime {time:?}: {error}"))?)
            }
            (None, Some(seconds)) if seconds < 1 => return Err("sinceSeconds must be greater than 0".to_owned()),
            (None, Some(seconds)) => {
                Some(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN))
            }
            (None, None) => None,
        };
        Ok(LogOptions {
            follow: is_set(self.follow.as_deref()),
            tail_lines: count("tailLines", self.tail_lines)?.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX)),
            since,
            timestamps: is_set(self.timestamps.as_deref()),
            limit_bytes: count("limitBytes", self.limit_bytes)?,
        })
    }
}

/// `?follow`, `?follow=true`, `?follow=1`.
fn is_set(value: Option<&str>) -> bool {
    matches!(value, Some("" | "true" | "1"))
}

fn refuse(code: StatusCode, message: String) -> Response {
    (code, message).into_response()
}

async fn container_logs(
    State(context): State<Context>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    let options = match query.options(Timestamp::now()) {
        Ok(options) => options,
        Err(problem) => return refuse(StatusCode::BAD_REQUEST, problem),
    };
    let seen = context.view.read().get(&(namespace, pod.clone())).cloned();
    let Some(seen) = seen else {
        return refuse(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist on this node"));
    };
    let Some(found) = seen.containers.iter().find(|one| one.name == container) else {
        return refuse(StatusCode::BAD_REQUEST, format!("container {container} is not valid for pod {pod}"));
    };
    let previous = is_set(query.previous.as_deref());
    let attempt = if previous { found.attempts.checked_sub(2) } else { found.attempts.checked_sub(1) };
    // A container that waits for its next run: that of its last one is its previous log, and its current one, too.
    let attempt = if previous && found.waiting.is_some() { found.attempts.checked_sub(1) } else { attempt };
    let Some(attempt) = attempt else {
        let message = if previous {
            format!("previous terminated container {container:?} in pod {pod:?} not found")
        } else {
            let reason = found.waiting.clone().unwrap_or_else(|| "ContainerCreating".to_owned());
            let state = if reason.contains("Image") { "trying and failing to pull image" } else { reason.as_str() };
            format!("container {container:?} in pod {pod:?} is waiting to start: {state}")
        };
        return refuse(StatusCode::BAD_REQUEST, message);
    };
    let path = Logs::path(&seen.dir, &container, attempt);
    match context.logs.read(&path, options).await {
        Ok(stream) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(stream)).into_response()
        }
        // There was such a run, and it said nothing.
        Err(crate::logs::LogError::NotFound(_)) => {
            ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::empty()).into_response()
        }
        Err(crate::logs::LogError::Io(error)) => refuse(StatusCode::INTERNAL_SERVER_ERROR, io_text(&error)),
    }
}

fn io_text(error: &io::Error) -> String {
    format!("cannot read the log: {error}")
}
