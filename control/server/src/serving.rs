//! Connections: TLS, HTTP/1.1 and HTTP/2 by ALPN, limits and the end.
//!
//! One task a connection, all owned by [`serve`]. A client gets 10 s for the handshake and 75 s (between requests too) for the head of
//! a request, and five minutes to read what it is sent; a server holds [`MAX_CONNECTIONS`] at a time and accepts no more until one ends. When `cancel` fires,
//! nothing is accepted any more, watches end, requests under way have [`DRAIN`] to finish, and then what is left
//! is dropped.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{Layer as _, ServiceExt as _};

use crate::User;
use crate::patience::Patient;

/// Connections held at the same time; each costs a file descriptor, of which other parts need some.
pub(crate) const MAX_CONNECTIONS: usize = 4096;
/// How long requests under way may take after the end was announced.
const DRAIN: Duration = Duration::from_secs(10);
/// A pause after `accept` failed for want of resources, so that the loop does not spin until some are free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the head of a request, also while a connection is kept between requests.
    pub head: Duration,
    /// To read what they are sent: somebody may look at `kubectl logs -f` in a pager for a while.
    pub unread: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), head: Duration::from_secs(75), unread: Duration::from_secs(300) }
    }
}

/// What is known about the connection that a request came in by, as a request extension.
#[derive(Clone, Default)]
pub(crate) struct Peer {
    /// The user of the client's certificate.
    pub(crate) user: Option<User>,
    /// Where the connection comes from.
    pub(crate) address: Option<IpAddr>,
    /// Fires when the server ends; streams end with it.
    pub(crate) closing: CancellationToken,
    /// The connection's place among all, for who takes the connection over.
    pub(crate) held: Option<Arc<dyn Any + Send + Sync>>,
}

/// HTTP/2 streams are tasks too: they are counted, and waited for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Accepts connections until `cancel` fires; returns when all of them have ended.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    patience: Patience,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    let tracker = TaskTracker::new();
    let builder = Arc::new(builder(Tracked(tracker.clone()), patience));
    let acceptor = TlsAcceptor::from(tls);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Fires DRAIN after `cancel`: what still runs then is dropped.
    let abort = CancellationToken::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await.map_err(std::io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            Ok::<_, std::io::Error>((stream, permit))
        };
        let accepted = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                let (builder, cancel) = (Arc::clone(&builder), cancel.clone());
                // Held until the connection has ended.
                let permit: Arc<dyn Any + Send + Sync> = Arc::new(permit);
                let connection = connection(stream, acceptor, router, builder, patience, cancel, permit);
                tracker.spawn(abort.clone().run_until_cancelled_owned(connection));
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(DRAIN, tracker.wait()).await.is_err() {
        tracing::info!(connections = tracker.len(), "closing connections that are still busy");
        abort.cancel();
    }
    Ok(())
}

fn builder(executor: Tracked, patience: Patience) -> auto::Builder<Tracked> {
    let mut builder = auto::Builder::new(executor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.head).max_buf_size(256 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250)
        .max_pending_accept_reset_streams(64)
        .max_header_list_size(64 << 10)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    builder: Arc<auto::Builder<Tracked>>,
    patience: Patience,
    cancel: CancellationToken,
    permit: Arc<dyn Any + Send + Sync>,
) {
    // Answers are small and complete when written: waiting for more would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    let address = stream.peer_addr().ok().map(|address| address.ip());
    let stream = Patient::new(stream, patience.unread);
    let stream = match tokio::time::timeout(patience.handshake, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let user = stream.get_ref().1.peer_certificates().and_then(crate::pki::tls::peer_user);
    let peer = Peer { user, address, closing: cancel.clone(), held: Some(permit) };
    let service = axum::Extension(peer)
        .layer(router.into_service())
        .map_request(|r: http::Request<_>| r.map(axum::body::Body::new));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let result = tokio::select! {
        biased;
        result = connection.as_mut() => result,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error, "connection ended");
    }
}
