//! One request, handed to an instance in the form of its WASI version.

use std::future::poll_fn;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, header};
use http_body::Body;
use tokio::sync::oneshot;
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types as p2_types;
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::{WasiBody, WasiHttpView, p3};

use crate::state::ComponentState;

/// Where the answer goes, or the error that the handler gave instead.
pub(crate) type Answering = oneshot::Sender<Result<Response<WasiBody>, String>>;

/// What a request's body has to be.
pub(crate) trait RequestBody: Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static {}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static> RequestBody for B {}

/// The request can't be handed to a component.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the request names no host")]
pub(crate) struct BadRequest;

/// The engine of a program.
pub(crate) fn engine(program: &ProxyPre<ComponentState>) -> &Engine {
    match program {
        ProxyPre::P2(pre) => pre.engine(),
        ProxyPre::P3(pre) => pre.engine(),
    }
}

/// The same program once more.
pub(crate) fn share(program: &ProxyPre<ComponentState>) -> ProxyPre<ComponentState> {
    match program {
        ProxyPre::P2(pre) => ProxyPre::P2(pre.clone()),
        ProxyPre::P3(pre) => ProxyPre::P3(pre.clone()),
    }
}

/// By `wasi:http/incoming-handler` of 0.2, to the handler's end: it may go on after its answer.
pub(crate) async fn p2(
    store: &mut Store<ComponentState>,
    proxy: &Proxy,
    request: Request<impl RequestBody>,
    answer: Answering,
) -> wasmtime::Result<()> {
    let request = match store.data_mut().http().new_incoming_request(p2_types::Scheme::Http, request) {
        Ok(request) => request,
        Err(error) => return Err(error.context(BadRequest)),
    };
    let mut answer = Some(answer);
    let out = store.data_mut().http().new_response_outparam_from_callback(move |outcome| {
        if let Some(answer) = answer.take() {
            // Its client may be gone.
            let _ = answer.send(outcome.map_err(|code| format!("{code:?}")));
        }
    })?;
    proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
}

/// By `wasi:http/handler` of 0.3, until the handler and all that it has begun are done: bodies are sent by its tasks.
pub(crate) async fn p3(
    store: &mut Store<ComponentState>,
    proxy: &Service,
    request: Request<impl RequestBody>,
    answer: Answering,
) -> wasmtime::Result<()> {
    let request = absolute(request)?;
    let (request, received) = p3::Request::from_http(store.data_mut().http().hooks, request);
    store
        .run_concurrent(async |accessor| {
            match proxy.handle(accessor, request).await? {
                Ok(response) => {
                    let response = accessor.with(|store| response.into_http(store, received))?;
                    let _ = answer.send(Ok(response));
                }
                Err(code) => drop(answer.send(Err(format!("{code:?}")))),
            }
            poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        })
        .await?
}

/// A request as a proxy would name it: HTTP/1 names the host beside the path.
fn absolute<B>(mut request: Request<B>) -> wasmtime::Result<Request<B>> {
    let uri = std::mem::take(request.uri_mut());
    let host = || request.headers().get(header::HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = uri.into_parts();
    let Some(authority) = parts.authority.or_else(host) else { return Err(wasmtime::Error::from(BadRequest)) };
    parts.authority = Some(authority);
    parts.scheme = Some(Scheme::HTTP);
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(request)
}
