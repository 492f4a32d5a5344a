//! Containers that are served: `wasi:http` components at the Pod's address.
//!
//! Each request gets a fresh instance: memory is the image's own pages, copied on write, so nothing of one request is seen by the
//! next, and an idle container costs what its network makes of [`PodNetwork::serve`]. Connections, requests at work and requests that
//! wait are bounded; beyond, new connections wait there and new requests are answered 503; so are those that find no room on the
//! node for their instance.
//!
//! # Ends
//! * `Term`: connections that wait to be accepted still are. One that has had no request yet may bring its first for
//!   [`FIRST_REQUEST`] after it came; idle ones are closed, requests are finished and told `Connection: close`; then exit 0.
//! * A request's trap is answered 500 (if its answer had not begun) and said on stderr; the container goes on.
//! * A request that calls `wasi:cli/exit` or runs out of memory ends the container; answers that are on their way get
//!   [`LINGER`] to leave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::handler::{Proxy, ProxyPre};
use wherry_runtime::{Arrivals, PodNetwork, RuntimeError};

use crate::Options;
use crate::cpu::Metered;
use crate::ending::Ending;
use crate::handle::{self, BadRequest, RequestBody, engine};
use crate::state::{ComponentState, Environment};
use crate::traffic::Counted;

/// The port of a component whose container declares none.
pub(crate) const DEFAULT_PORT: u16 = 8080;
/// How long answers that are on their way have after the container's end.
const LINGER: Duration = Duration::from_millis(250);
/// The longest that a client takes to send a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
/// How long a connection without any request keeps a container from its end: what Go's `http.Server.Shutdown` gives it.
const FIRST_REQUEST: Duration = Duration::from_secs(5);
/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 128;

/// The most that is taken of a body which nobody reads.
const UNREAD_BODY: usize = 10 << 10;

type Answer = Response<WasiBody>;

/// A served container.
pub(crate) struct Server {
    program: ProxyPre<ComponentState>,
    environment: Arc<Environment>,
    /// Requests at work.
    working: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_limit: usize,
    /// Connections, and those who ask without one.
    connections: Arc<Semaphore>,
    /// Cancelled when no more of them are taken.
    closing: CancellationToken,
    /// The end that a request brought about.
    ended: mpsc::Sender<Ending>,
    /// Every request's task. A handler may go on after its answer; the container's end waits for it or drops it.
    guests: TaskTracker,
    /// What these run on.
    threads: Handle,
    /// Drops all of them.
    stop: CancellationToken,
}

/// The way to a container's server for those in this process.
#[derive(Default)]
pub(crate) struct Door(OnceLock<Weak<Server>>);

impl Door {
    fn open(&self, server: &Arc<Server>) {
        let _ = self.0.set(Arc::downgrade(server));
    }

    /// Asks without a connection, as one that counts as one. None where the server takes no more of them, or not yet. On any thread: the
    /// guest runs on its own.
    pub(crate) async fn ask(&self, request: Request<()>) -> Option<Response<()>> {
        let server = self.0.get()?.upgrade()?;
        if server.closing.is_cancelled() || server.stop.is_cancelled() {
            return None;
        }
        let _permit = Arc::clone(&server.connections).acquire_owned().await.ok()?;
        let nothing: fn(std::convert::Infallible) -> hyper::Error = |never| match never {};
        let answer = server.answer(request.map(|()| Empty::new().map_err(nothing))).await;
        let (head, body) = answer.into_parts();
        // A handler whose answer is cut off would fail.
        let _ = Limited::new(body, UNREAD_BODY).collect().await;
        Some(Response::from_parts(head, ()))
    }
}

/// Has connections to the ports of a served container arrive.
pub(crate) fn listen(network: &dyn PodNetwork, ports: &[u16]) -> Result<Vec<Box<dyn Arrivals>>, RuntimeError> {
    let Some(ip) = network.ips().first() else {
        return Err(RuntimeError::Failed("the Pod has no address".into()));
    };
    // Where the Pod has a namespace, its other containers reach this one by loopback too; elsewhere this means the Pod's address.
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let listen_on = |port: &u16| {
        let address = SocketAddr::new(any, *port);
        let failed = |error| RuntimeError::Failed(format!("can't listen on {address}: {error}"));
        network.serve(address).map_err(failed)
    };
    ports.iter().map(listen_on).collect()
}

