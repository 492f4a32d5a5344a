//! What a host is to its containers: their network, their files, and their end.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use common::{Node, Running};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use wherry_host::Isolation;
use wherry_runtime::conformance::Loopback;
use wherry_runtime::{Handle, Mount, Runtime as _, RuntimeError, Streams, collect};

const PROBE: &[u8] = include_bytes!("../../wasm/tests/fixtures/probe/probe.wasm");
const SPINS: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

/// What a served container answers, head and body.
async fn get(running: &Running, path: &str) -> String {
    let mut stream = TcpStream::connect(SocketAddr::new(running.ip, 8080)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: probe\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The hosts of this node, by their names.
fn hosts(node: &Node) -> BTreeSet<(String, i32)> {
    let mark = node.path().display().to_string();
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter_map(|pid: i32| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
            let words: Vec<&str> = line.split('\0').collect();
            let [_, "wasm-host", name, plan, ..] = words[..] else { return None };
            plan.contains(&mark).then(|| (name.to_owned(), pid))
        })
        .collect()
}

fn end(pid: i32) {
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_guest_has_its_pods_network_through_its_agent() {
    let node = Node::new(Isolation::Node);
    let greeter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = greeter.local_addr().unwrap().port();
    let mut spec = node.spec("default", &node.image(PROBE));
    let ip = spec.network.ips()[0];
    spec.network = Arc::new(
        Loopback::new(ip).with_name("greeter", [127, 0, 0, 2].into()).with_name("away", [192, 0, 2, 1].into()),
    );
    drop(greeter);
    let greeter = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    spec.env = vec![("POD_NAME".into(), "probe".into()), ("MESSAGE".into(), "hello".into())];
    let probe = node.start(spec).await;
    assert!(get(&probe, "/").await.contains("probe hello\n"));
    let greet = async {
        let (mut stream, from) = greeter.accept().await.unwrap();
        stream.write_all(b"welcome").await.unwrap();
        from.ip()
    };
    let dial = format!("/dial?to=greeter:{port}");
    let (answer, from) = tokio::join!(get(&probe, &dial), greet);
    assert!(answer.contains("welcome"), "{answer}");
    assert_eq!(from, probe.ip, "a connection leaves from the Pod's address");
    let own = get(&probe, &format!("/fetch?url=http://{}:8080/", probe.ip)).await;
    assert!(own.contains("probe hello\n"), "{own}");
    for (path, why) in [("/dial?to=away:80", "access-denied"), ("/dial?to=nobody:80", "name-unresolvable")] {
        let refused = get(&probe, path).await;
        assert!(refused.starts_with("HTTP/1.1 502") && refused.contains(why), "{refused}");
    }
    let carried = node.runtime.stats(&probe.id).await.unwrap().traffic.unwrap();
    assert!(carried.received.bytes > 0 && carried.sent.bytes > 0, "{carried:?}");
    assert_eq!(probe.kill().await.code, 137);
    assert!(probe.output.stdout().starts_with("GET / 200\n"), "{}", probe.output.stdout());
}

#[tokio::test]
async fn a_guest_has_its_mounts_and_the_machine_has_none() {
    let node = Node::new(Isolation::Namespace);
    let own = node.path().display().to_string();
    let volume = node.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, PermissionsExt::from_mode(0o777)).unwrap();
    let open = rustix::fs::open(&volume, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    let mut spec = node.spec("default", &node.image(PROBE));
    let through = |handle: &Handle| format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle.0.as_fd()));
    let handle = Handle(Arc::new(open));
    spec.mounts = vec![Mount {
        source: through(&handle).into(),
        target: "/state".into(),
        handle: Some(handle),
        ..Mount::default()
    }];
    let first = node.start(spec).await;
    assert!(get(&first, "/state").await.starts_with("HTTP/1.1 404"));
    let post = "POST /state HTTP/1.1\r\nhost: probe\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let mut stream = TcpStream::connect((first.ip, 8080)).await.unwrap();
    stream.write_all(post.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(volume.join("file").exists());

    // The same, and files, which it may not write.
    let mut spec = node.spec("default", &node.image(PROBE));
    fs::write(node.path().join("names"), "127.0.0.1 localhost\n").unwrap();
    let mount = |source: &Path, target: &str| Mount {
        source: source.to_owned(),
        target: target.into(),
        read_only: true,
        ..Mount::default()
    };
    spec.mounts = vec![mount(&volume, "/state"), mount(&node.path().join("names"), "/etc/hosts")];
    let second = node.start(spec).await;
    assert!(get(&second, "/state").await.starts_with("HTTP/1.1 200"));
    let copied = ["tar", "cf", "-", "/etc/hosts"].map(str::to_owned);
    let archive = collect(&*node.runtime, &second.id, &copied, 1 << 20).await.unwrap();
    assert!(String::from_utf8_lossy(&archive.stdout).contains("127.0.0.1 localhost"), "{archive:?}");
    let mut spec = node.spec("default", &node.image(PROBE));
    spec.mounts = vec![mount(&node.path().join("none"), "/none")];
    let refused = node.runtime.create(spec, first.output.clone()).await;
    assert!(matches!(&refused, Err(RuntimeError::InvalidSpec(text)) if text.contains("/none")), "{refused:?}");

    let host = hosts(&node).into_iter().next().unwrap().1;
    let mounted = |of: i32| fs::read_to_string(format!("/proc/{of}/mountinfo")).unwrap();
    assert!(mounted(host).contains("/mounts/"), "{}", mounted(host));
    first.kill().await;
    first.remove().await;
    let left = mounted(host);
    assert_eq!(left.matches(" /mounts/").count(), 2, "{left}");
    let ours = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let seen: Vec<&str> =
        ours.lines().filter(|line| [&*own, "wasm-host"].iter().any(|name| line.contains(name))).collect();
    assert!(seen.is_empty(), "the machine sees a host's mounts: {seen:?}");
    second.kill().await;
    second.remove().await;
}

#[tokio::test]
async fn the_end_of_a_host_is_that_of_its_containers_alone() {
    let node = Node::new(Isolation::Namespace);
    let spin = node.wat(SPINS);
    let (one, two) = (node.start(node.spec("one", &spin)).await, node.start(node.spec("one", &spin)).await);
    let other = node.start(node.spec("other", &node.image(PROBE))).await;
    let there = hosts(&node);
    let names: Vec<&str> = there.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["one", "other"]);
    let pid = there.iter().find(|(name, _)| name == "one").unwrap().1;
    let (waited, command) = (one.wait(), ["main".to_owned()]);
    let exec = node.runtime.exec(&two.id, &command, false, Streams::default());
    let (exit, exec, ()) = tokio::join!(waited, exec, async { end(pid) });
    assert_eq!((exit.code, exit.oom_killed), (137, false));
    assert_eq!(exit.message.as_deref(), Some("the host process of namespace one ended: killed by signal 9"));
    assert!(exec.is_err(), "{exec:?}");
    assert_eq!(two.wait().await.code, 137);
    let late = node.runtime.stats(&two.id).await;
    assert!(matches!(late, Err(RuntimeError::WrongState { .. })), "{late:?}");
    assert_eq!(node.runtime.list().await.unwrap().len(), 3);
    assert!(get(&other, "/").await.starts_with("HTTP/1.1 200"), "a neighbour was harmed");

    // The next gets a new one; what was lost is removed as ever.
    let next = node.start(node.spec("one", &spin)).await;
    one.remove().await;
    two.remove().await;
    let now = hosts(&node);
    assert!(now.len() == 2 && !now.iter().any(|(_, known)| *known == pid), "{now:?}");
    next.kill().await;
    next.remove().await;
    other.kill().await;
    other.remove().await;
}

