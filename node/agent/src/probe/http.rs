//! Questions over HTTP, of probes and hooks: by the runtime where it can ask without a connection, by the network otherwise.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};

use super::run::{Target, dial, port, port_text};

const BODY: usize = 10 * 1024;
const REDIRECTS: usize = 10;

/// An answer, after redirects.
pub(crate) enum Answer {
    /// With this status code.
    Status(u16),
    /// A redirect to another host, which is not followed.
    Elsewhere,
}

/// Why there is no answer.
#[derive(Clone)]
pub(crate) enum Refused {
    /// None came.
    Failure(String),
    /// It could not be asked for.
    Error(String),
}

/// What is asked, made ready once and asked any number of times.
pub(crate) struct Question {
    /// As messages tell it.
    url: String,
    request: Request<()>,
    /// Who is asked, where that is not the Pod itself.
    host: Option<String>,
    port: u16,
    is_https: bool,
}

impl Question {
    /// The question that `http` is, to the container at `ip`; `agent` is told as who asks.
    pub(crate) fn new(
        http: &HTTPGetAction,
        container: &Container,
        ip: Option<IpAddr>,
        agent: &str,
    ) -> Result<Self, Refused> {
        let Some(port) = port(&http.port, container) else {
            return Err(Refused::Error(format!("couldn't find port: {}", port_text(&http.port))));
        };
        let scheme = http.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        let host = http.host.clone().filter(|host| !host.is_empty());
        let Some(name) = host.clone().or_else(|| ip.map(|ip| ip.to_string())) else {
            return Err(Refused::Failure("the Pod has no address".to_owned()));
        };
        let authority = if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") };
        let path = http.path.as_deref().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = format!("{scheme}://{authority}{slash}{path}");
        match request(&url, http, agent) {
            Ok(request) => Ok(Self { url, request, host, port, is_https: scheme == "https" }),
            Err(message) => Err(no_answer(&url, &message)),
        }
    }

    /// Asks, and follows redirects to the same place; `limit` bounds all of it.
    pub(crate) async fn ask(&self, target: &Target, limit: Duration) -> Result<Answer, Refused> {
        let deadline = tokio::time::Instant::now() + limit;
        let mut led: Option<(String, Request<()>)> = None;
        for _ in 0..REDIRECTS {
            let (url, request) = led.as_ref().map_or((&self.url, &self.request), |(url, request)| (url, request));
            let (status, location) = match tokio::time::timeout_at(deadline, self.fetch(request, target, limit)).await {
                Err(_) => {
                    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                    return Err(no_answer(url, late));
                }
                Ok(Err(message)) => return Err(no_answer(url, &message)),
                Ok(Ok(answer)) => answer,
            };
            match (status, location) {
                (300..400, Some(location)) => match self.redirected(url, &location) {
                    Some(next) => led = Some(next),
                    None => return Ok(Answer::Elsewhere),
                },
                _ => return Ok(Answer::Status(status)),
            }
        }
        let url = led.map_or_else(|| self.url.clone(), |(url, _)| url);
        Err(no_answer(&url, "stopped after 10 redirects"))
    }

    /// The same question at the place to which an answer from `url` led, if that is the same host.
    fn redirected(&self, url: &str, location: &str) -> Option<(String, Request<()>)> {
        let base: Uri = url.parse().ok()?;
        let to: Uri = location.parse().ok()?;
        // Another port would need another dial; only the very same place is followed.
        if to.authority().is_some() && (to.authority() != base.authority() || to.scheme() != base.scheme()) {
            return None;
        }
        let path = to.path_and_query().map_or("/", |path| path.as_str());
        let mut request = self.request.clone();
        *request.uri_mut() = path.parse().ok()?;
        Some((format!("{}://{}{path}", base.scheme_str()?, base.authority()?), request))
    }

    async fn fetch(
        &self,
        request: &Request<()>,
        target: &Target,
        limit: Duration,
    ) -> Result<(u16, Option<String>), String> {
        if self.host.is_none()
            && !self.is_https
            && let Some(answer) = target.runtime.ask(&target.id, self.port, request.clone()).await
        {
            return Ok(told(&answer));
        }
        // Boxed: what most probes never do would make the task of each of them large.
        Box::pin(self.fetch_by_network(request.clone(), target, limit)).await
    }

    async fn fetch_by_network(
        &self,
        request: Request<()>,
        target: &Target,
        limit: Duration,
    ) -> Result<(u16, Option<String>), String> {
        let request = request.map(|()| Empty::new());
        let stream = dial(target, self.host.as_deref(), self.port, limit).await?;
        if !self.is_https {
            return exchange(TokioIo::new(stream), request).await;
        }
        let name = self.host.clone().or_else(|| target.ip.map(|ip| ip.to_string())).unwrap_or_default();
        let name = rustls::pki_types::ServerName::try_from(name).map_err(|error| error.to_string())?;
        let config = tls::unverified().map_err(|error| error.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
        exchange(TokioIo::new(stream), request).await
    }
}

fn no_answer(url: &str, message: &str) -> Refused {
    Refused::Failure(format!("Get \"{url}\": {message}"))
}

fn request(url: &str, http: &HTTPGetAction, agent: &str) -> Result<Request<()>, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{error}"))?;
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
