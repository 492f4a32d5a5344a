//! Served components, by `fixtures/probe` (a wasi:http component) and real connections.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::client::conn::http2;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Node, Running, own_ip};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wherry_runtime::conformance::Loopback;
use wherry_runtime::{ContainerSpec, Mount, Runtime, Signal};

const PROBE: &[u8] = include_bytes!("fixtures/probe/probe.wasm");
const PORT: u16 = 8080;

fn spec(node: &Node) -> ContainerSpec {
    node.spec(&node.image(PROBE))
}

/// A kept-alive connection.
async fn connect(ip: IpAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(SocketAddr::new(ip, PORT)).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: Method, path: &str) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri(path).header("host", "probe").body(Empty::new()).unwrap()
}

async fn send(client: &mut SendRequest<Empty<Bytes>>, method: Method, path: &str) -> (StatusCode, String) {
    client.ready().await.unwrap();
    let response = client.send_request(request(method, path)).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn get(running: &Running, path: &str) -> (StatusCode, String) {
    send(&mut connect(running.ip).await, Method::GET, path).await
}

#[tokio::test]
async fn requests_are_answered_and_logged() {
    let node = Node::new();
    let mut spec = spec(&node);
    spec.env =
        vec![("MESSAGE".into(), "one".into()), ("POD_NAME".into(), "probe-1".into()), ("MESSAGE".into(), "two".into())];
    let running = node.start(spec).await;
    let mut client = connect(running.ip).await;
    let (status, body) = send(&mut client, Method::GET, "/").await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "probe-1 two\n"));
    assert_eq!(send(&mut client, Method::GET, "/none").await.0, StatusCode::NOT_FOUND);
    let (_, environment) = send(&mut client, Method::GET, "/env").await;
    assert!(environment.contains("HOSTNAME=pod-") && !environment.contains("PATH="), "{environment}");
    running.signal(Signal::Term).await;
    assert_eq!(running.wait().await.code, 0);
    assert_eq!(running.output.stdout(), "GET / 200\nGET /none 404\nGET /env 200\n");
}

#[tokio::test]
async fn a_neighbour_in_the_process_asks_without_a_connection() {
    let node = Node::new();
    let running = node.start(spec(&node)).await;
    let ask = async |port, path: &str| {
        let request = Request::get(path).header("host", "probe").body(()).unwrap();
        node.runtime.ask(&running.id, port, request).await.map(|answer| answer.status())
    };
    assert_eq!(get(&running, "/").await.0, StatusCode::OK, "it serves by now");
    assert_eq!(ask(PORT, "/").await, Some(StatusCode::OK));
    assert_eq!(ask(PORT, "/none").await, Some(StatusCode::NOT_FOUND));
    assert_eq!(ask(PORT, "/trap").await, Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(ask(PORT + 1, "/").await, None, "nobody listens there");
    assert_eq!(running.kill().await.code, 137);
    assert_eq!(ask(PORT, "/").await, None);
    assert_eq!(running.output.stdout(), "GET / 200\nGET / 200\nGET /none 404\n");
}

#[tokio::test]
async fn what_a_container_uses_is_counted_as_its_own() {
    let node = Node::new();
    let (busy, idle) = (node.start(spec(&node)).await, node.start(spec(&node)).await);
    let before = idle.stats().await;
    let mut client = connect(busy.ip).await;
    for _ in 0..20 {
        assert_eq!(send(&mut client, Method::GET, "/").await.0, StatusCode::OK);
    }
    let (used, unused) = (busy.stats().await, idle.stats().await);
    assert!(before.cpu_nanos > 0 && before.memory.working_set > 0, "an idle container is there, too: {before:?}");
    assert!(used.cpu_nanos > unused.cpu_nanos, "{used:?} {unused:?}");
    let (carried, quiet) = (used.traffic.unwrap(), unused.traffic.unwrap());
    // 20 requests of 31 bytes, 20 answers with some body.
    assert!(carried.received.bytes >= 20 * 31 && carried.sent.bytes > 20 * 60, "{carried:?}");
    assert_eq!((quiet.received.bytes, quiet.sent.bytes), (0, 0));
    assert!(unused.memory.working_set < 1 << 20, "{unused:?}");
    assert_eq!((used.requests, unused.requests), (Some(20), Some(0)));
    let probe = Request::get("/").header("host", "probe").header("user-agent", "kube-probe/1.36");
    let answer = client.send_request(probe.body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(busy.stats().await.requests, Some(20), "a probe is no work");
    busy.kill().await;
    idle.kill().await;
}

#[tokio::test]
async fn http2_is_spoken() {
    let node = Node::new();
    let running = node.start(spec(&node)).await;
    let stream = TcpStream::connect(SocketAddr::new(running.ip, PORT)).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://probe/").body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
    running.kill().await;
}

#[tokio::test]
async fn a_panic_fails_its_request_alone() {
    let node = Node::new();
    let running = node.start(spec(&node)).await;
    assert_eq!(get(&running, "/trap").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&running, "/").await.0, StatusCode::OK);
    assert_eq!(running.kill().await.code, 137);
    let said = running.output.stderr();
    assert!(said.contains("GET /trap failed:") && said.contains("unreachable"), "{said}");
}

#[tokio::test]
async fn exit_ends_the_whole_container() {
    let node = Node::new();
    let running = node.start(spec(&node)).await;
    let mut client = connect(running.ip).await;
    // Its answer may or may not leave before the end.
    let _ = client.send_request(request(Method::GET, "/exit")).await;
    let exit = running.wait().await;
    assert_eq!((exit.code, exit.oom_killed, exit.message), (3, false, None));
    assert!(TcpStream::connect(SocketAddr::new(running.ip, PORT)).await.is_err(), "it still listens");
}

#[tokio::test]
async fn out_of_memory_ends_the_whole_container() {
    let node = Node::new();
    let mut spec = spec(&node);
    spec.limits.memory_bytes = Some(16 << 20);
    let running = node.start(spec).await;
    assert_eq!(get(&running, "/alloc?mb=4").await.0, StatusCode::OK);
    let mut client = connect(running.ip).await;
    let _ = client.send_request(request(Method::GET, "/alloc?mb=64")).await;
    let exit = running.wait().await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

#[tokio::test]
async fn term_finishes_the_requests_it_has() {
    let node = Node::new();
    let running = node.start(spec(&node)).await;
    let mut busy = connect(running.ip).await;
    let mut idle = connect(running.ip).await;
    assert_eq!(send(&mut idle, Method::GET, "/").await.0, StatusCode::OK);
    assert_eq!(send(&mut busy, Method::GET, "/").await.0, StatusCode::OK);
    let before = running.cpu_nanos().await;
    let slow = busy.send_request(request(Method::GET, "/sleep?ms=300"));
    let term = async {
        // A request that was not read yet may be refused: it was once the container has used CPU for it.
        while running.cpu_nanos().await == before {
            tokio::task::yield_now().await;
        }
        running.signal(Signal::Term).await;
    };
    let (answer, ()) = tokio::join!(slow, term);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers().get("connection").map(|value| value.as_bytes()), Some(&b"close"[..]));
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "slept\n");
    assert_eq!(running.wait().await.code, 0);
    assert!(idle.ready().await.is_err(), "an idle connection was kept");
}

