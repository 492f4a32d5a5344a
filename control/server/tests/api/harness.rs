//! A server over a memory store, and requests as plain text.

use std::sync::Arc;

use futures::StreamExt as _;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use wherry_api::decode::{ContentType, FieldValidation, decode_as};
use wherry_api::facts::Schema;
use wherry_server::{Config, Server, User};
use wherry_store::MemoryStore;

pub(crate) struct Api {
    pub(crate) server: Server,
    client: kube::Client,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    /// The body, decompressed.
    pub(crate) bytes: Vec<u8>,
    pub(crate) text: String,
}

impl Answer {
    /// The document in a protobuf body, which must have come with `code`.
    #[track_caller]
    pub(crate) fn expect_protobuf(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        assert_eq!(self.headers["content-type"], PROTOBUF, "{}", self.text);
        from_protobuf(&self.bytes)
    }

    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The object, which must have come with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.text);
        self.value()
    }
}

pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Reads a protobuf body of the kind that it names.
pub(crate) fn from_protobuf(bytes: &[u8]) -> Value {
    // The envelope: magic, then the message that holds apiVersion and kind.
    let text = |at: usize| String::from_utf8(bytes[at + 1..][..usize::from(bytes[at])].to_vec()).unwrap();
    assert_eq!(bytes[..5], *b"k8s\0\x0a");
    let api_version = text(7);
    let kind = text(7 + 1 + api_version.len() + 1);
    let schema = Schema::builtin(&api_version, &kind).or_else(|| Schema::machinery(&kind)).unwrap();
    decode_as(bytes, ContentType::Protobuf, &schema, FieldValidation::Strict).unwrap().object
}

/// Collects the lines of a watch.
pub(crate) struct Events {
    stream: std::pin::Pin<Box<dyn futures::Stream<Item = Vec<u8>> + Send>>,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.buffer.extend(self.stream.next().await?);
        }
    }

    /// Type and object of the next event of a watch in protobuf.
    pub(crate) async fn next_protobuf(&mut self) -> Option<(String, Value)> {
        let ready = |buffer: &[u8]| {
            let length = buffer.first_chunk().map(|head| 4 + u32::from_be_bytes(*head) as usize);
            length.filter(|length| buffer.len() >= *length)
        };
        loop {
            if let Some(length) = ready(&self.buffer) {
                let frame: Vec<u8> = self.buffer.drain(..length).collect();
                assert_eq!(frame[4], 0x0a);
                let (kind, _) = frame[6..].split_at(usize::from(frame[5]));
                let object = frame.windows(4).position(|w| w == b"k8s\0").unwrap();
                return Some((String::from_utf8(kind.to_vec()).unwrap(), from_protobuf(&frame[object..])));
            }
            self.buffer.extend(self.stream.next().await?);
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn brief(&mut self) -> (String, String) {
        let event = self.next().await.unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
        (event["type"].as_str().unwrap().to_owned(), name.to_owned())
    }
}

pub(crate) fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new())
}

impl Api {
    /// A bootstrapped cluster.
    pub(crate) async fn new() -> Self {
        Self::over(Config::new(store())).await
    }

    pub(crate) async fn over(config: Config) -> Self {
        let server = Server::new(config).unwrap();
        server.bootstrap().await.unwrap();
        let client = server.client(User::admin());
        let api = Self { server, client };
        // A second server over the same store finds it there.
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        api.send("POST", accounts, &[("content-type", "application/json")], DEFAULT_ACCOUNT).await;
        api
    }

    pub(crate) fn as_user(&self, user: User) -> Self {
        Self { server: self.server.clone(), client: self.server.client(user) }
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let response = self.client.send(request(method, path, headers, body.into())).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let bytes = if parts.headers.get("content-encoding").is_some_and(|v| v == "gzip") {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes.as_ref()), &mut plain).unwrap();
            plain
        } else {
            bytes.to_vec()
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// Creates an object; a namespace with the account that its controller would give it.
    pub(crate) async fn post(&self, path: &str, object: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        let answer = self.send("POST", path, &json, object.to_string()).await;
        if path == "/api/v1/namespaces" && answer.code == 201 {
            let name = answer.value()["metadata"]["name"].as_str().unwrap().to_owned();
            self.send("POST", &format!("{path}/{name}/serviceaccounts"), &json, DEFAULT_ACCOUNT).await;
        }
        answer
    }

    pub(crate) async fn put(&self, path: &str, object: &Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], object.to_string()).await
    }

    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.send("PATCH", path, &[("content-type", "application/merge-patch+json")], patch.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str, options: Option<Value>) -> Answer {
        let body = options.map(|o| o.to_string()).unwrap_or_default();
        self.send("DELETE", path, &[("content-type", "application/json")], body).await
    }

    pub(crate) async fn watch(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let response = self.client.send(request("GET", path, headers, Vec::new())).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let stream = response.into_body().into_data_stream().map(|chunk| chunk.unwrap().to_vec());
        Events { stream: Box::pin(stream), buffer: Vec::new() }
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Request<Body> {
    let mut builder = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
    for (key, value) in headers {
        builder = builder.header(*key, *value);
    }
    builder.body(Body::from(body)).unwrap()
}

pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]},
    })
}

pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "a"}, {"name": "d", "image": "b"}]},
            },
        },
    })
}

const DEFAULT_ACCOUNT: &str = r#"{"metadata": {"name": "default"}}"#;
pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
