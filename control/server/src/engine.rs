//! The generic engine: one way for all resources from a request to the verb that answers it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wherry_api::resource::{Registry, Resource};
use wherry_api::status::{Details, GroupResource, Status};
use wherry_store::{Key, Range, Store};

use crate::admission::Chain;
use crate::aggregate::Aggregator;
use crate::allocate::services::Services;
use crate::backends::session::{Client, Upgrade};
use crate::config::Cluster;
use crate::history::History;
use crate::layers::authenticate::Authenticators;
use crate::layers::authorize::Authorizer;
use crate::layers::info::{RequestInfo, Verb};
use crate::metrics::Metrics;
use crate::nodes::NodeConnector;
use crate::options::Query;
use crate::quota::Ledger;
use crate::rbac::Rbac;
use crate::serving::Peer;
use crate::tokens::Issuer;
use crate::{User, respond, reviews, subresources, usage, verbs};

/// The largest body that is read.
pub(crate) const BODY_LIMIT: usize = 3 << 20;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(60);

/// What all requests share.
pub(crate) struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) admission: Chain,
    pub(crate) services: Arc<Services>,
    pub(crate) quotas: Ledger,
    /// Who may do what, by all that is asked.
    pub(crate) authorizer: Arc<dyn Authorizer>,
    /// The part of it that roles and bindings decide.
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) authenticators: Arc<Authenticators>,
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) nodes: Arc<dyn NodeConnector>,
    pub(crate) aggregator: Aggregator,
    pub(crate) cluster: Cluster,
    pub(crate) bookmark_interval: Duration,
    pub(crate) event_lifetime: Duration,
    pub(crate) history_lifetime: Duration,
    pub(crate) history: History,
    pub(crate) metrics: Arc<Metrics>,
    /// Writes that must be seen through although their client has gone.
    pub(crate) tasks: TaskTracker,
}

/// A resource request, ready for its verb.
pub(crate) struct Call {
    pub(crate) engine: Arc<Engine>,
    pub(crate) info: Arc<RequestInfo>,
    pub(crate) user: User,
    /// The row of the path.
    pub(crate) resource: Arc<Resource>,
    /// The row of the version in which its objects are stored: mostly the same.
    pub(crate) stored: Arc<Resource>,
    pub(crate) headers: HeaderMap,
    pub(crate) uri: http::Uri,
    /// Fires when the connection's server ends.
    pub(crate) closing: Option<CancellationToken>,
    /// The connection, for those who would take it over.
    pub(crate) upgrade: Option<Upgrade>,
    /// Only the head of the answer is wanted.
    pub(crate) head: bool,
}

impl Call {
    pub(crate) fn query(&self) -> Query<'_> {
        Query::parse(self.uri.query())
    }

    pub(crate) fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }

    /// The name in the path.
    pub(crate) fn name(&self) -> &str {
        self.info.name.as_deref().unwrap_or_default()
    }

    /// The namespace in the path, empty for cluster-scoped resources.
    pub(crate) fn namespace(&self) -> &str {
        if self.resource.namespaced { self.info.namespace.as_deref().unwrap_or_default() } else { "" }
    }

    /// Where the object that the path names is stored.
    pub(crate) fn key(&self) -> Key {
        self.key_of(self.name())
    }

    pub(crate) fn key_of(&self, name: &str) -> Key {
        Key::new(Arc::clone(&self.resource.storage.resource), self.namespace(), name)
    }

    /// The objects that the path names.
    pub(crate) fn range(&self) -> Range {
        let range = Range::all(Arc::clone(&self.resource.storage.resource));
        match self.namespace() {
            "" => range,
            namespace => range.namespace(namespace),
        }
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.group_resource(), self.name())
    }

    pub(crate) fn not_supported(&self) -> Status {
        method_not_allowed()
    }
}

/// What upstream's router says of a method that a path does not have.
pub(crate) fn method_not_allowed() -> Status {
    Status::new(
        405,
        wherry_api::status::Reason::MethodNotAllowed,
        "the server does not allow this method on the requested resource",
    )
    .with_details(Details::default())
}

/// Answers everything that is no route of its own.
pub(crate) async fn dispatch(State(engine): State<Arc<Engine>>, request: Request) -> Response {
    match handle(engine, request).await {
        Ok(response) => response,
        Err(status) => respond::failure(&status),
    }
}

/// Why there is no such resource. What was once in `extensions` is in several groups now.
fn not_served(registry: &Registry, info: &RequestInfo) -> Status {
    let is_successor =
        |row: &&Arc<Resource>| row.plural == info.resource && (row.group == info.group || info.group == "extensions");
    let Some(row) = registry.resources().find(is_successor) else { return Status::no_such_path() };
    let asked = if info.group.is_empty() { info.version.clone() } else { format!("{}/{}", info.group, info.version) };
    Status::not_served_as(&info.resource, &asked, &row.api_version())
}