/// Serves until `term`, or until a request ends it all.
pub(crate) async fn serve(
    program: &ProxyPre<ComponentState>,
    environment: Arc<Environment>,
    doors: Vec<Box<dyn Arrivals>>,
    options: &Options,
    door: &Door,
    term: CancellationToken,
) -> Ending {
    // A component that can't be instantiated at all fails at its start, not at its first request.
    let account = &environment.account;
    let tried = try_out(program, &environment);
    if let Err(error) = Metered::new(Arc::clone(&account.cpu), Arc::clone(&account.pulse), tried).await {
        return Ending::of(&error);
    }
    let (ended, mut end) = mpsc::channel(1);
    let server = Arc::new(Server {
        program: handle::share(program),
        environment,
        working: Arc::new(Semaphore::new(options.concurrent_requests)),
        waiting: AtomicUsize::new(0),
        waiting_limit: options.queued_requests,
        connections: Arc::new(Semaphore::new(options.connections)),
        closing: CancellationToken::new(),
        ended,
        guests: TaskTracker::new(),
        threads: Handle::current(),
        stop: CancellationToken::new(),
    });
    // Whichever way this function is left, by being dropped too, no guest goes on after it.
    let _stop = server.stop.clone().drop_guard();
    door.open(&server);
    // Not tasks of their own: whoever drops this function has closed the doors, and the port is free.
    let open = |arrivals| accept(Arc::clone(&server), arrivals);
    let mut doors: FuturesUnordered<_> = doors.into_iter().map(open).collect();
    let close = async {
        while doors.next().await.is_some() {}
        server.guests.close();
        server.guests.wait().await;
    };
    let mut close = pin!(close);
    let ending = tokio::select! {
        () = term.cancelled() => None,
        ending = end.recv() => ending,
        // Only where every accept loop has failed.
        () = &mut close => Some(Ending::Host("no listener is left".into())),
    };
    // Ends the accept loops and has the connections finish.
    server.closing.cancel();
    match ending {
        None => tokio::select! {
            () = close => Ending::Code(0),
            Some(ending) = end.recv() => ending,
        },
        Some(ending) => {
            // Over time: what is still going on is dropped with `doors`.
            let _ = tokio::time::timeout(LINGER, close).await;
            ending
        }
    }
}

async fn try_out(program: &ProxyPre<ComponentState>, environment: &Arc<Environment>) -> wasmtime::Result<()> {
    let mut store = environment.component_store(engine(program))?;
    program.instantiate_async(&mut store).await.map(drop)
}

