//! The samples' committed components run: a command and served components.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::SocketAddr;

use support::Node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wherry_runtime::{Runtime, Signal};

#[tokio::test]
async fn ticker_runs_to_its_end() {
    let node = Node::new();
    let mut spec = node.spec(&node.image(include_bytes!("../../../samples/ticker/ticker.wasm")));
    spec.env = vec![("TICKS".into(), "1".into())];
    let running = node.start(spec).await;
    let exit = running.wait().await;
    assert_eq!((exit.code, exit.message), (0, None));
    assert_eq!(running.output.stdout(), "tick 1\n");
}

#[tokio::test]
async fn ticker_ends_when_told() {
    let node = Node::new();
    let running = node.start(node.spec(&node.image(include_bytes!("../../../samples/ticker/ticker.wasm")))).await;
    running.signal(Signal::Term).await;
    assert_eq!(running.wait().await.code, 143);
}

#[tokio::test]
async fn hello_and_echo_answer() {
    let node = Node::new();
    for sample in
        [&include_bytes!("../../../samples/hello/hello.wasm")[..], include_bytes!("../../../samples/echo/echo.wasm")]
    {
        let mut spec = node.spec(&node.image(sample));
        spec.ports = vec![8081, 8082];
        let running = node.start(spec).await;
        for port in [8081, 8082] {
            let mut stream = TcpStream::connect(SocketAddr::new(running.ip, port)).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
        running.signal(Signal::Term).await;
        assert_eq!(running.wait().await.code, 0);
    }
}

#[tokio::test]
async fn guestbook_is_accepted() {
    let node = Node::new();
    node.runtime
        .prepare(&node.image(include_bytes!("../../../samples/guestbook/guestbook.wasm")), "default")
        .await
        .unwrap();
}
