//! One probe, made. Texts are kubelet's (Go's), since people search for them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;
use wherry_runtime::{ContainerId, Runtime, RuntimeError, collect};

use super::{grpc, timeout};
use crate::ports::NodeNet;

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It passed.
    Success,
    /// It passed, with something to tell (a redirect elsewhere).
    Warning(String),
    /// It failed.
    Failure(String),
    /// It could not be made; counts as a failure.
    Error(String),
}

impl Found {
    pub(crate) fn is_success(&self) -> bool {
        matches!(self, Self::Success | Self::Warning(_))
    }
}

/// What a probe is made against.
pub(crate) struct Target {
    pub(crate) network: Arc<dyn NodeNet>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) id: ContainerId,
    pub(crate) ip: Option<IpAddr>,
}

const EXEC_OUTPUT: usize = 10 * 1024;
const BODY: usize = 10 * 1024;
const REDIRECTS: usize = 10;

/// Makes one probe, within its `timeoutSeconds`.
pub(crate) async fn probe(probe: &Probe, container: &Container, target: &Target) -> Found {
    let limit = timeout(probe);
    if let Some(http) = &probe.http_get {
        get(http, container, target, limit).await
    } else if let Some(tcp) = &probe.tcp_socket {
        let Some(port) = port(&tcp.port, container) else {
            return Found::Error(format!("couldn't find port: {}", port_text(&tcp.port)));
        };
        let host = tcp.host.clone().filter(|host| !host.is_empty());
        match dial(target, host.as_deref(), port, limit).await {
            Ok(_) => Found::Success,
            Err(message) => Found::Failure(message),
        }
    } else if let Some(action) = &probe.grpc {
        Box::pin(grpc::check(action, target, limit)).await
    } else if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        match tokio::time::timeout(limit, collect(&*target.runtime, &target.id, &command, EXEC_OUTPUT)).await {
            Err(_) => Found::Failure(format!(
                "command timed out: {:?} timed out after {}s",
                command.join(" "),
                limit.as_secs()
            )),
            Ok(Ok(output)) if output.code == 0 => Found::Success,
            Ok(Ok(output)) => {
                let text = [output.stdout, output.stderr].concat();
                Found::Failure(String::from_utf8_lossy(&text).into_owned())
            }
            Ok(Err(RuntimeError::Unsupported(message))) => {
                Found::Error(format!("exec is not possible here: {message}"))
            }
            Ok(Err(error)) => Found::Error(error.to_string()),
        }
    } else {
        Found::Error(format!("missing probe handler for {}", container.name))
    }
}

/// A request for a hook. Any answer will do.
pub(crate) async fn request(
    http: &HTTPGetAction,
    container: &Container,
    target: &Target,
    limit: Duration,
) -> Result<Answer, String> {
    ask(http, container, target, limit, "kube-lifecycle/1.36").await.map_err(|refused| match refused {
        Refused::Failure(message) | Refused::Error(message) => message,
    })
}

/// An answer, after redirects.
pub(crate) enum Answer {
    /// With this status code.
    Status(u16),
    /// A redirect to another host, which is not followed.
    Elsewhere,
}

/// Why there is no answer.
enum Refused {
    /// None came.
    Failure(String),
    /// It could not be asked for.
    Error(String),
}

/// A port by number or by the container's name for it.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|number| *number != 0),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
                .and_then(|number| u16::try_from(number).ok())
        }
    }
}

