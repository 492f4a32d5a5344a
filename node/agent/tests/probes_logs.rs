//! Probes against real sockets, logs over the agent's HTTP API, Services into the network.
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use futures::StreamExt as _;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use wherry_runtime::Stream;
use world::{World, condition, soon};

/// An HTTP server that answers with whatever code it is told.
async fn answering(address: String) -> Arc<AtomicU16> {
    let code = Arc::new(AtomicU16::new(503));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let answer = code.clone();
    let router = axum::Router::new()
        .fallback(move || async move { StatusCode::from_u16(answer.load(Ordering::Relaxed)).unwrap() });
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper_util::service::TowerToHyperService::new(router.clone());
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
            );
        }
    });
    code
}

#[tokio::test]
async fn readiness_follows_its_probe_and_liveness_restarts() {
    let world = World::new(20).await;
    let probe = json!({ "httpGet": { "path": "/ready", "port": "web" }, "periodSeconds": 5, "failureThreshold": 1 });
    let live =
        json!({ "tcpSocket": { "port": 8081 }, "periodSeconds": 5, "failureThreshold": 2, "initialDelaySeconds": 60 });
    let container = json!({ "name": "c", "image": "wasm:1", "ports": [{ "name": "web", "containerPort": 8080 }], "readinessProbe": probe, "livenessProbe": live });
    world.create("p", json!({ "containers": [container] })).await;
    world.wasm.running("c", 0).await;
    let refused = world.event("p", "Unhealthy", "Readiness probe failed: Get \"http://127.77.20.2:8080/ready\"").await;
    assert!(refused.ends_with("dial tcp 127.77.20.2:8080: connect: connection refused"), "{refused}");
    let status = world.status("p", "running", |status| status["phase"] == "Running").await;
    assert_eq!(condition(&status, "Ready"), "False");
    let code = answering("127.77.20.2:8080".to_owned()).await;
    world.clock.advance(Duration::from_secs(5));
    world.event("p", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503").await;
    code.store(200, Ordering::Relaxed);
    world.clock.advance(Duration::from_secs(5));
    world.ready("p").await;
    code.store(500, Ordering::Relaxed);
    world.clock.advance(Duration::from_secs(5));
    world.status("p", "unreadiness", |status| condition(status, "Ready") == "False").await;
    world.clock.advance(Duration::from_secs(60));
    world
        .event("p", "Unhealthy", "Liveness probe failed: dial tcp 127.77.20.2:8081: connect: connection refused")
        .await;
    world.clock.advance(Duration::from_secs(5));
    world.event("p", "Killing", "Container c failed liveness probe, will be restarted").await;
    world.wasm.running("c", 1).await;
}

#[tokio::test]
async fn a_startup_probe_holds_the_others_back_and_exec_needs_a_runtime_that_has_it() {
    let world = World::new(21).await;
    let exec = json!({ "exec": { "command": ["true"] }, "periodSeconds": 1, "failureThreshold": 100 });
    world.create("p", json!({ "containers": [{ "name": "c", "image": "oci:1", "startupProbe": exec }] })).await;
    world
        .event("p", "Unhealthy", "Startup probe errored and resulted in Failure state: exec is not possible here")
        .await;
    let status = world.status("p", "running", |status| status["phase"] == "Running").await;
    assert_eq!(status["containerStatuses"][0]["started"], false);
    world.containers.answer_exec(Some(wherry_runtime::ExecOutput {
        code: 0,
        stdout: bytes::Bytes::new(),
        stderr: bytes::Bytes::new(),
    }));
    world.clock.advance(Duration::from_secs(1));
    let status = world.ready("p").await;
    assert_eq!(status["containerStatuses"][0]["started"], true);
}

#[tokio::test]
async fn logs_are_followed_tailed_and_kept_for_the_previous_run() {
    let world = World::new(22).await;
    world.create("p", json!({ "containers": [{ "name": "c", "image": "wasm:1" }] })).await;
    world.ready("p").await;
    let spec = world.wasm.running("c", 0).await;
    world.wasm.print(&spec.id, Stream::Stdout, "one\ntwo\n").await;
    let (code, body) = world.get("/containerLogs/default/p/c?follow=true").await;
    assert_eq!(code, 200);
    let mut stream = body.into_data_stream();
    let mut text = String::new();
    while text != "one\ntwo\n" {
        text.push_str(std::str::from_utf8(&soon("a line", stream.next()).await.unwrap().unwrap()).unwrap());
    }
    world.wasm.print(&spec.id, Stream::Stderr, "three\n").await;
    while text != "one\ntwo\nthree\n" {
        text.push_str(std::str::from_utf8(&soon("a line", stream.next()).await.unwrap().unwrap()).unwrap());
    }
    world.wasm.exit(&spec.id, 1);
    assert!(soon("the end of the log", stream.next()).await.is_none());
    let spec = world.wasm.running("c", 1).await;
    world.status("p", "a restart", |status| status["containerStatuses"][0]["restartCount"] == 1).await;
    world.wasm.print(&spec.id, Stream::Stdout, "again\n").await;
    assert_eq!(
        world.text("/containerLogs/default/p/c?previous=true&tailLines=2").await,
        (200, "two\nthree\n".to_owned())
    );
    let (code, refusal) = world.text("/containerLogs/default/p/other").await;
    assert_eq!((code, refusal.as_str()), (400, "container other is not valid for pod p"));
    assert_eq!(world.text("/containerLogs/default/nobody/c").await.0, 404);
    assert_eq!(world.text("/containerLogs/default/p/c?tailLines=-1").await.0, 400);
    world.create("q", json!({ "containers": [{ "name": "c", "image": "none:1" }] })).await;
    world.waiting("q", "ErrImagePull").await;
    let (code, refusal) = world.text("/containerLogs/default/q/c").await;
    assert_eq!(
        (code, refusal.as_str()),
        (400, "container \"c\" in pod \"q\" is waiting to start: trying and failing to pull image")
    );
    assert_eq!(world.text("/healthz").await, (200, "ok".to_owned()));
}

#[tokio::test]
async fn services_and_their_endpoints_reach_the_network() {
    let world = World::new(23).await;
    let service = json!({ "metadata": { "name": "s" }, "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] } });
    let services: Api<k8s_openapi::api::core::v1::Service> = Api::namespaced(world.client.clone(), "default");
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    soon(
        "a Service without endpoints",
        world.network.service("s", |service| service.is_some_and(|service| service.ports[0].endpoints.is_empty())),
    )
    .await;
    let slice = json!({
        "metadata": { "name": "s-1", "labels": { "kubernetes.io/service-name": "s" } },
        "addressType": "IPv4",
        "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
        "endpoints": [
            { "addresses": ["10.0.0.1"], "conditions": { "ready": true } },
            { "addresses": ["10.0.0.2"], "conditions": { "ready": false, "serving": true, "terminating": true } },
        ],
    });
    let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> = Api::namespaced(world.client.clone(), "default");
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
    let wanted = |service: Option<&wherry_network::Service>| {
        service.is_some_and(|service| {
            service.ports[0].endpoints == ["10.0.0.1:8080".parse().unwrap()] && service.cluster_ips.len() == 1
        })
    };
    soon("its ready endpoint", world.network.service("s", wanted)).await;
    slices.delete("s-1", &Default::default()).await.unwrap();
    soon(
        "no endpoint",
        world.network.service("s", |service| service.is_some_and(|service| service.ports[0].endpoints.is_empty())),
    )
    .await;
}
