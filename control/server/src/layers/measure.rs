//! Counts requests and how long they take.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use wherry_api::resource::Registry;

use super::info::{RequestInfo, Verb};
use crate::metrics::{Labels, Lasting, Metrics};

/// What the layer works with.
#[derive(Clone)]
pub(crate) struct Measure {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Arc<Registry>,
}

/// Paths that are no objects and are counted by their names.
const PATHS: [&str; 12] = [
    "/",
    "/api",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/readyz",
    "/version",
    "/openid/v1/jwks",
    "/.well-known/openid-configuration",
];

/// Counts the request and its answer.
pub(crate) async fn layer(State(measure): State<Measure>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let Some(info) = request.extensions().get::<Arc<RequestInfo>>().cloned() else {
        return next.run(request).await;
    };
    let labels = labels(&info, &request, &measure.registry);
    let Measure { metrics, .. } = measure;
    if info.is_long_running() {
        let lasting = metrics.lasting(labels.clone());
        let response = next.run(request).await;
        metrics.answered(labels, response.status().as_u16(), None);
        return response.map(|body| Body::new(Held { body, _until: lasting }));
    }
    let under_way = metrics.inflight(!matches!(info.verb, Verb::Get | Verb::List | Verb::Watch | Verb::Other(_)));
    let response = next.run(request).await;
    drop(under_way);
    metrics.answered(labels, response.status().as_u16(), Some(begun.elapsed()));
    response
}

fn labels(info: &RequestInfo, request: &Request, registry: &Registry) -> Labels {
    let mut labels = Labels { verb: verb(info, request), ..Labels::default() };
    if !info.is_resource {
        let path = PATHS.iter().rfind(|path| {
            info.path == **path
                || info.path.strip_prefix(**path).is_some_and(|rest| path.len() > 1 && rest.starts_with('/'))
        });
        labels.subresource = path.map(|path| (*path).to_owned()).unwrap_or_default();
        return labels;
    }
    let Some(row) = registry.find(&info.group, &info.version, &info.resource) else { return labels };
    labels.group.clone_from(&row.group);
    labels.version.clone_from(&row.version);
    labels.resource.clone_from(&row.plural);
    let below = info.subresource.as_deref().and_then(|name| row.subresource(name));
    labels.subresource = below.map(|sub| sub.name.clone()).unwrap_or_default();
    labels.scope = match (&info.name, info.verb) {
        (Some(_), Verb::Get | Verb::Update | Verb::Patch | Verb::Delete | Verb::Create) => "resource",
        // One object is made in its namespace, or in the cluster: that is its place.
        (_, Verb::Create) => "resource",
        _ if info.namespace.is_some() => "namespace",
        _ => "cluster",
    };
    let dry_run = request.uri().query().is_some_and(|query| {
        form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "dryRun" && value == "All")
    });
    labels.dry_run = if dry_run { "All" } else { "" };
    labels
}

/// As upstream's metrics name it: mostly the method.
fn verb(info: &RequestInfo, request: &Request) -> &'static str {
    if matches!(info.subresource.as_deref(), Some("exec" | "attach" | "portforward" | "proxy")) {
        return "CONNECT";
    }
    match info.verb {
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Watch => "WATCH",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch => {
            let kind = request.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            if kind.is_some_and(|kind| kind.starts_with("application/apply-patch")) { "APPLY" } else { "PATCH" }
        }
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
        Verb::Other("post") => "POST",
        Verb::Other("put") => "PUT",
        Verb::Other("head") => "HEAD",
        Verb::Other(_) => "OTHER",
    }
}

/// A body with what ends when it does.
struct Held {
    body: Body,
    _until: Lasting,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
