//! HTTP as registries need it: who may redirect where, what is worth another try, what an error says.

use std::error::Error as _;
use std::fs;
use std::time::Duration;

use futures::StreamExt;
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use serde::Deserialize;

use super::{Session, header};
use crate::ImageError;
use crate::registries::{Endpoint, Tls};

const CONNECT: Duration = Duration::from_secs(15);
/// A peer that sends nothing for so long has gone.
const IDLE: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 6;
const ATTEMPTS: u32 = 4;
/// A registry may ask for patience; not for more than this.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How much of an error's body is read.
const ERROR_BODY: u64 = 16 * 1024;

/// One failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ImageError,
    /// The connection broke or the server is overloaded: the same may succeed soon.
    pub(super) transient: bool,
    pub(super) wait: Option<Duration>,
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self { error, transient: false, wait: None }
    }
}

/// Waits between attempts, twice as long each time.
pub(super) struct Retry {
    attempt: u32,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self { attempt: 1 }
    }

    /// Whether to try again; returns when it is time to.
    pub(super) async fn after(&mut self, failure: &Failure) -> bool {
        if !failure.transient || self.attempt >= ATTEMPTS {
            return false;
        }
        let backoff = Duration::from_millis(100) * 4u32.pow(self.attempt - 1);
        self.attempt += 1;
        tokio::time::sleep(failure.wait.unwrap_or(backoff).min(LONGEST_WAIT)).await;
        true
    }

    /// Something was gained since the last failure: patience begins anew.
    pub(super) fn progressed(&mut self) {
        self.attempt = 1;
    }
}

pub(super) fn client(tls: Option<&Tls>) -> Result<reqwest::Client, String> {
    // The provider is the process' choice; this one is ours where nobody has chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = Policy::custom(|attempt| {
        let downgrade =
            attempt.previous().last().is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() != "https";
        if attempt.previous().len() > REDIRECTS {
            attempt.error("it redirects in a circle")
        } else if downgrade {
            attempt.error("it redirects from https to http")
        } else {
            attempt.follow()
        }
    });
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("wherry/", env!("CARGO_PKG_VERSION")))
        .redirect(policy)
        .connect_timeout(CONNECT)
        .read_timeout(IDLE)
        .pool_idle_timeout(Duration::from_secs(30));
    if let Some(tls) = tls {
        let read = |path: &std::path::Path| fs::read(path).map_err(|e| format!("can't read {}: {e}", path.display()));
        if let Some(path) = &tls.ca_file {
            let certificates = reqwest::Certificate::from_pem_bundle(&read(path)?)
                .map_err(|e| format!("{} holds no PEM certificates: {e}", path.display()))?;
            builder = builder.tls_certs_merge(certificates);
        }
        if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
            let mut pem = read(cert)?;
            pem.push(b'\n');
            pem.extend(read(key)?);
            builder = builder.identity(
                reqwest::Identity::from_pem(&pem)
                    .map_err(|e| format!("{} and {}: {e}", cert.display(), key.display()))?,
            );
        }
        builder = builder.tls_danger_accept_invalid_certs(tls.insecure_skip_verify);
    }
    builder.build().map_err(|e| describe(&e))
}

impl Session {
    /// Sends a request to an endpoint and answers its challenge. Any status of success comes back; all else is a [`Failure`].
    pub(super) async fn send(
        &self,
        endpoint: &Endpoint,
        actions: &str,
        build: impl Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
        path: &str,
    ) -> Result<reqwest::Response, Failure> {
        self.send_to(endpoint, actions, build, &self.url(endpoint, path), path).await
    }

