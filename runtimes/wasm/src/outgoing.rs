//! `wasi:http/outgoing-handler`: requests that leave from the Pod's address.
//!
//! One connection a request: look up, check and map the address, connect, TLS where the scheme is https, send. Every step has a
//! time limit. The pieces of wasmtime-wasi-http around it (headers, bodies, futures) are its own.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, timeout};
use tokio_rustls::TlsConnector;
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};
use wherry_runtime::PodNetwork;

use crate::net;
use crate::traffic::{Counted, Counter};

/// Where the guest names no time limit, and the longest that it may name.
const TIME_LIMIT: Duration = Duration::from_secs(600);
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// One container's way out. Each of its instances has a clone.
#[derive(Clone)]
pub(crate) struct Outgoing(Arc<Way>);

struct Way {
    network: Arc<dyn PodNetwork>,
    traffic: Arc<Counter>,
    /// Requests that it may have at once.
    requests: Arc<Semaphore>,
}

type Done = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Done), Error>;

impl Outgoing {
    pub(crate) fn new(network: Arc<dyn PodNetwork>, traffic: Arc<Counter>, requests: usize) -> Self {
        Self(Arc::new(Way { network, traffic, requests: Arc::new(Semaphore::new(requests)) }))
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Done,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let way = Arc::clone(&self.0);
        Box::new(async move {
            let permit = Arc::clone(&way.requests).try_acquire_owned();
            let permit = permit.map_err(|_| Error::ConnectionLimitReached)?;
            send(&way, request, Limits::of(options), permit).await
        })
    }
}

/// Time limits of one request.
struct Limits {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Limits {
    fn of(options: Option<RequestOptions>) -> Self {
        let limit = |asked: Option<Duration>, most: Duration| asked.unwrap_or(most).min(most);
        Self {
            connect: limit(options.as_ref().and_then(|options| options.connect_timeout), CONNECT_LIMIT),
            first_byte: limit(options.as_ref().and_then(|options| options.first_byte_timeout), TIME_LIMIT),
            between_bytes: limit(options.as_ref().and_then(|options| options.between_bytes_timeout), TIME_LIMIT),
        }
    }
}

async fn send(way: &Way, mut request: Request<WasiBody>, limits: Limits, permit: OwnedSemaphorePermit) -> Sent {
    let target = Target::of(request.uri())?;
    let stream = timeout(limits.connect, target.connect(way.network.as_ref(), Arc::clone(&way.traffic)))
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    // What goes to the server itself names the path alone.
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = spawn(async move {
        let outcome = connection.await;
        drop(permit);
        outcome
    });
    let response =
        timeout(limits.first_byte, sender.send_request(request)).await.map_err(|_| Error::ConnectionReadTimeout)??;
    let between = limits.between_bytes.max(Duration::from_millis(1));
    let response =
        response.map(|body| Timed { body, between, idle: Box::pin(tokio::time::sleep(between)) }.boxed_unsync());
    Ok((response, Box::new(finish(connection))))
}

async fn finish(connection: AbortOnDropJoinHandle<hyper::Result<()>>) -> Result<(), Error> {
    Ok(connection.await?)
}

/// Where a request goes.
struct Target {
    host: String,
    port: u16,
    tls: bool,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Target {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let authority = uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
        let tls = uri.scheme() == Some(&Scheme::HTTPS);
        let host = authority.host();
        let host = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(Error::HttpRequestUriInvalid);
        }
        Ok(Self { host: host.to_owned(), port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls })
    }

    async fn connect(&self, network: &dyn PodNetwork, traffic: Arc<Counter>) -> Result<Box<dyn Stream>, Error> {
        let ips = net::resolve(network, &self.host).await.map_err(unresolved)?;
        let stream = net::connect(network, &ips, self.port).await.map_err(unconnected)?;
        let stream = Counted::new(stream, traffic);
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let name = match self.host.parse::<IpAddr>() {
            Ok(ip) => ServerName::from(ip),
            Err(_) => ServerName::try_from(self.host.clone()).map_err(|_| Error::HttpRequestUriInvalid)?,
        };
        let tls = TLS.as_ref().map_err(|_| Error::TlsProtocolError)?;
        Ok(Box::new(tls.connect(name, stream).await.map_err(Error::Tls)?))
    }
}

/// Trusts the Web's certificate authorities.
static TLS: LazyLock<Result<TlsConnector, rustls::Error>> = LazyLock::new(|| {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
});

fn unresolved(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => Error::DnsTimeout,
        io::ErrorKind::PermissionDenied => Error::HttpRequestDenied,
        io::ErrorKind::NotFound => Error::DnsError { rcode: Some("NXDOMAIN".into()), info_code: None },
        _ => Error::DnsError { rcode: Some("SERVFAIL".into()), info_code: None },
    }
}

fn unconnected(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Error::DestinationIpProhibited,
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationIpUnroutable,
        _ => Error::Connect(error),
    }
}

/// A response's body that ends with an error when the server falls silent.
struct Timed {
    body: Incoming,
    between: Duration,
    idle: Pin<Box<Sleep>>,
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                this.idle.as_mut().reset(tokio::time::Instant::now() + this.between);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => this.idle.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let target =
            |uri: &str| Target::of(&uri.parse().unwrap()).map(|target| (target.host, target.port, target.tls)).ok();
        assert_eq!(target("http://redis/x"), Some(("redis".into(), 80, false)));
        assert_eq!(target("https://example.com:8443/"), Some(("example.com".into(), 8443, true)));
        assert_eq!(target("https://[::1]/"), Some(("::1".into(), 443, true)));
        assert_eq!(target("/path"), None);
    }
}
