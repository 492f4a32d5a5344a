//! What happens to a request for the log's sake.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use wherry_api::resource::{Registry, Resource};

use super::body::{Copy, Tee};
use super::event::{Captured, Event, of_user, time};
use super::policy::{Level, Stage, Verdict};
use super::{Audit, CURRENT, Context};
use crate::User;
use crate::backends::session::Session;
use crate::engine::BODY_LIMIT;
use crate::layers::authorize::Attributes;
use crate::layers::info::RequestInfo;
use crate::serving::Peer;

/// By which a client finds its request in the log.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// The most of an answer that is kept; longer ones (of lists) are left out.
const ANSWER_LIMIT: usize = 8 << 20;
/// The most of an answer that says why something failed.
const FAILURE_LIMIT: usize = 64 << 10;

/// Where events go, and how bodies are read.
#[derive(Clone)]
pub(crate) struct Auditor {
    pub(crate) audit: Option<Audit>,
    pub(crate) registry: Arc<Registry>,
}

/// Gives every request an identity, and writes what the policy asks for of those whose user is known.
pub(crate) async fn layer(State(auditor): State<Auditor>, mut request: Request, next: Next) -> Response {
    let id = identity(request.headers());
    let begun = auditor.audit.as_ref().and_then(|audit| begin(audit, &auditor.registry, &id, &mut request));
    let response = match begun {
        None => next.run(request).await,
        Some(mut record) => {
            if let Some(copy) = &record.request {
                let copy = Some(Arc::clone(&copy.1));
                request = request.map(|body| Body::new(Tee::new(body, copy, BODY_LIMIT, ())));
            }
            let context = Arc::clone(&record.context);
            let response = CURRENT.scope(context, next.run(request)).await;
            record.code = Some(response.status().as_u16());
            if record.long_running {
                record.emit(Stage::ResponseStarted);
            }
            let most = record.keep_answer(&response);
            let copy = record.answer.as_ref().map(|(_, copy)| Arc::clone(copy));
            if let Some(session) = response.extensions().get::<Session>() {
                session.hold(record);
                return named(response, &id);
            }
            response.map(|body| Body::new(Tee::new(body, copy, most, record)))
        }
    };
    named(response, &id)
}

fn named(mut response: Response, id: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(AUDIT_ID, value);
    }
    response
}

/// Notes as whom the request is done; inside of impersonation.
pub(crate) async fn acting(request: Request, next: Next) -> Response {
    if let Some(user) = request.extensions().get::<User>() {
        // Where nothing is audited there is nobody to tell.
        let _ = CURRENT.try_with(|context| {
            if context.user != *user {
                context.impersonated.get_or_init(|| user.clone());
            }
        });
    }
    next.run(request).await
}

/// Writes what the policy asks for of requests that nobody is known to have sent: those answered with 401.
pub(crate) async fn unknown(State(auditor): State<Auditor>, request: Request, next: Next) -> Response {
    let Some(audit) = auditor.audit else {
        return next.run(request).await;
    };
    let mut shell = Request::new(Body::empty());
    *shell.method_mut() = request.method().clone();
    *shell.uri_mut() = request.uri().clone();
    *shell.headers_mut() = request.headers().clone();
    *shell.extensions_mut() = request.extensions().clone();
    let response = next.run(request).await;
    // Only authentication answers so, and it does before the other layer.
    if response.status() == http::StatusCode::UNAUTHORIZED && !response.headers().contains_key(&AUDIT_ID) {
        shell.extensions_mut().insert(User::default());
        let id = identity(shell.headers());
        if let Some(mut record) = begin(&audit, &auditor.registry, &id, &mut shell) {
            record.code = Some(response.status().as_u16());
            record.emit(Stage::ResponseStarted);
            record.done = true;
        }
    }
    response
}

/// The client's own name for its request, or a new one.
fn identity(headers: &HeaderMap) -> String {
    let given = headers.get(&AUDIT_ID).and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty() && id.len() <= 64);
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

/// A body's media type and its copy.
type Kept = (String, Arc<Copy>);

/// What is known of a request. The last event is made when this is dropped, with the answer's body.
struct Record {
    audit: Audit,
    verdict: Verdict,
    base: Arc<Value>,
    context: Arc<Context>,
    resource: Option<Arc<Resource>>,
    long_running: bool,
    code: Option<u16>,
    request: Option<Kept>,
    answer: Option<Kept>,
    done: bool,
}

