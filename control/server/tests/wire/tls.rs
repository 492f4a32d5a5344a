//! Certificates, protocols, the end of connections.

use std::sync::Arc;

use futures::TryStreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpStream;
use wherry_server::User;
use wherry_server::pki::Credentials;

use crate::harness::Running;

/// A TLS connection that shows `credentials` and speaks `alpn`.
async fn connect(
    running: &Running,
    credentials: Option<Credentials>,
    alpn: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(running.pki.ca_certificate().as_bytes()).unwrap()).unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(running.address).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
}

/// One GET over a connection of its own; code and body.
async fn get(running: &Running, credentials: Option<Credentials>, alpn: &[u8], path: &str) -> Option<(u16, String)> {
    let stream = TokioIo::new(connect(running, credentials, alpn).await.ok()?);
    let request = http::Request::get(format!("https://localhost{path}"))
        .header("host", "localhost")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = if alpn == b"h2" {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request).await.ok()?
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request).await.ok()?
    };
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((code, String::from_utf8(body.to_vec()).unwrap()))
}

#[tokio::test]
async fn identities_come_from_certificates() {
    let running = Running::start().await;
    let admin = running.pki.admin().unwrap();
    for alpn in [b"h2".as_slice(), b"http/1.1"] {
        assert_eq!(get(&running, Some(admin.clone()), alpn, "/api/v1/namespaces/default").await.unwrap().0, 200);
        let (code, body) = get(&running, None, alpn, "/api/v1/namespaces/default").await.unwrap();
        assert_eq!((code, body.contains("Unauthorized")), (401, true));
        assert_eq!(get(&running, None, alpn, "/livez").await.unwrap(), (200, "ok".to_owned()));
        assert_eq!(get(&running, None, alpn, "/version").await.unwrap().0, 200);
    }
    let jane = running.pki.client("jane", &User::new("jane", ["dev"])).unwrap();
    assert_eq!(get(&running, Some(jane), b"h2", "/api/v1/pods").await.unwrap().0, 403);
    // A certificate of another authority gets nowhere.
    let other = tempfile::tempdir().unwrap();
    let foreign = wherry_server::pki::Pki::open(other.path()).unwrap().admin().unwrap();
    assert_eq!(get(&running, Some(foreign), b"http/1.1", "/livez").await, None);
    running.stop().await;
}

#[tokio::test]
async fn a_kube_client_works_over_the_wire() {
    let running = Running::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(running.client(&User::admin()).await);
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let mut events = Box::pin(maps.watch(&WatchParams::default(), "0").await.unwrap());
    assert!(
        matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(m)) if m.metadata.name.as_deref() == Some("a"))
    );
    let patch = Patch::Merge(json!({"data": {"k": "w"}}));
    maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert!(
        matches!(events.try_next().await.unwrap(), Some(WatchEvent::Modified(m)) if m.data.as_ref().unwrap()["k"] == "w")
    );
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    maps.delete("a", &Default::default()).await.unwrap();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));
    running.stop().await;
}

#[tokio::test]
async fn watches_end_with_the_server() {
    let running = Running::start().await;
    let pods: Api<Pod> = Api::all(running.client(&User::admin()).await);
    let mut events = Box::pin(pods.watch(&WatchParams::default(), "0").await.unwrap());
    let waiting = tokio::spawn(async move { events.try_next().await });
    running.stop().await;
    assert!(!matches!(waiting.await.unwrap(), Ok(Some(_))));
}

#[tokio::test]
async fn a_connection_that_says_nothing_harms_nobody() {
    let running = Running::start().await;
    let silent: Vec<TcpStream> = futures::future::join_all((0..50).map(|_| TcpStream::connect(running.address)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let admin = running.pki.admin().unwrap();
    assert_eq!(get(&running, Some(admin), b"h2", "/readyz").await.unwrap().0, 200);
    drop(silent);
    running.stop().await;
}

#[tokio::test]
async fn strangers_are_noted_in_the_audit_log() {
    use wherry_server::audit::{Audit, Policy, Rotation};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let policy =
        "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata, omitStages: [RequestReceived]}]}";
    let audit = Audit::open(Policy::parse(policy).unwrap(), &path, Rotation::default()).unwrap();
    let log = audit.clone();
    let running = Running::start_with(|config| config.audit = Some(audit)).await;
    let refused = running.bearer::<k8s_openapi::api::core::v1::Node>("nobody knows this").get("n").await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 401));
    let admin = Some(running.pki.admin().unwrap());
    assert_eq!(get(&running, admin, b"http/1.1", "/api/v1/nodes/none").await.unwrap().0, 404);
    log.flushed();
    let text = std::fs::read_to_string(&path).unwrap();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |uri: &str| events.iter().filter(|event| event["requestURI"] == uri).collect::<Vec<_>>();
    let stranger = of("/api/v1/nodes/n");
    assert_eq!(stranger.len(), 1, "{stranger:?}");
    assert_eq!(
        (&stranger[0]["responseStatus"]["code"], &stranger[0]["stage"]),
        (&json!(401), &json!("ResponseStarted"))
    );
    assert_eq!(stranger[0]["user"]["username"], "");
    let known = of("/api/v1/nodes/none");
    assert_eq!(
        (&known[0]["sourceIPs"], &known[0]["user"]["username"]),
        (&json!(["127.0.0.1"]), &json!("kubernetes-admin"))
    );
    running.stop().await;
}

/// Sends `text` and reads until the server ends the connection; what it answered.
async fn until_cut_off(running: &Running, text: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = connect(running, None, b"http/1.1").await.unwrap();
    // The server may have had enough before it has seen all.
    let _ = stream.write_all(text).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn heads_that_are_slow_or_endless_end_their_connection_alone() {
    let running = Running::start_with(|config| config.patience.head = std::time::Duration::from_millis(200)).await;
    let slow = until_cut_off(&running, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n").await;
    assert!(!slow.contains(" 200 "), "{slow}");
    let mut endless = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n".to_vec();
    for number in 0..40_000 {
        endless.extend_from_slice(format!("x-{number}: {number}\r\n").as_bytes());
    }
    let refused = until_cut_off(&running, &endless).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
    assert_eq!(get(&running, None, b"http/1.1", "/readyz").await.unwrap().0, 200);
    running.stop().await;
}
