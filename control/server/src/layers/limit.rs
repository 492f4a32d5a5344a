//! How many requests may be under way: what comes beyond is 429 at once, which costs nothing and tells clients to wait.
//!
//! Reads and writes are counted apart (upstream's figures), so that neither starves the other. Streams are not counted, nor are
//! health checks, administrators (who may have to repair an overloaded cluster) and the cluster's own parts in this
//! process.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;
use wherry_api::status::Status;

use super::info::{RequestInfo, Verb};
use crate::User;
use crate::respond::Failure;
use crate::serving::Peer;
use crate::user::MASTERS;

const READS: usize = 400;
const WRITES: usize = 200;

/// The places that requests take.
#[derive(Clone)]
pub(crate) struct Limits {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Limits {
    pub(crate) fn new() -> Self {
        Self { reads: Arc::new(Semaphore::new(READS)), writes: Arc::new(Semaphore::new(WRITES)) }
    }
}

/// Holds a place while the request is answered, or says 429.
pub(crate) async fn layer(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let Some(info) = counted(&request) else {
        return next.run(request).await;
    };
    let places = match info.verb {
        Verb::Get | Verb::List | Verb::Other(_) => &limits.reads,
        _ => &limits.writes,
    };
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => Failure(Status::too_many_requests("too many requests, please try again later", 1)).into_response(),
    }
}

/// What the request asks for, if it counts.
fn counted(request: &Request) -> Option<&RequestInfo> {
    let extensions = request.extensions();
    let info = extensions.get::<Arc<RequestInfo>>()?;
    let remote = extensions.get::<Peer>().is_some();
    let exempt = extensions.get::<User>().is_some_and(|user| user.in_group(MASTERS));
    (remote && !exempt && info.is_resource && !info.is_long_running()).then(|| info.as_ref())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use tokio::sync::Notify;
    use tower::ServiceExt as _;

    use super::*;

    fn request(method: &str, path: &str, user: User) -> Request {
        let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let info = RequestInfo::parse(request.method(), request.uri());
        let extensions = request.extensions_mut();
        extensions.insert(Arc::new(info));
        extensions.insert(Peer { user: None, closing: Default::default() });
        extensions.insert(user);
        request
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused_and_a_place_is_given_back() {
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (entered, go) = (Arc::clone(&entered), Arc::clone(&go));
            move |request: Request| async move {
                if request.uri().path().ends_with("slow") {
                    entered.notify_one();
                    go.notified().await;
                }
                "ok"
            }
        };
        let one = || Arc::new(Semaphore::new(1));
        let limits = Limits { reads: one(), writes: one() };
        let router = Router::new().fallback(handler).layer(from_fn_with_state(limits, layer));
        let ask = |method: &str, path: &str, user: User| router.clone().oneshot(request(method, path, user));
        let node = || User::node("a");
        let slow = tokio::spawn(ask("GET", "/api/v1/pods/slow", node()));
        entered.notified().await;
        assert_eq!(ask("GET", "/api/v1/nodes", node()).await.unwrap().status(), 429);
        for (method, path, user) in [
            ("POST", "/api/v1/nodes", node()),
            ("GET", "/api/v1/nodes?watch=1", node()),
            ("GET", "/livez", User::anonymous()),
            ("GET", "/api/v1/nodes", User::admin()),
        ] {
            assert_eq!(ask(method, path, user).await.unwrap().status(), 200, "{method} {path}");
        }
        go.notify_one();
        assert_eq!(slow.await.unwrap().unwrap().status(), 200);
        assert_eq!(ask("GET", "/api/v1/nodes", node()).await.unwrap().status(), 200);
    }
}