    pub(super) async fn send_to(
        &self,
        endpoint: &Endpoint,
        actions: &str,
        build: impl Fn(&reqwest::Client, &str) -> reqwest::RequestBuilder,
        url: &str,
        what: &str,
    ) -> Result<reqwest::Response, Failure> {
        let http = self.inner.client.http(endpoint)?;
        let scope = format!("repository:{}:{actions}", self.reference.repository());
        let tokens = &self.inner.client.tokens;
        let mut proof = tokens.known(endpoint, &scope);
        for challenged in [false, true] {
            let mut request = build(&http, url);
            if let Some(proof) = &proof {
                request = request.header("authorization", proof);
            }
            let response = request.send().await.map_err(|e| broken(endpoint, &e))?;
            if response.status().is_success() {
                return Ok(response);
            }
            if response.status() != StatusCode::UNAUTHORIZED || challenged {
                return Err(self.refusal(endpoint, what, response).await);
            }
            let challenges: Vec<String> = response
                .headers()
                .get_all("www-authenticate")
                .iter()
                .filter_map(|value| value.to_str().ok())
                .map(str::to_owned)
                .collect();
            let refusal = self.refusal(endpoint, what, response).await;
            proof = match tokens.answer(&http, endpoint, &challenges, &scope, &self.reference).await? {
                Some(proof) => Some(proof),
                None => return Err(refusal),
            };
        }
        Err(ImageError::Unreachable { registry: endpoint.host.clone(), detail: "no answer".into() }.into())
    }

    async fn refusal(&self, endpoint: &Endpoint, what: &str, response: reqwest::Response) -> Failure {
        let status = response.status();
        let wait = header(&response, "retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let transient =
            status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        let body = read_some(response).await;
        let (registry, reference) = (endpoint.host.clone(), self.reference.to_string());
        let error = match status {
            StatusCode::NOT_FOUND => ImageError::NotFound { reference, registry },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let words = explain(&body);
                let detail = if words.is_empty() { status.to_string() } else { words };
                ImageError::Unauthorized { reference, registry, detail }
            }
            _ => ImageError::Refused {
                registry,
                what: format!("{reference} ({what})"),
                status: status.as_u16(),
                detail: explain(&body),
            },
        };
        Failure { error, transient, wait }
    }
}

/// The connection failed.
pub(super) fn broken(endpoint: &Endpoint, e: &reqwest::Error) -> Failure {
    let error = ImageError::Unreachable { registry: endpoint.host.clone(), detail: describe(e) };
    Failure { error, transient: !e.is_redirect() && !e.is_builder(), wait: None }
}

/// An error and its causes, without the URL (which may carry a signature).
fn describe(e: &reqwest::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = e.source();
    while let Some(e) = cause {
        let text = e.to_string();
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
        cause = e.source();
    }
    match parts.len() {
        0 if e.is_timeout() => "it does not answer in time".to_owned(),
        0 => "the request failed".to_owned(),
        _ => parts.join(": "),
    }
}

/// Reads a body to its end, unless it is longer than `limit`.
pub(super) async fn read_capped(
    response: reqwest::Response,
    limit: u64,
    what: &str,
    reason: &'static str,
    host: &str,
) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|e| Failure {
            error: ImageError::Unreachable { registry: host.to_owned(), detail: describe(&e) },
            transient: true,
            wait: None,
        })?;
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(ImageError::TooLarge { what: what.to_owned(), limit, reason }.into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The beginning of a body, for an error's text.
async fn read_some(response: reqwest::Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(Ok(chunk)) = stream.next().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 >= ERROR_BODY {
            break;
        }
    }
    bytes
}

/// What a registry's error says: its `errors`, else the beginning of the text, in one printable line.
fn explain(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Errors>(body) {
        Ok(Errors { errors }) => {
            errors.iter().take(3).map(|e| format!("{}: {}", e.code, e.message)).collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect::<String>();
    printable.trim().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_short_printable_line() {
        assert_eq!(explain(br#"{"errors":[{"code":"DENIED","message":"no\nway"}]}"#), "DENIED: no way");
        assert_eq!(explain(b"<html>\x1b[31m"), "<html> [31m");
        assert!(explain(&[b'x'; 10_000]).len() <= 300);
    }
}
