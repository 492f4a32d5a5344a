//! The distribution protocol, as a client: manifests and blobs, in both directions.
//!
//! A [`Session`] is one image's business with its registry: it knows the endpoints in order of preference, gets
//! tokens as it is challenged, tries again what may succeed, and trusts nothing it is sent: every length is capped
//! before it is read, every digest is checked.

mod http;
mod token;
mod transfer;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use self::http::{Failure, read_capped};
use self::token::Tokens;
use crate::images::Inner;
use crate::pull::RawManifest;
use crate::registries::{Endpoint, Registries, Tls};
use crate::{Auth, ImageError, Reference, media};

/// What all sessions share: connections and tokens.
pub(crate) struct Client {
    registries: Registries,
    clients: Mutex<HashMap<Option<Tls>, reqwest::Client>>,
    tokens: Tokens,
}

impl Client {
    pub(crate) fn new(registries: Registries) -> Self {
        Self { registries, clients: Mutex::new(HashMap::new()), tokens: Tokens::default() }
    }

    /// Begins business for one image. `auth` goes to the image's own registry only, never to a mirror.
    pub(crate) fn session(&self, inner: &Arc<Inner>, reference: &Reference, auth: Option<Auth>) -> Session {
        let mut endpoints = self.registries.endpoints(reference.registry());
        if let (Some(auth), Some(own)) = (auth, endpoints.last_mut()) {
            own.auth = Some(auth);
        }
        Session { inner: Arc::clone(inner), reference: reference.clone(), endpoints }
    }

    fn http(&self, endpoint: &Endpoint) -> Result<reqwest::Client, ImageError> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&endpoint.tls) {
            return Ok(client.clone());
        }
        let client = http::client(endpoint.tls.as_ref())
            .map_err(|detail| ImageError::Unreachable { registry: endpoint.host.clone(), detail })?;
        clients.insert(endpoint.tls.clone(), client.clone());
        Ok(client)
    }
}

/// One image's business with its registry and the registry's mirrors.
pub(crate) struct Session {
    inner: Arc<Inner>,
    reference: Reference,
    endpoints: Vec<Endpoint>,
}

impl Session {
    /// What the reference means now.
    pub(crate) async fn top(&self) -> Result<RawManifest, ImageError> {
        self.fetch_manifest(self.reference.target(), self.reference.digest()).await
    }

    pub(crate) async fn manifest_by_digest(&self, digest: &str) -> Result<RawManifest, ImageError> {
        self.fetch_manifest(digest, Some(digest)).await
    }

    async fn fetch_manifest(&self, target: &str, expected: Option<&str>) -> Result<RawManifest, ImageError> {
        let path = format!("manifests/{target}");
        self.anywhere(|endpoint| {
            let path = &path;
            async move {
                let response = self
                    .send(endpoint, "pull", |http, url| http.get(url).header("accept", media::ACCEPT), path)
                    .await?;
                let media_type = header(&response, "content-type")
                    .map(|value| value.split(';').next().unwrap_or_default().trim().to_owned());
                let announced = header(&response, "docker-content-digest");
                let limit = self.inner.limits.manifest;
                let what = format!("{}: the manifest from {}", self.reference, endpoint.host);
                let bytes =
                    read_capped(response, limit, &what, "the most that a manifest may have", &endpoint.host).await?;
                let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
                let wanted = expected.or(announced.as_deref().filter(|digest| digest.starts_with("sha256:")));
                if let Some(wanted) = wanted.filter(|wanted| **wanted != digest) {
                    return Err(ImageError::DigestMismatch { what, expected: wanted.to_owned(), actual: digest }.into());
                }
                Ok(RawManifest { digest, media_type, bytes })
            }
        })
        .await
    }

    /// Tries each endpoint in order, each several times where that may help. The error is that of the last one: the registry
    /// itself, whose word counts.
    async fn anywhere<'a, T, F>(&'a self, mut work: impl FnMut(&'a Endpoint) -> F) -> Result<T, ImageError>
    where
        F: Future<Output = Result<T, Failure>> + Send,
    {
        let mut last = None;
        for endpoint in &self.endpoints {
            let mut retry = http::Retry::new();
            loop {
                match work(endpoint).await {
                    Ok(value) => return Ok(value),
                    Err(failure) => {
                        let again = retry.after(&failure).await;
                        if endpoint.mirror_of.is_some() {
                            tracing::debug!(mirror = %endpoint.host, image = %self.reference, error = %failure.error, again, "mirror failed");
                        }
                        last = Some(failure.error);
                        if !again {
                            break;
                        }
                    }
                }
            }
        }
        Err(last.unwrap_or_else(|| ImageError::Unreachable {
            registry: self.reference.registry().to_owned(),
            detail: "no endpoint".into(),
        }))
    }

    /// `base/repository/path`, with the registry's name where a mirror is asked.
    fn url(&self, endpoint: &Endpoint, path: &str) -> String {
        let ns = endpoint.mirror_of.as_ref().map_or_else(String::new, |registry| {
            format!("{}ns={registry}", if path.contains('?') { "&" } else { "?" })
        });
        format!("{}/{}/{path}{ns}", endpoint.base, self.reference.repository())
    }
}

fn header(response: &reqwest::Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}
