//! Extension API servers: who asks for a group and version that an APIService gives to a Service is sent on to it.
//!
//! ```text
//! request (authenticated, authorized) ─▶ layer ─▶ registered with a Service? ─no─▶ this server's own routes
//!                                                   └─yes─▶ available? ─no─▶ 503
//!                                                            └─yes─▶ proxy: TLS, X-Remote-* of the user ─▶ the Service's endpoint
//! APIServices, Services, EndpointSlices ─watch─▶ keeper ─▶ probe ─▶ condition Available, what discovery tells
//! ```
//!
//! Guarantees: an APIService is in force when its write is answered; who the user is, is told by this server alone (what a client
//! says of it is dropped), and proven by the front-proxy certificate. `apiregistration.k8s.io` itself is never given away.

mod condition;
pub(crate) mod headers;
mod keeper;
mod probe;
mod proxy;
mod registration;
mod tls;
mod told;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use wherry_api::discovery::{self, Remote};
use wherry_api::openapi;
use wherry_api::status::Status;
use wherry_store::Store;

use crate::engine::Engine;
use crate::follow::Follower;
use crate::layers::info::RequestInfo;
use crate::pki::FrontProxy;
use crate::respond::Failure;
use registration::{Registration, Registrations};
use told::Told;

pub(crate) use keeper::run;

/// What is known of extension API servers.
pub(crate) struct Aggregator {
    registrations: Follower<Registrations>,
    told: Told,
    /// What this server shows to them.
    front_proxy: Option<FrontProxy>,
}

/// Who answers for a group and version.
enum Route {
    Here,
    There(Arc<Registration>),
    /// Somebody else has the group, but not this version.
    Nobody,
}

impl Aggregator {
    pub(crate) fn new(store: Arc<dyn Store>, front_proxy: Option<FrontProxy>) -> Self {
        Self { registrations: Follower::new(store), told: Told::default(), front_proxy }
    }

    /// What this server shows to extension API servers.
    pub(crate) fn front_proxy(&self) -> Option<&FrontProxy> {
        self.front_proxy.as_ref()
    }

    fn route(&self, group: &str, version: &str) -> Route {
        if group.is_empty() || version.is_empty() || group == discovery::REGISTRATION {
            return Route::Here;
        }
        let registrations = self.registrations.read();
        match registrations.find(group, version) {
            Some(found) => Route::There(Arc::clone(found)),
            None if discovery::yields(group) && registrations.remote().any(|other| other.group == group) => {
                Route::Nobody
            }
            None => Route::Here,
        }
    }

    /// What extension API servers serve.
    pub(crate) fn remotes(&self) -> Vec<Remote> {
        self.registrations.read().remote().map(|registration| self.told.remote(registration)).collect()
    }

    /// `/openapi/v3`, with the documents of extension API servers.
    pub(crate) fn openapi_index(&self, engine: &Engine) -> Bytes {
        let own = openapi::index(&engine.registry);
        if self.registrations.read().remote().next().is_none() {
            return own;
        }
        let own: Value = serde_json::from_slice(&own).unwrap_or_default();
        let mut paths: Map<String, Value> = own["paths"].as_object().cloned().unwrap_or_default();
        // A version of somebody else's hides this server's own, or all that is built in of a group that yields.
        paths.retain(|path, _| {
            let of = path.strip_prefix("apis/").and_then(|path| path.split_once('/'));
            of.is_none_or(|(group, version)| matches!(self.route(group, version), Route::Here))
        });
        for (path, address) in self.told.documents() {
            paths.insert(path, json!({"serverRelativeURL": address}));
        }
        json!({"paths": paths}).to_string().into()
    }
}

/// Sends on what is for an extension API server.
pub(crate) async fn layer(State(engine): State<Arc<Engine>>, request: Request, next: Next) -> Response {
    let Some(info) = request.extensions().get::<Arc<RequestInfo>>().cloned() else {
        return next.run(request).await;
    };
    // Where a document lies is told by the group and version in its path.
    let document = info.path.strip_prefix("/openapi/v3/apis/").and_then(|path| path.split_once('/'));
    let (group, version) = document.unwrap_or((info.group.as_str(), info.version.as_str()));
    match engine.aggregator.route(group, version) {
        Route::Here => next.run(request).await,
        Route::Nobody => Failure(Status::no_such_path()).into_response(),
        Route::There(registration) if document.is_some() => proxy::document(&engine, &registration, request).await,
        Route::There(registration) => proxy::run(&engine, &registration, &info, request).await,
    }
}
