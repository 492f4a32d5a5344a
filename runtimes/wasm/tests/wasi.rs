//! WASI preview 1 and 0.2, function by function: the guests of `tests/wasi` check what they are answered. That they leave no function
//! out is checked by the crate's own test `coverage`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/guests.rs"]
mod guests;
mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use guests::guests;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use support::{Node, Running, own_ip};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wherry_runtime::conformance::Loopback;
use wherry_runtime::{ContainerSpec, Image, Mount, Runtime, Streams};

/// What a case needs beside the mounts, and how it ends.
#[derive(Clone, Copy)]
enum Case {
    /// Nothing.
    Plain,
    /// Arguments of its own.
    Arguments,
    /// To end with this code.
    Ends(i32),
    /// Something typed; it writes to both of its outputs.
    Typed,
    /// A terminal.
    Terminal,
    /// A named pipe in `/data`.
    Fifo,
}

use Case::{Arguments, Ends, Fifo, Plain, Terminal, Typed};

const PREVIEW_1: &[(&str, Case)] = &[
    ("arguments", Arguments),
    ("environment", Plain),
    ("clocks", Plain),
    ("random", Plain),
    ("yield", Plain),
    ("exit", Ends(200)),
    ("signals", Plain),
    ("stdio", Typed),
    ("poll", Plain),
    ("sockets", Plain),
    ("preopens", Plain),
    ("content", Plain),
    ("descriptor", Plain),
    ("times", Plain),
    ("renumber", Plain),
    ("directory", Plain),
    ("open", Plain),
    ("tree", Plain),
    ("links", Plain),
    ("fixed", Plain),
    ("fifo", Fifo),
];

const COMMAND: &[(&str, Case)] = &[
    ("environment", Arguments),
    ("clocks", Plain),
    ("random", Plain),
    ("exit", Ends(1)),
    ("exit-with-code", Ends(200)),
    ("no-terminals", Plain),
    ("terminals", Terminal),
    ("stdio", Typed),
    ("poll", Plain),
    ("input", Plain),
    ("output", Plain),
    ("splice", Plain),
    ("content", Plain),
    ("descriptor", Plain),
    ("times", Plain),
    ("same", Plain),
    ("directory", Plain),
    ("open", Plain),
    ("tree", Plain),
    ("links", Plain),
    ("fixed", Plain),
    ("fifo", Fifo),
    ("names", Plain),
    ("udp", Plain),
    ("udp-options", Plain),
    ("tcp", Plain),
    ("tcp-errors", Plain),
    ("tcp-options", Plain),
];

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
    let listed = node.start(node.spec(&image)).await;
    assert_eq!(listed.wait().await.code, 0);
    let (known, listed) = (cases.iter().map(|(name, _)| *name), listed.output.stdout());
    assert_eq!(known.collect::<BTreeSet<_>>(), listed.lines().collect(), "the cases of the guest");
    let outcomes = cases.iter().map(|(name, case)| outcome(&node, &image, name, *case));
    let failed: Vec<String> = futures::future::join_all(outcomes).await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn spec(node: &Node, image: &Arc<Image>, name: &str, case: Case) -> ContainerSpec {
    let mut spec = node.spec(image);
    spec.command = vec!["guest.wasm".into(), name.into()];
    if let Arguments = case {
        spec.command.extend(["", "two words", "ünï"].map(str::to_owned));
    }
    spec.env = vec![("COLOUR".into(), "green=blue".into()), ("EMPTY".into(), String::new())];
    spec.working_dir = Some("/data".into());
    let own = node.path().join("mounts").join(name);
    let mount = |target: &str, read_only| {
        let source = own.join(target);
        std::fs::create_dir_all(&source).unwrap();
        Mount { source, target: format!("/{target}").into(), read_only, ..Mount::default() }
    };
    spec.mounts = vec![mount("data", false), mount("fixed", true)];
    std::fs::write(own.join("fixed/kept"), "kept").unwrap();
    if let Fifo = case {
        mkfifo(&own.join("data/fifo"), Mode::S_IRWXU).unwrap();
    }
    spec.network = Arc::new(Loopback::new(own_ip()).with_name("known.test", IpAddr::from([127, 0, 0, 9])));
    (spec.stdin, spec.stdin_once) = (matches!(case, Typed | Terminal), true);
    spec.tty = matches!(case, Terminal);
    spec
}

/// What is wrong, if anything.
async fn outcome(node: &Node, image: &Arc<Image>, name: &str, case: Case) -> Option<String> {
    let spec = spec(node, image, name, case);
    let data = spec.mounts[0].source.clone();
    let running = node.start(spec).await;
    if let Typed = case {
        let streams = Streams { stdin: Some(Box::new(&b"typed"[..])), ..Streams::default() };
        node.runtime.attach(&running.id, streams).await.unwrap();
    }
    let (exit, output) = (running.wait().await, Arc::clone(&running.output));
    let (stdout, stderr) = (output.stdout(), output.stderr());
    let expected = match case {
        Typed => exit.code == 0 && stdout == "to stdout\n" && stderr == "to stderr\n",
        Ends(code) => exit.code == code,
        _ => exit.code == 0,
    };
    let left = std::fs::read_dir(data).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != "fifo").count();
    (!expected || left > 0).then(|| {
        format!(
            "{name}: code {}, {left} files left, {:?}\n{stdout}{stderr}",
            exit.code,
            exit.message.unwrap_or_default()
        )
    })
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
            let spec = spec(&node, &image, "hoard", Plain);
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