async fn handle(engine: Arc<Engine>, request: Request) -> Result<Response, Status> {
    let (parts, body) = request.into_parts();
    let extension = |missing: &str| Status::internal(format!("the request carries no {missing}"));
    let info = parts.extensions.get::<Arc<RequestInfo>>().cloned().ok_or_else(|| extension("request info"))?;
    let user = parts.extensions.get::<User>().cloned().ok_or_else(|| extension("user"))?;
    if !info.is_resource || !info.rest.is_empty() && info.subresource.as_deref() != Some("proxy") {
        return Err(Status::no_such_path());
    }
    let found = engine.registry.find(&info.group, &info.version, &info.resource);
    let resource = found.ok_or_else(|| not_served(&engine.registry, &info))?;
    // Authorized like GET, but upstream's router has no such route.
    let head = parts.method == http::Method::HEAD;
    if head && info.subresource.as_deref() != Some("proxy") {
        return Err(method_not_allowed());
    }
    let closing = parts.extensions.get::<Peer>().map(|peer| peer.closing.clone());
    let upgrade = Client::from(&parts.extensions).upgrade;
    let stored = stored_row(&engine.registry, &resource);
    let call =
        Call { engine, info, user, resource, stored, headers: parts.headers, uri: parts.uri, closing, upgrade, head };
    check_scope(&call)?;
    if let Some(subresource) = call.info.subresource.as_deref() {
        if call.resource.group == usage::custom::GROUP && call.info.verb == Verb::Get {
            return usage::custom::run(&call, subresource).await;
        }
        return subresources::dispatch(&call, subresource, body).await;
    }
    if call.info.name.is_none() && matches!(call.info.verb, Verb::Update | Verb::Patch) {
        return Err(call.not_supported());
    }
    if call.resource.group.is_empty() && call.resource.plural == "bindings" {
        return subresources::bind(&call, body).await;
    }
    if reviews::is_review(&call.resource) {
        return reviews::dispatch(&call, body).await;
    }
    if !call.resource.verbs.iter().any(|v| v.as_str() == call.info.verb.as_str()) {
        return Err(call.not_supported());
    }
    if call.resource.group == usage::resource::GROUP {
        return usage::resource::run(&call).await;
    }
    match call.info.verb {
        Verb::Get => verbs::get::run(&call).await,
        Verb::List => verbs::list::run(&call).await,
        Verb::Watch => verbs::watch::run(&call).await,
        Verb::Create => verbs::create::run(&call, body).await,
        Verb::Update => verbs::update::run(&call, body).await,
        Verb::Patch => verbs::patch::run(&call, body).await,
        Verb::Delete => verbs::delete::run(&call, body).await,
        Verb::DeleteCollection => verbs::delete_collection::run(&call, body).await,
        Verb::Other(_) => Err(call.not_supported()),
    }
}

/// The row in whose version the objects of `resource` are stored.
fn stored_row(registry: &Registry, resource: &Arc<Resource>) -> Arc<Resource> {
    if !converts(resource) {
        return Arc::clone(resource);
    }
    registry.stored(&resource.storage.resource).unwrap_or(resource).clone()
}

/// Whether objects are stored in another version than this row's.
pub(crate) fn converts(resource: &Resource) -> bool {
    resource.storage.from_storage.is_some()
}

/// Paths that no resource of this scope has are unknown, as upstream's router does not know them.
fn check_scope(call: &Call) -> Result<(), Status> {
    let info = &call.info;
    if call.resource.namespaced {
        if info.namespace.is_some() || matches!(info.verb, Verb::List | Verb::Watch) {
            return Ok(());
        }
        // POST to all namespaces at once, or an object outside of any.
        let collection = info.name.is_none() && info.subresource.is_none();
        return Err(if collection { call.not_supported() } else { Status::no_such_path() });
    }
    if info.namespace.is_some() && info.resource != "namespaces" {
        return Err(Status::no_such_path());
    }
    Ok(())
}

/// The whole body, unless it is too large or too slow.
pub(crate) async fn read_body(body: Body) -> Result<Bytes, Status> {
    read_within(body, BODY_TIME).await
}

async fn read_within(body: Body, time: Duration) -> Result<Bytes, Status> {
    let collected = tokio::time::timeout(time, Limited::new(body, BODY_LIMIT).collect()).await;
    match collected.map_err(|_| Status::timeout("the request's body did not arrive in time"))? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::too_large(BODY_LIMIT)),
        Err(error) => Err(Status::bad_request(format!("read the request's body: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_is_whole_or_refused() {
        let long = Duration::from_secs(60);
        assert_eq!(read_within(Body::from("{}"), long).await.unwrap(), "{}");
        assert_eq!(read_within(Body::from(vec![b' '; BODY_LIMIT + 1]), long).await.unwrap_err().code, 413);
        // One byte, and then nothing, for ever.
        let slow = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
        let slow = Body::from_stream(slow.chain(futures::stream::pending()));
        let refused = read_within(slow, Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(refused.code, 504);
    }
}