#[tokio::test]
async fn hosts_end_with_their_last_container_and_with_their_agent() {
    let node = Node::new(Isolation::Namespace);
    let spin = node.wat(SPINS);
    let one = node.start(node.spec("one", &spin)).await;
    let two = node.start(node.spec("two", &spin)).await;
    assert_eq!(hosts(&node).len(), 2);
    let pid = hosts(&node).into_iter().find(|(name, _)| name == "one").unwrap().1;
    let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap()
    });
    one.kill().await;
    one.remove().await;
    assert_eq!(ended.await.unwrap(), 1);
    node.runtime.shutdown().await;
    assert_eq!(two.wait().await.code, 137);
    assert!(hosts(&node).is_empty(), "{:?}", hosts(&node));
}

#[tokio::test]
async fn a_host_that_cannot_lock_itself_in_runs_nothing() {
    let node = Node::new(Isolation::Namespace);
    // Not a directory that it could have as its root.
    fs::create_dir_all(node.path().join("hosts/one")).unwrap();
    fs::write(node.path().join("hosts/one/root"), "").unwrap();
    let refused = node.runtime.prepare(&node.wat(SPINS), "one").await.unwrap_err();
    assert!(refused.is_retryable() && refused.to_string().contains("namespace one"), "{refused}");
}