fn begin(audit: &Audit, registry: &Registry, id: &str, request: &mut Request) -> Option<Record> {
    let info = request.extensions().get::<Arc<RequestInfo>>().cloned()?;
    let user = request.extensions().get::<User>().cloned()?;
    let attributes = Attributes::from(info.as_ref());
    let verdict = audit.policy.judge(&user, &attributes);
    if verdict.level == Level::None {
        return None;
    }
    let base = base(id, &verdict, &user, &info, request);
    let content = media_type(request.headers());
    let bodies = info.is_resource && verdict.level >= Level::Request && !info.is_long_running();
    if bodies && verdict.level == Level::RequestResponse {
        // What is compressed could not be read here.
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    let record = Record {
        audit: audit.clone(),
        verdict,
        base: Arc::new(base),
        context: Arc::new(Context { user, impersonated: OnceLock::new(), annotations: Mutex::default() }),
        resource: registry.find(&info.group, &info.version, &info.resource),
        long_running: info.is_long_running(),
        code: None,
        request: bodies.then(|| (content, Copy::new())),
        answer: None,
        done: false,
    };
    record.emit(Stage::RequestReceived);
    Some(record)
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

/// What all events of a request say.
fn base(id: &str, verdict: &Verdict, user: &User, info: &RequestInfo, request: &Request) -> Value {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let address = request.extensions().get::<Peer>().and_then(|peer| peer.address);
    let source = address.map_or_else(|| "127.0.0.1".to_owned(), |address| address.to_string());
    let mut base = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": format!("{:?}", verdict.level), "auditID": id,
        "requestURI": request.uri().path_and_query().map_or("", |path| path.as_str()),
        "verb": info.verb.as_str(), "user": of_user(user), "sourceIPs": [source],
        "requestReceivedTimestamp": time(Timestamp::now()),
    });
    if let Some(agent) = header(USER_AGENT) {
        base["userAgent"] = agent.into();
    }
    if info.is_resource {
        let mut object = json!({"resource": info.resource, "apiVersion": info.version});
        let named = [
            ("namespace", info.namespace.as_deref()),
            ("name", info.name.as_deref()),
            ("apiGroup", Some(info.group.as_str()).filter(|group| !group.is_empty())),
            ("subresource", info.subresource.as_deref()),
        ];
        for (key, value) in named {
            if let Some(value) = value {
                object[key] = value.into();
            }
        }
        base["objectRef"] = object;
    }
    base
}

impl Record {
    /// Decides what is kept of the answer, and how much at most.
    fn keep_answer(&mut self, response: &Response) -> usize {
        let failed = response.status().as_u16() >= 400;
        let whole = self.verdict.level == Level::RequestResponse && self.request.is_some();
        if failed || whole {
            self.answer = Some((media_type(response.headers()), Copy::new()));
        }
        if whole { ANSWER_LIMIT } else { FAILURE_LIMIT }
    }

    fn emit(&self, stage: Stage) {
        if !self.verdict.wants(stage) {
            return;
        }
        let captured = |kept: &Option<Kept>| {
            let (content, copy) = kept.as_ref()?;
            Some(Captured { bytes: copy.bytes()?, content: content.clone() })
        };
        let complete = matches!(stage, Stage::ResponseComplete | Stage::Panic);
        let answer = captured(&self.answer).filter(|_| complete);
        let whole = self.verdict.level == Level::RequestResponse;
        self.audit.log(Event {
            base: Arc::clone(&self.base),
            stage,
            at: Timestamp::now(),
            impersonated: self.context.impersonated.get().cloned(),
            annotations: json!(*self.context.annotations.lock()),
            code: self.code,
            failure: answer.clone().filter(|_| self.code.is_some_and(|code| code >= 400)),
            request: captured(&self.request).filter(|_| complete),
            response: answer.filter(|_| whole),
            resource: self.resource.clone(),
            omit_managed_fields: self.verdict.omit_managed_fields,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.done {
            self.emit(if std::thread::panicking() { Stage::Panic } else { Stage::ResponseComplete });
        }
    }
}