/// Takes connections until `closing`, then those that had already arrived; returns when all of them have ended.
async fn accept(server: Arc<Server>, mut arrivals: Box<dyn Arrivals>) {
    let (limit, closing) = (Arc::clone(&server.connections), server.closing.clone());
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { break };
        let stream = tokio::select! {
            biased;
            stream = arrivals.next() => stream,
            () = closing.cancelled() => break,
        };
        connections.spawn(connection(Arc::clone(&server), stream, permit));
    }
    for stream in arrivals.close() {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { break };
        connections.spawn(connection(Arc::clone(&server), stream, permit));
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(server: Arc<Server>, stream: TcpStream, permit: OwnedSemaphorePermit) {
    let (_permit, closing) = (permit, server.closing.clone());
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).keep_alive(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS).keep_alive_interval(HEAD_LIMIT);
    let account = &server.environment.account;
    let (cpu, pulse, traffic) = (Arc::clone(&account.cpu), Arc::clone(&account.pulse), Arc::clone(&account.traffic));
    let (asked, opened) = (CancellationToken::new(), tokio::time::Instant::now());
    let first = asked.clone();
    let service = service_fn(move |request| {
        first.cancel();
        let server = Arc::clone(&server);
        async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
    });
    let work = async {
        let mut connection = pin!(builder.serve_connection(TokioIo::new(Counted::new(stream, traffic)), service));
        let finish = async {
            closing.cancelled().await;
            // Its client connected while this container was in service, and is about to ask.
            let _ = tokio::time::timeout_at(opened + FIRST_REQUEST, asked.cancelled()).await;
        };
        tokio::select! {
            // First: a request that has arrived is taken before the connection is told to finish.
            biased;
            outcome = connection.as_mut() => outcome,
            () = finish => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    // The work of serving is done for the container, and so it is its CPU time.
    if let Err(error) = Metered::new(cpu, pulse, work).await {
        tracing::trace!(%error, "a connection ended early");
    }
}

impl Server {
    async fn answer(self: &Arc<Self>, request: Request<impl RequestBody>) -> Answer {
        if !is_probe(&request) {
            self.environment.account.requests.fetch_add(1, Ordering::Relaxed);
        }
        let Some(permit) = self.admit().await else { return busy("too many requests wait for this container\n") };
        let what = format!("{} {}", request.method(), request.uri().path());
        let (send, answered) = oneshot::channel();
        let work = AssertUnwindSafe(Arc::clone(self).handle(request, send));
        let account = &self.environment.account;
        let server = Arc::clone(self);
        let work = Metered::new(Arc::clone(&account.cpu), Arc::clone(&account.pulse), async move {
            let outcome =
                work.catch_unwind().await.unwrap_or_else(|_| Err(Ending::Host("a host function panicked".into())));
            drop(permit);
            outcome.map_err(|ending| server.failed(&what, ending))
        });
        let stop = self.stop.clone();
        let work = async move { stop.run_until_cancelled(work).await.unwrap_or(Err(Refused::Handler)) };
        // Until its answer begins, a guest whose client is gone is dropped with the task; then it may go on, as a server would.
        let task = AbortOnDropHandle::new(self.guests.spawn_on(work, &self.threads));
        match answered.await {
            Ok(Ok(answer)) => {
                task.detach();
                answer
            }
            Ok(Err(code)) => {
                task.detach();
                self.environment.account.stdio.say(&format!("the handler answered with an error: {code}"));
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the handler answered with an error\n")
            }
            Err(_) => match task.await {
                Ok(Err(Refused::Request(text))) => plain(StatusCode::BAD_REQUEST, text),
                Ok(Err(Refused::NoRoom)) => busy("this node has no room for another Wasm instance\n"),
                _ => plain(StatusCode::INTERNAL_SERVER_ERROR, "the handler failed\n"),
            },
        }
    }

    /// Waits for a place among the requests at work; none where too many wait already.
    async fn admit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.working).try_acquire_owned() {
            return Some(permit);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_limit {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let _left = Left(&self.waiting);
        Arc::clone(&self.working).acquire_owned().await.ok()
    }

    /// One request in an instance of its own, to the handler's end.
    async fn handle(
        self: Arc<Self>,
        request: Request<impl RequestBody>,
        answer: oneshot::Sender<Result<Answer, String>>,
    ) -> Result<(), Ending> {
        let run = async {
            let mut store = self.environment.component_store(engine(&self.program))?;
            match self.program.instantiate_async(&mut store).await? {
                Proxy::P2(proxy) => handle::p2(&mut store, &proxy, request, answer).await,
                Proxy::P3(proxy) => handle::p3(&mut store, &proxy, request, answer).await,
            }
        };
        match run.await {
            Ok(()) => Ok(()),
            Err(error) if error.is::<BadRequest>() => Err(Ending::Host(BadRequest.to_string())),
            Err(error) => Err(Ending::of(&error)),
        }
    }

    /// Says what became of a request, and passes on what is the end of the whole container.
    fn failed(&self, what: &str, ending: Ending) -> Refused {
        match &ending {
            Ending::Host(text) if *text == BadRequest.to_string() => {
                return Refused::Request("the request names no host\n");
            }
            Ending::NoRoom(text) => {
                self.environment.account.stdio.say(&format!("{what}: {text}"));
                return Refused::NoRoom;
            }
            Ending::Trap(text) | Ending::Host(text) => {
                self.environment.account.stdio.say(&format!("{what} failed: {text}"))
            }
            Ending::OutOfMemory(text) => self.environment.account.stdio.say(&format!("{what}: {text}")),
            _ => {}
        }
        if ending.is_whole() {
            // One end is enough: a full channel has one.
            let _ = self.ended.try_send(ending);
        }
        Refused::Handler
    }
}

/// Whether it is the node's own question, which is no work: kubelet and its like say so by their name.
fn is_probe<B>(request: &Request<B>) -> bool {
    request.headers().get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"kube-probe/"))
}

/// Why there is no answer.
enum Refused {
    /// The request itself cannot be handed to a component.
    Request(&'static str),
    /// The node's instances are all taken.
    NoRoom,
    /// The handler failed; it is said on stderr.
    Handler,
}

/// One waiter less when dropped, whether it got its place or gave up.
struct Left<'a>(&'a AtomicUsize);

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// To be tried again.
fn busy(text: &'static str) -> Answer {
    let mut busy = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    busy.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    busy
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}