fn port_text(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

async fn dial(target: &Target, host: Option<&str>, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let address = match host {
        None => target.ip.map(|ip| SocketAddr::new(ip, port)),
        Some(host) => match host.parse::<IpAddr>() {
            Ok(ip) => Some(SocketAddr::new(ip, port)),
            Err(_) => tokio::net::lookup_host((host, port)).await.ok().and_then(|mut found| found.next()),
        },
    };
    let Some(address) = address else {
        return Err(format!("dial tcp: lookup {}: no such host", host.unwrap_or_default()));
    };
    match tokio::time::timeout(limit, target.network.dial(address)).await {
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(format!("dial tcp {address}: connect: {}", go_error(&error))),
    }
}

pub(super) fn go_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

async fn get(http: &HTTPGetAction, container: &Container, target: &Target, limit: Duration) -> Found {
    match ask(http, container, target, limit, "kube-probe/1.36").await {
        Ok(Answer::Status(200..400)) => Found::Success,
        Ok(Answer::Status(status)) => Found::Failure(format!("HTTP probe failed with statuscode: {status}")),
        Ok(Answer::Elsewhere) => Found::Warning("Probe terminated redirects, Response body: ".to_owned()),
        Err(Refused::Failure(message)) => Found::Failure(message),
        Err(Refused::Error(message)) => Found::Error(message),
    }
}

async fn ask(
    http: &HTTPGetAction,
    container: &Container,
    target: &Target,
    limit: Duration,
    agent: &str,
) -> Result<Answer, Refused> {
    let Some(port) = port(&http.port, container) else {
        return Err(Refused::Error(format!("couldn't find port: {}", port_text(&http.port))));
    };
    let scheme = http.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let named = http.host.clone().filter(|host| !host.is_empty());
    let Some(host) = named.clone().or_else(|| target.ip.map(|ip| ip.to_string())) else {
        return Err(Refused::Failure("the Pod has no address".to_owned()));
    };
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut path = http.path.clone().unwrap_or_default();
    if !path.starts_with('/') {
        path.insert(0, '/');
    }
    let mut url = format!("{scheme}://{authority}{path}");
    let deadline = tokio::time::Instant::now() + limit;
    let failed = |url: &str, message: &str| Err(Refused::Failure(format!("Get \"{url}\": {message}")));
    for _ in 0..REDIRECTS {
        let asked = fetch(&url, http, target, named.as_deref(), port, limit, agent);
        let (status, location) = match tokio::time::timeout_at(deadline, asked).await {
            Err(_) => {
                return failed(&url, "context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
            }
            Ok(Err(message)) => return failed(&url, &message),
            Ok(Ok(answer)) => answer,
        };
        match (status, location) {
            (300..400, Some(location)) => match redirect(&url, &location) {
                Some(next) => url = next,
                None => return Ok(Answer::Elsewhere),
            },
            _ => return Ok(Answer::Status(status)),
        }
    }
    failed(&url, "stopped after 10 redirects")
}

/// Where a redirect leads, if that is the same host.
fn redirect(from: &str, location: &str) -> Option<String> {
    let base: Uri = from.parse().ok()?;
    let to: Uri = location.parse().ok()?;
    match to.authority() {
        None => Some(format!(
            "{}://{}{}",
            base.scheme_str()?,
            base.authority()?,
            to.path_and_query().map_or("/", |path| path.as_str())
        )),
        // Another port would need another dial; only the very same place is followed.
        Some(authority) if Some(authority) == base.authority() && to.scheme() == base.scheme() => {
            Some(location.to_owned())
        }
        Some(_) => None,
    }
}

async fn fetch(
    url: &str,
    http: &HTTPGetAction,
    target: &Target,
    host: Option<&str>,
    port: u16,
    limit: Duration,
    agent: &str,
) -> Result<(u16, Option<String>), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
    let request = build(&uri, http, agent)?;
    if host.is_none() && uri.scheme_str() == Some("http") {
        let answer = target.runtime.ask(&target.id, port, request.clone()).await;
        if let Some(answer) = answer {
            return Ok(told(&answer));
        }
    }
    // Boxed: what most probes never do would make the task of each of them large.
    Box::pin(fetch_by_network(&uri, request, target, host, port, limit)).await
}

async fn fetch_by_network(
    uri: &Uri,
    request: Request<()>,
    target: &Target,
    host: Option<&str>,
    port: u16,
    limit: Duration,
) -> Result<(u16, Option<String>), String> {
    let request = request.map(|()| Empty::new());
    let stream = dial(target, host, port, limit).await?;
    if uri.scheme_str() == Some("https") {
        let name = host.map_or_else(|| target.ip.map(|ip| ip.to_string()).unwrap_or_default(), str::to_owned);
        let name = rustls::pki_types::ServerName::try_from(name).map_err(|error| error.to_string())?;
        let config = tls::unverified().map_err(|error| error.to_string())?;
        let stream =
            tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())?;
        exchange(TokioIo::new(stream), request).await
    } else {
        exchange(TokioIo::new(stream), request).await
    }
}

fn build(uri: &Uri, http: &HTTPGetAction, agent: &str) -> Result<Request<()>, String> {
    let mut request = Request::builder()
        .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
        .body(())
        .map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    let fixed = [
        ("host", uri.authority().map_or("", |authority| authority.as_str())),
        ("user-agent", agent),
        ("accept", "*/*"),
        ("connection", "close"),
    ];
    for (name, value) in fixed {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).map_err(|error| error.to_string())?);
    }
    for header in http.http_headers.iter().flatten() {
        let name: HeaderName = header.name.parse().map_err(|error| format!("{error}"))?;
        if header.value.is_empty() {
            headers.remove(&name);
        } else {
            headers.insert(name, HeaderValue::from_str(&header.value).map_err(|error| error.to_string())?);
        }
    }
    Ok(request)
}

/// The status code, and where a redirect leads.
fn told<B>(answer: &http::Response<B>) -> (u16, Option<String>) {
    let location = answer.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok());
    (answer.status().as_u16(), location.map(str::to_owned))
}

async fn exchange<S>(stream: S, request: Request<Empty<bytes::Bytes>>) -> Result<(u16, Option<String>), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(stream).await.map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let told = told(&response);
        // A limited part of the body is taken, so that a server does not see its answer cut off.
        let _body = Limited::new(response.into_body(), BODY).collect().await;
        Ok(told)
    };
    let mut answer = std::pin::pin!(answer);
    // The connection is driven here and ends with this call; a closed one still leaves its answer to be read.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

mod tls {
    //! Probes trust every certificate, as kubelet's do: they ask whether something answers, not who.

    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::CryptoProvider;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    struct Unverified(Arc<CryptoProvider>);

    pub(super) fn unverified() -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        Ok(Arc::new(
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified(provider))).with_no_client_auth(),
        ))
    }

    impl ServerCertVerifier for Unverified {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
