//! An extension API server in the test's own process: external metrics over HTTPS, for whoever shows the front proxy's certificate.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// Where its metrics are.
const BASE: &str = "/apis/external.metrics.k8s.io/v1beta1";

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct Extension {
    address: SocketAddr,
    bundle: String,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    value: AtomicI64,
    heard: Mutex<Vec<String>>,
    ended: AtomicBool,
}

impl Extension {
    /// Serves as `host` (`NAME.NAMESPACE.svc`), clients of `authority` (PEM) alone.
    pub fn start(host: &str, authority: &str) -> anyhow::Result<Self> {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate()?;
        let root_certificate = root.self_signed(&root_key)?;
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new([host.to_owned()])?.signed_by(&key, &Issuer::from_params(&root, &root_key))?;
        let mut clients = RootCertStore::empty();
        for trusted in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            clients.add(trusted?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider.clone()).build()?;
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, shared, config) = (listener.local_addr()?, Arc::new(Shared::default()), Arc::new(config));
        let listening = Some(std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || listen(&listener, &config, &shared)
        }));
        Ok(Self { address, bundle: STANDARD.encode(root_certificate.pem()), shared, listening })
    }

    /// The Service that leads here, and the APIService; to be applied by who may.
    #[must_use]
    pub fn manifests(&self, namespace: &str, name: &str) -> Vec<Value> {
        let port = self.address.port();
        vec![
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
                "spec": {"type": "ExternalName", "externalName": "localhost"},
            }),
            json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
                "spec": {
                    "group": "external.metrics.k8s.io", "version": "v1beta1", "caBundle": self.bundle,
                    "groupPriorityMinimum": 100, "versionPriority": 100,
                    "service": {"namespace": namespace, "name": name, "port": port},
                },
            }),
        ]
    }

    /// Sets the metric `queue_length`.
    pub fn set(&self, value: i64) {
        self.shared.value.store(value, Ordering::Relaxed);
    }

    /// The heads of all requests until now.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes up who accepts.
        drop(TcpStream::connect(self.address));
        if let Some(listening) = self.listening.take() {
            drop(listening.join());
        }
    }
}

fn listen(listener: &TcpListener, config: &Arc<ServerConfig>, shared: &Arc<Shared>) {
    for stream in listener.incoming().map_while(Result::ok) {
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        let (config, shared) = (Arc::clone(config), Arc::clone(shared));
        std::thread::spawn(move || {
            if let Err(error) = serve(stream, config, &shared) {
                eprintln!("extension API server: {error:#}");
            }
        });
    }
}

/// Answers one request after another, until the client goes.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(config)?, stream));
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match stream.read_line(&mut head) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                // Who has what it wants does not always say good-bye.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && head.is_empty() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        let target = head.split_whitespace().nth(1).context("no request")?;
        let (status, body) = answer(target.split('?').next().unwrap_or_default(), shared);
        shared.heard.lock().unwrap_or_else(PoisonError::into_inner).push(head);
        let body = body.to_string();
        let length = body.len();
        write!(
            stream.get_mut(),
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
        stream.get_mut().flush()?;
    }
}

fn answer(path: &str, shared: &Shared) -> (&'static str, Value) {
    let document = format!("/openapi/v3{BASE}");
    let found = match path {
        BASE => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "external.metrics.k8s.io/v1beta1",
            "resources": [{
                "name": "externalmetrics", "singularName": "", "namespaced": true, "kind": "ExternalMetricValueList",
                "verbs": ["get"],
            }],
        }),
        "/openapi/v3" => {
            json!({"paths": {BASE.trim_start_matches('/'): {"serverRelativeURL": format!("{document}?hash=1")}}})
        }
        path if path == document => {
            json!({"openapi": "3.0.0", "info": {"title": "external", "version": "1"}, "paths": {}})
        }
        path if path.starts_with(&format!("{BASE}/namespaces/")) && path.ends_with("/queue_length") => json!({
            "kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
            "items": [{
                "metricName": "queue_length", "metricLabels": {}, "timestamp": "2026-01-01T00:00:00Z",
                "value": shared.value.load(Ordering::Relaxed).to_string(),
            }],
        }),
        _ => {
            let message = "the server could not find the requested resource";
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                "reason": "NotFound", "details": {}, "code": 404,
            });
            return ("404 Not Found", status);
        }
    };
    ("200 OK", found)
}
