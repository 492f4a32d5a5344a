//! Components of WASI 0.3, by `fixtures/probe3`: a handler and a command in one.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Node, Running};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use wherry_runtime::{ContainerSpec, Signal};

const PROBE3: &[u8] = include_bytes!("fixtures/probe3/probe3.wasm");

fn spec(node: &Node, entry: &str) -> ContainerSpec {
    let mut spec = node.spec(&node.image(PROBE3));
    spec.command = vec![format!("probe3.wasm#{entry}")];
    spec
}

async fn serve(node: &Node) -> Running {
    node.start(spec(node, "wasi:http/handler")).await
}

async fn ask(ip: IpAddr, path: &str, body: &str) -> Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(SocketAddr::new(ip, 8080)).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post(path).header("host", "probe3").header("te", "trailers");
    sender.send_request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await.unwrap()
}

#[tokio::test]
async fn bodies_are_streamed() {
    let node = Node::new();
    let running = serve(&node).await;
    let answer = ask(running.ip, "/", "").await;
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "hello from 0.3\n");
    assert_eq!(ask(running.ip, "/none", "").await.status(), StatusCode::NOT_FOUND);

    let long = "0123456789abcdef".repeat(20_000);
    let echoed = ask(running.ip, "/echo", &long).await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(echoed.len(), long.len());
    assert_eq!(echoed, long);
    running.signal(Signal::Term).await;
    assert_eq!(running.wait().await.code, 0);
}

/// HTTP/1 has trailers that were announced in the head only, so that this is HTTP/2.
#[tokio::test]
async fn bodies_end_with_their_trailers() {
    let node = Node::new();
    let running = serve(&node).await;
    let stream = TcpStream::connect(SocketAddr::new(running.ip, 8080)).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let trailer = |value: &'static str| {
        HeaderMap::from_iter([(HeaderName::from_static("x-end"), HeaderValue::from_static(value))])
    };

    let frames = [Ok(Frame::data(Bytes::from_static(b"asked"))), Ok(Frame::trailers(trailer("of the request")))];
    let body = |frames: Vec<Result<Frame<Bytes>, Infallible>>| StreamBody::new(futures::stream::iter(frames));
    let request = Request::post("http://probe3/echo").body(body(frames.into())).unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.trailers(), Some(&trailer("of the request")));
    assert_eq!(answer.to_bytes(), "asked");

    let request = Request::get("http://probe3/").body(body(Vec::new())).unwrap();
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.trailers(), Some(&trailer("reached")));
    assert_eq!(answer.to_bytes(), "hello from 0.3\n");
    running.kill().await;
}

/// Much more than the container may hold, by a client that reads while it sends.
#[tokio::test]
async fn huge_bodies_pass_through_little_memory() {
    const PIECES: usize = 64;
    let node = Node::new();
    let mut spec = spec(&node, "wasi:http/handler");
    spec.limits.memory_bytes = Some(16 << 20);
    let running = node.start(spec).await;
    let stream = TcpStream::connect(SocketAddr::new(running.ip, 8080)).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let piece = Bytes::from(vec![7; 1 << 20]);
    let pieces = futures::stream::iter((0..PIECES).map(move |_| Ok::<_, Infallible>(Frame::data(piece.clone()))));
    let request = Request::post("/echo").header("host", "probe3").body(StreamBody::new(pieces)).unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        seen += frame.unwrap().into_data().map_or(0, |data| data.len());
    }
    assert_eq!(seen, PIECES << 20);
    assert_eq!(running.kill().await.code, 137);
}

/// Bodies that never come and answers that nobody reads, more than the container works on at once: they are its own affair.
#[tokio::test]
async fn slow_bodies_keep_nobody_else() {
    let node = Node::with(|options| options.concurrent_requests = 8);
    let (slow, other) = (serve(&node).await, serve(&node).await);
    let mut clients = Vec::new();
    for n in 0..40 {
        let mut stream = TcpStream::connect(SocketAddr::new(slow.ip, 8080)).await.unwrap();
        let head = "POST /echo HTTP/1.1\r\nhost: probe3\r\ncontent-length: 1000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(b"a").await.unwrap();
        }
        clients.push(stream);
    }
    assert_eq!(ask(other.ip, "/", "").await.status(), StatusCode::OK);
    // Whoever goes away makes room.
    drop(clients);
    assert_eq!(ask(slow.ip, "/", "").await.status(), StatusCode::OK);
    assert_eq!((slow.kill().await.code, other.kill().await.code), (137, 137));
}

#[tokio::test]
async fn a_trap_fails_its_request_alone() {
    let node = Node::new();
    let running = serve(&node).await;
    assert_eq!(ask(running.ip, "/trap", "").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(ask(running.ip, "/", "").await.status(), StatusCode::OK);
    assert_eq!(running.kill().await.code, 137);
    assert!(running.output.stderr().contains("POST /trap failed:"), "{}", running.output.stderr());
}

#[tokio::test]
async fn requests_leave_by_the_pods_network() {
    let node = Node::new();
    let (server, client) = (serve(&node).await, serve(&node).await);
    let path = format!("/fetch?{}:8080", server.ip);
    let answer = ask(client.ip, &path, "").await.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answer, "hello from 0.3\n");
    // Where no one may go.
    assert_eq!(ask(client.ip, "/fetch?169.254.169.254", "").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    client.kill().await;
    server.kill().await;
    assert!(client.output.stderr().contains("DestinationIpProhibited"), "{}", client.output.stderr());
}

#[tokio::test]
async fn a_command_runs_to_its_end() {
    let node = Node::new();
    let mut spec = spec(&node, "run");
    spec.args = vec!["--fast".into()];
    let running = node.start(spec).await;
    let exit = running.wait().await;
    assert_eq!((exit.code, exit.message), (0, None));
    assert_eq!(running.output.stdout(), "ran probe3.wasm#run --fast with 16 random bytes\n");
}

#[tokio::test]
async fn which_of_two_worlds_to_run_has_to_be_named() {
    let node = Node::new();
    let text = node.refusal(&node.image(PROBE3)).await;
    assert!(text.contains("wasi:http/handler and wasi:cli/run: which one to run is not clear"), "{text}");
}
