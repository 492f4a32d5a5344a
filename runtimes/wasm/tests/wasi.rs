//! WASI preview 1 and 0.2, function by function: the guests of `tests/wasi` check what they are answered. That they leave no function
//! out is checked by the crate's own test `coverage`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/guests.rs"]
mod guests;
mod support;

use std::net::{IpAddr, SocketAddr};

use cases::{COMMAND, Case, PREVIEW_1};
use guests::guests;
use support::{Node, Running, own_ip};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wherry_runtime::{Runtime, Streams};

#[tokio::test]
async fn every_case_of_preview_1_holds() {
    all(&guests().preview_1, PREVIEW_1).await;
}

#[tokio::test]
async fn every_case_of_a_command_of_0_2_holds() {
    all(&guests().command, COMMAND).await;
}

async fn all(guest: &[u8], cases: &[(&str, Case)]) {
    let node = Node::new();
    let image = node.image(guest);
    cases::all(&*node.runtime, node.path(), cases, || node.spec(&image), own_ip).await;
}

/// A request to a served component: the status, and the body.
async fn ask(ip: IpAddr, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(SocketAddr::new(ip, 8080)).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: guest.test\r\nconnection: close\r\nx-sent: yes\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A body that breaks off may break the connection.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

/// The address of a server that answers once, with less than it says.
async fn breaks_off() -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::new(own_ip(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 1 << 10];
        let _ = stream.read(&mut asked).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nless").await.unwrap();
    });
    address
}

#[tokio::test]
async fn every_case_of_a_served_component_of_0_2_holds() {
    let node = Node::new();
    let running = node.start(node.spec(&node.image(&guests().proxy))).await;
    let own = format!("{}:8080", running.ip);
    let failures = format!("/failures?{own}&{}", breaks_off().await);
    let checks = ["/fields", "/setters", "/options", &format!("/exchange?{own}"), &failures];
    for path in checks.map(|path| format!("GET {path}")).iter().chain([&"PUT /request?a=b".to_owned()]) {
        let (status, answer) = ask(running.ip, path, "sent").await;
        assert!(status == 200 && answer.contains("checked"), "{path}: {answer}{}", running.output.stderr());
    }
    let (status, answer) = ask(running.ip, "GET /response", "").await;
    assert!(status == 418 && answer.contains("x-kind: teapot") && answer.contains("short and stout"), "{answer}");
    assert_eq!(ask(running.ip, "GET /error", "").await.0, 500);
    // Its answer is less than it says: what of it arrives is the connection's affair.
    ask(running.ip, "GET /broken", "").await;
    let stderr = running.output.stderr();
    assert!(!stderr.contains("failed:"), "{stderr}");
    running.kill().await;
}

#[tokio::test]
async fn the_environment_is_the_configuration() {
    let node = Node::new();
    for text in guests::config() {
        for (env, code) in [(vec![], 1), (vec![("COLOUR".to_owned(), "green".to_owned())], 0)] {
            let mut spec = node.spec(&node.wat(&text));
            spec.env = env;
            assert_eq!(node.start(spec).await.wait().await.code, code);
        }
    }
}

#[tokio::test]
async fn what_a_container_has_open_is_counted_over_all_its_instances() {
    let node = Node::with(|options| (options.files, options.sockets) = (10, 6));
    for (guest, all, none) in [
        (&guests().preview_1, "10 files\n", "0 files\n"),
        (&guests().command, "10 files, 6 sockets\n", "0 files, 0 sockets\n"),
    ] {
        let image = node.image(guest);
        let hoard = || {
            let mut spec = node.spec(&image);
            cases::equip(&mut spec, &node.path().join("mounts/hoard"), "hoard", Case::Plain);
            std::fs::write(spec.mounts[0].source.join("hoarded"), "text").unwrap();
            spec
        };
        let running = node.start(hoard()).await;
        said(&running, all).await;
        // Its instance is another, its container the same.
        let (sink, mut got) = tokio::io::duplex(1 << 10);
        let streams = Streams { stdout: Some(Box::new(sink)), ..Streams::default() };
        let command = ["guest.wasm", "hoard"].map(str::to_owned);
        let mut heard = vec![0; none.len()];
        let beside = node.runtime.exec(&running.id, &command, false, streams);
        tokio::select! {
            ended = beside => panic!("{ended:?}"),
            read = got.read_exact(&mut heard) => drop(read.unwrap()),
        }
        assert_eq!(String::from_utf8(heard).unwrap(), none);
        // Another container has its own.
        let other = node.start(hoard()).await;
        said(&other, all).await;
        running.kill().await;
        other.kill().await;
    }
}

/// Waits until a container has said all of this.
async fn said(running: &Running, text: &str) {
    tokio::select! {
        exit = running.wait() => panic!("{exit:?} {}", running.output.stderr()),
        () = running.output.said(text) => {}
    }
}