#[tokio::test]
async fn connections_opened_before_term_have_their_request_answered() {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: probe\r\n\r\n";
    let node = Node::new();
    let running = node.start(spec(&node)).await;
    // In the kernel's queue, most of them: nothing has been read from them when the signal comes.
    let mut opened = Vec::new();
    for _ in 0..50 {
        opened.push(TcpStream::connect(SocketAddr::new(running.ip, PORT)).await.unwrap());
    }
    running.signal(Signal::Term).await;
    for stream in &mut opened {
        stream.write_all(REQUEST).await.unwrap();
    }
    for mut stream in opened {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(running.wait().await.code, 0);
}

#[tokio::test]
async fn requests_that_find_no_room_for_an_instance_may_be_tried_again() {
    let node = Node::with(|options| options.instances = 1);
    let running = node.start(spec(&node)).await;
    let (mut first, mut second) = (connect(running.ip).await, connect(running.ip).await);
    let slow = async { while send(&mut first, Method::GET, "/sleep?ms=500").await.0 != StatusCode::OK {} };
    let refused = async { while send(&mut second, Method::GET, "/").await.0 != StatusCode::SERVICE_UNAVAILABLE {} };
    tokio::join!(slow, refused);
    running.kill().await;
}

#[tokio::test]
async fn too_many_requests_are_told_so() {
    let node = Node::with(|options| {
        options.concurrent_requests = 1;
        options.queued_requests = 0;
    });
    let running = node.start(spec(&node)).await;
    let (mut first, mut second) = (connect(running.ip).await, connect(running.ip).await);
    // Each may be the one that finds the other at work.
    let slow = async { while send(&mut first, Method::GET, "/sleep?ms=500").await.0 != StatusCode::OK {} };
    let refused = async { while send(&mut second, Method::GET, "/").await.0 != StatusCode::SERVICE_UNAVAILABLE {} };
    tokio::join!(slow, refused);
    while send(&mut second, Method::GET, "/").await.0 != StatusCode::OK {}
    running.kill().await;
}

#[tokio::test]
async fn files_are_in_the_mounts_alone() {
    let node = Node::new();
    let state = node.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mount = |read_only| Mount { source: state.clone(), target: "/state".into(), read_only, ..Mount::default() };
    for (mounts, status) in [
        (vec![], StatusCode::BAD_GATEWAY),
        (vec![mount(true)], StatusCode::BAD_GATEWAY),
        (vec![mount(false)], StatusCode::OK),
    ] {
        let mut spec = spec(&node);
        spec.mounts = mounts;
        let running = node.start(spec).await;
        assert_eq!(get(&running, "/state").await.0, StatusCode::NOT_FOUND);
        assert_eq!(send(&mut connect(running.ip).await, Method::POST, "/state").await.0, status);
        assert_eq!(state.join("file").exists(), status == StatusCode::OK);
        running.kill().await;
    }
}

#[tokio::test]
async fn a_request_that_never_ends_ends_with_its_container() {
    let node = Node::new();
    let running = node.start(spec(&node)).await;
    let mut client = connect(running.ip).await;
    let before = running.cpu_nanos().await;
    let answer = client.send_request(request(Method::GET, "/spin"));
    let kill = async {
        while running.cpu_nanos().await < before + 20_000_000 {
            tokio::task::yield_now().await;
        }
        // Others are served meanwhile.
        assert_eq!(get(&running, "/").await.0, StatusCode::OK);
        running.kill().await.code
    };
    let (answer, code) = tokio::join!(answer, kill);
    assert!(answer.is_err());
    assert_eq!(code, 137);
}

#[tokio::test]
async fn requests_leave_by_the_pods_network() {
    let node = Node::new();
    let named = |message: &str| {
        let mut spec = spec(&node);
        spec.env = vec![("MESSAGE".into(), message.into())];
        spec
    };
    let server = node.start(named("server")).await;
    let mut client = named("client");
    client.network = Arc::new(Loopback::new(own_ip()).with_name("server", server.ip));
    let client = node.start(client).await;
    assert_eq!(get(&client, "/fetch?url=http://server:8080/").await, (StatusCode::OK, " server\n".into()));
    // 127.0.0.1 is the Pod itself.
    assert_eq!(get(&client, "/fetch?url=http://127.0.0.1:8080/").await, (StatusCode::OK, " client\n".into()));
    let (status, text) = get(&client, "/fetch?url=http://nowhere/").await;
    assert!(status == StatusCode::BAD_GATEWAY && text.contains("NXDOMAIN"), "{text}");
    let (status, text) = get(&client, "/fetch?url=http://169.254.169.254/").await;
    assert!(status == StatusCode::BAD_GATEWAY && text.contains("DestinationIpProhibited"), "{text}");
    server.kill().await;
    client.kill().await;
}

#[tokio::test]
async fn sockets_are_the_pods() {
    let node = Node::new();
    let listener = TcpListener::bind((own_ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut spec = spec(&node);
    spec.network = Arc::new(Loopback::new(own_ip()).with_name("greeter", address.ip()));
    let running = node.start(spec).await;
    let greet = async {
        let (mut stream, from) = listener.accept().await.unwrap();
        let mut heard = [0; 6];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(b"hello yourself").await.unwrap();
        (from.ip(), heard)
    };
    let path = format!("/dial?to=greeter:{}", address.port());
    let (answer, (from, heard)) = tokio::join!(get(&running, &path), greet);
    assert_eq!(answer, (StatusCode::OK, "hello yourself".into()));
    assert_eq!((from, &heard), (running.ip, b"hello\n"), "it came from another address");
    for (to, problem) in [
        ("nowhere:1", "name-unresolvable"),
        ("169.254.169.254:80", "access-denied"),
        ("[::ffff:169.254.169.254]:80", ""),
        ("[::ffff:127.0.0.1]:9", ""),
        ("127.0.0.1:9", "connection-refused"),
    ] {
        let (status, text) = get(&running, &format!("/dial?to={to}")).await;
        assert!(status == StatusCode::BAD_GATEWAY && text.contains(problem), "{to}: {text}");
    }
    running.kill().await;
}

#[tokio::test]
async fn a_port_that_is_taken_fails_the_start_and_may_be_tried_again() {
    let node = Node::new();
    let first = spec(&node);
    let mut second = spec(&node);
    second.network = Arc::clone(&first.network);
    let running = node.start(first).await;
    let (id, output) = (second.id.clone(), wherry_runtime::conformance::Captured::new());
    node.runtime.create(second, output).await.unwrap();
    let error = node.runtime.start(&id).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains(":8080"), "{error}");
    running.kill().await;
    node.runtime.start(&id).await.unwrap();
    node.runtime.kill(&id, Signal::Kill).await.unwrap();
    node.runtime.wait(&id).await.unwrap();
}
