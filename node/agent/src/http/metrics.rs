//! What the node uses, in the forms that tools read.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use wherry_api::exposition::Exposition;

use crate::measure::{self, Connections, Meter, Sample};

#[derive(Clone)]
struct Context {
    node: Arc<str>,
    meter: Arc<Meter>,
    connections: Arc<Connections>,
}

/// The routes.
pub(crate) fn router(node: String, meter: Arc<Meter>, connections: Arc<Connections>) -> Router {
    Router::new()
        .route("/metrics", get(kubelet))
        .route("/metrics/resource", get(resource))
        .route("/metrics/cadvisor", get(cadvisor))
        .route("/stats/summary", get(summary))
        .route("/stats/summary/", get(summary))
        .route("/usage", get(usage))
        .route("/connections", get(connections_of_services))
        .with_state(Context { node: node.into(), meter, connections })
}

async fn kubelet(State(context): State<Context>, headers: HeaderMap) -> Response {
    text(&context, &headers, |sample, to| measure::kubelet(&context.node, &context.meter, sample, to)).await
}

async fn resource(State(context): State<Context>, headers: HeaderMap) -> Response {
    text(&context, &headers, measure::resource).await
}

async fn cadvisor(State(context): State<Context>, headers: HeaderMap) -> Response {
    text(&context, &headers, |sample, to| measure::cadvisor(&context.meter, sample, to)).await
}

async fn text(context: &Context, headers: &HeaderMap, write: impl FnOnce(&Sample, &mut Exposition)) -> Response {
    let mut to = Exposition::new(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    write(&*context.meter.sample().await, &mut to);
    ([(header::CONTENT_TYPE, to.content_type())], to.finish()).into_response()
}

#[derive(Deserialize)]
struct SummaryQuery {
    only_cpu_and_memory: Option<String>,
}

async fn summary(State(context): State<Context>, Query(query): Query<SummaryQuery>) -> Response {
    let rated = context.meter.rated().await;
    let only = query.only_cpu_and_memory.as_deref() == Some("true");
    let document = measure::summary(&context.node, &context.meter, &rated, only).await;
    ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

async fn usage(State(context): State<Context>) -> Response {
    let document = measure::usage(&context.meter.rated().await);
    ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

async fn connections_of_services(State(context): State<Context>) -> Response {
    let document = context.connections.document().await;
    ([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}
