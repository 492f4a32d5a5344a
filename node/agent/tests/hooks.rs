//! Hooks and gRPC probes of both kinds, against a real API server and real sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wherry_runtime::fake::FakeRuntime;
use wherry_runtime::{ExecOutput, Signal};
use world::{World, soon};

/// Both kinds: their image and their runtime.
fn kinds(world: &World) -> [(&'static str, &'static str, Arc<FakeRuntime>); 2] {
    [("wasm", "wasm:1", world.wasm.clone()), ("oci", "oci:1", world.containers.clone())]
}

fn exits(code: i32) -> Option<ExecOutput> {
    Some(ExecOutput { code, stdout: Bytes::new(), stderr: Bytes::new() })
}

fn hooked(image: &str, hooks: Value) -> Value {
    json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": image, "lifecycle": hooks }] })
}

#[tokio::test]
async fn a_container_is_told_as_running_only_after_its_post_start_hook() {
    let world = World::new(75).await;
    for (pod, image, runtime) in kinds(&world) {
        world.create(pod, hooked(image, json!({ "postStart": { "sleep": { "seconds": 20 } } }))).await;
        runtime.running("c", 0).await;
        world.event(pod, "Started", "").await;
        let status = world.waiting(pod, "ContainerCreating").await;
        assert_eq!(status["containerStatuses"][0]["started"], false);
        world.clock.advance(Duration::from_secs(60));
        world.ready(pod).await;
    }
}

#[tokio::test]
async fn a_failed_post_start_hook_kills_its_container() {
    let world = World::new(76).await;
    for (pod, image, runtime) in kinds(&world) {
        runtime.answer_exec(exits(1));
        world.create(pod, hooked(image, json!({ "postStart": { "exec": { "command": ["false"] } } }))).await;
        assert_eq!(world.event(pod, "FailedPostStartHook", "").await, "PostStartHook failed");
        assert_eq!(world.event(pod, "Killing", "").await, "FailedPostStartHook");
        let status = world.status(pod, "failure", |status| status["phase"] == "Failed").await;
        assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 143);
    }
}

#[tokio::test]
async fn a_pod_that_is_deleted_in_its_post_start_hook_ends_in_order() {
    let world = World::new(77).await;
    for (pod, image, runtime) in kinds(&world) {
        runtime.answer_exec(exits(1));
        let hooks =
            json!({ "postStart": { "sleep": { "seconds": 3600 } }, "preStop": { "exec": { "command": ["bye"] } } });
        let mut spec = hooked(image, hooks);
        spec["terminationGracePeriodSeconds"] = json!(3601);
        world.create(pod, spec).await;
        world.event(pod, "Started", "").await;
        world.delete(pod, 30).await;
        assert_eq!(world.event(pod, "FailedPreStopHook", "").await, "PreStopHook failed");
        world.gone(pod).await;
    }
}

/// Takes one request; its head. The answer is a 404: any will do.
async fn one_request(address: String) -> String {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let (mut stream, _) = soon("a request", listener.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_pre_stop_request_is_made_before_term_and_any_answer_will_do() {
    let world = World::new(78).await;
    for (pod, image, _) in kinds(&world) {
        let get = json!({ "path": "/bye?now", "port": 8080, "httpHeaders": [{ "name": "X-Who", "value": "me" }] });
        world.create(pod, hooked(image, json!({ "preStop": { "httpGet": get } }))).await;
        let ip = world.ready(pod).await["podIP"].as_str().unwrap().to_owned();
        let request = tokio::spawn(one_request(format!("{ip}:8080")));
        world.delete(pod, 30).await;
        let head = soon("the hook", request).await.unwrap().to_lowercase();
        assert!(head.starts_with("get /bye?now http/1.1") && head.contains("x-who: me"), "{head}");
        assert!(head.contains("user-agent: kube-lifecycle/1.36"), "{head}");
        world.gone(pod).await;
    }
}

#[tokio::test]
async fn a_hook_that_takes_all_of_the_grace_leaves_two_seconds() {
    let world = World::new(79).await;
    for (pod, image, runtime) in kinds(&world) {
        runtime.ignore_term(true);
        let mut spec = hooked(image, json!({ "preStop": { "sleep": { "seconds": 10 } } }));
        spec["terminationGracePeriodSeconds"] = json!(10);
        world.create(pod, spec).await;
        world.ready(pod).await;
        let id = runtime.running("c", 0).await.id;
        world.delete(pod, 10).await;
        world.event(pod, "Killing", "Stopping container c").await;
        world.clock.advance(Duration::from_secs(10));
        // Term comes now, and is ignored; the kill comes two seconds later.
        soon("Term", runtime.signalled(&id, Signal::Term)).await;
        assert_eq!(runtime.signals(&id), [Signal::Term]);
        world.clock.advance(Duration::from_secs(2));
        world.gone(pod).await;
    }
}

/// A health service: the status it is told to give, as gRPC has it. 12: it does not know the method.
async fn health(address: String) -> Arc<AtomicU8> {
    let status = Arc::new(AtomicU8::new(2));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let told = status.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let told = told.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let told = told.clone();
                async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let sent = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
                    assert_eq!(sent, &b"\0\0\0\0\x04\x0a\x02db"[..]);
                    let status = told.load(Ordering::Relaxed);
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from(if status == 12 { 12 } else { 0 }));
                    trailers.insert("grpc-message", HeaderValue::from_static("unknown method"));
                    let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
                    let data = (status != 12).then(|| Ok::<_, Infallible>(Frame::data(message)));
                    let frames = data.into_iter().chain([Ok(Frame::trailers(trailers))]);
                    let body = StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>()));
                    Response::builder().header("content-type", "application/grpc").body(body)
                }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    status
}

#[tokio::test]
async fn grpc_probes_ask_for_health() {
    let world = World::new(80).await;
    for (pod, image, runtime) in kinds(&world) {
        let ask = json!({ "grpc": { "port": 9090, "service": "db" }, "periodSeconds": 5, "timeoutSeconds": 20, "failureThreshold": 1 });
        let mut live = ask.clone();
        live["initialDelaySeconds"] = json!(1000);
        live["terminationGracePeriodSeconds"] = json!(1);
        let container = json!({ "name": "c", "image": image, "readinessProbe": ask, "livenessProbe": live });
        world.create(pod, json!({ "containers": [container] })).await;
        runtime.running("c", 0).await;
        let refused =
            world.event(pod, "Unhealthy", "Readiness probe failed: error: failed to connect service at").await;
        assert!(refused.ends_with("connection refused"), "{refused}");
        let status = world.status(pod, "running", |status| status["phase"] == "Running").await;
        let serving = health(format!("{}:9090", status["podIP"].as_str().unwrap())).await;
        let step = || world.clock.advance(Duration::from_secs(5));
        step();
        world
            .event(pod, "Unhealthy", "Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")")
            .await;
        serving.store(12, Ordering::Relaxed);
        step();
        world.event(pod, "Unhealthy", "Readiness probe failed: error: this server does not implement the grpc health protocol (grpc.health.v1.Health): rpc error: code = Unimplemented desc = unknown method").await;
        serving.store(1, Ordering::Relaxed);
        step();
        world.ready(pod).await;
        serving.store(2, Ordering::Relaxed);
        // What ignores Term is killed at the end of the probe's own grace, not of its Pod's.
        runtime.ignore_term(true);
        world.clock.advance(Duration::from_secs(1000));
        world.event(pod, "Killing", "Container c failed liveness probe, will be restarted").await;
        world.clock.advance(Duration::from_secs(2));
        runtime.running("c", 1).await;
    }
}
