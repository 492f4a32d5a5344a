//! pods/log over a WebSocket.

use std::sync::Arc;

use async_trait::async_trait;
use http::Request;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wherry_server::{AsyncReadWrite, ConnectError, NodeConnector, User};

use crate::harness::Running;

/// An agent whose containers said `hello`, and no end of line.
struct Hello;

#[async_trait]
impl NodeConnector for Hello {
    async fn connect(&self, _node: &str) -> Result<Box<dyn AsyncReadWrite>, ConnectError> {
        let (mut agent, server) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(agent.read_u8().await.unwrap());
            }
            agent.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
        });
        Ok(Box::new(server))
    }
}

#[tokio::test]
async fn a_log_comes_in_messages_of_bytes_or_base64() {
    let running = Running::start_with(|config| config.nodes = Arc::new(Hello)).await;
    let client = running.client(&User::admin()).await;
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "a"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap();
    kube::Api::<Pod>::default_namespaced(client.clone()).create(&PostParams::default(), &pod).await.unwrap();
    // An empty message, the log, and the end: by RFC 6455 the kind, the length, the bytes.
    let bytes = [&b"\x82\x00\x82\x05hello"[..], b"\x88\x00"].concat();
    let text = [&b"\x81\x00\x81\x08aGVsbG8="[..], b"\x88\x00"].concat();
    for (asked, given, expected) in [
        (None, None, &bytes),
        (Some("binary.k8s.io"), Some("binary.k8s.io"), &bytes),
        (Some("base64.binary.k8s.io"), Some("base64.binary.k8s.io"), &text),
    ] {
        let mut request = Request::get("/api/v1/namespaces/default/pods/a/log")
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if let Some(asked) = asked {
            request = request.header("sec-websocket-protocol", asked);
        }
        let mut answer = client.send(request.body(kube::client::Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 101, "{asked:?}");
        let chosen = answer.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap());
        assert_eq!(chosen, given);
        let mut told = vec![0; expected.len()];
        let mut socket = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
        socket.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, expected, "{asked:?}");
    }
    running.stop().await;
}
