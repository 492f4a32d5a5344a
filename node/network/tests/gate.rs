//! Served Pods that have an address alone share one listener of their node. Needs root and `nft`.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::Command;

use socket2::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wherry_network::{NodeConfig, NodeNetwork};
use wherry_runtime::{PodNetwork, SocketFamily, SocketKind};

use support::{ask, bed, connect, key, pod, read, serve, service};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// Runs `nft` in the node's namespace, and returns what it says.
fn nft(node: &NodeNetwork, arguments: &str) -> String {
    let net = format!("--net={}", node.namespace().unwrap().display());
    let done = Command::new("nsenter").arg(net).arg("nft").arg(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// A guest's socket, bound to what it means by `port`.
fn bound(pod: &dyn PodNetwork, kind: SocketKind, port: u16) -> std::io::Result<Socket> {
    let socket = Socket::from(pod.socket(SocketFamily::V4, kind)?);
    socket.set_reuse_address(true)?;
    pod.bind(socket.as_fd(), (ANY, port).into())?;
    Ok(socket)
}

/// Whether a connection is reset, as it is made or after.
async fn is_reset(connected: std::io::Result<TcpStream>) -> bool {
    let heard = match connected {
        Ok(mut stream) => stream.read(&mut [0]).await,
        Err(error) => Err(error),
    };
    heard.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_reaches_a_served_pod_by_its_address_and_by_its_service() {
    let Some(bed) = bed(2).await else { return };
    assert!(bed.cluster.shares_listener());
    let node = &bed.nodes[0];
    let server = pod(node, "server", false).await;
    let ip = server.ips()[0];
    serve(&*server, "served", 8080);
    node.services().set(key(), Some(service(80, None, &[(ip, 8080)])));
    bed.nodes[1].services().set(key(), Some(service(80, None, &[(ip, 8080)])));
    for node in &bed.nodes {
        node.services().targeted(ip).await;
    }
    let clients = [
        ("itself", server.clone()),
        ("anyip", pod(node, "anyip", false).await),
        ("netns", pod(node, "netns", true).await),
        ("anyip elsewhere", pod(&bed.nodes[1], "anyip-1", false).await),
        ("netns elsewhere", pod(&bed.nodes[1], "netns-1", true).await),
    ];
    for (name, client) in &clients {
        for to in [(ip, 8080), (IpAddr::from([10, 96, 0, 7]), 80)] {
            assert_eq!(ask(&**client, to).await.unwrap(), "served", "{name} -> {to:?}");
        }
        let unserved = ask(&**client, (ip, 8081)).await.unwrap_err();
        assert_eq!(unserved.kind(), ErrorKind::ConnectionRefused, "{name}");
    }
    assert_eq!(read(node.dial((ip, 8080).into()).await.unwrap()).await, "served");
    let listening = nft(node, "list table ip wherry-served");
    let port = listening.split("tproxy to 127.0.0.1:").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    // Who comes to the listener itself meant no Pod.
    let stranger = node.dial(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()))).await;
    assert!(is_reset(stranger).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_sees_the_client_and_the_pod() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let (server, friend, foe) =
        (pod(node, "server", false).await, pod(node, "friend", false).await, pod(node, "foe", true).await);
    let ip = server.ips()[0];
    serve(&*server, "served", 8080);
    let rule = format!("ip saddr {} ip daddr {ip} tcp dport 8080 reject with tcp reset", foe.ips()[0]);
    nft(node, &format!("table ip guard {{ chain input {{ type filter hook input priority 0; {rule}; }}; }}"));
    assert_eq!(ask(&*friend, (ip, 8080)).await.unwrap(), "served");
    assert_eq!(ask(&*foe, (ip, 8080)).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_one_owner() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let (first, other) = (pod(node, "first", false).await, pod(node, "other", false).await);
    let taken = |result: std::io::Result<()>, who: &str| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::AddrInUse, "{who}");
    };
    let early = bound(&*first, SocketKind::Tcp, 8080).unwrap();
    let served = first.serve((ANY, 8080).into()).unwrap();
    taken(first.serve((ANY, 8080).into()).map(drop), "a second server");
    taken(bound(&*first, SocketKind::Tcp, 8080).map(drop), "a guest that binds");
    taken(first.listen(early.as_fd(), 1), "a guest that bound before");
    bound(&*first, SocketKind::Udp, 8080).unwrap();
    drop((early, other.serve((ANY, 8080).into()).unwrap()));
    drop(served);

    let guest = bound(&*first, SocketKind::Tcp, 8080).unwrap();
    first.listen(guest.as_fd(), 1).unwrap();
    taken(first.serve((ANY, 8080).into()).map(drop), "a server beside a guest that listens");
    drop(guest);
    serve(&*first, "again", 8080);
    assert_eq!(ask(&*other, (first.ips()[0], 8080)).await.unwrap(), "again");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_had_come_by_the_end_is_served_and_nobody_after() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let (server, client) = (pod(node, "server", false).await, pod(node, "client", true).await);
    let to = (server.ips()[0], 8080);
    let mut arrivals = server.serve((ANY, 8080).into()).unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(connect(&*client, to).await.unwrap());
    }
    let mut streams = vec![arrivals.next().await];
    streams.extend(arrivals.close());
    assert_eq!(streams.len(), clients.len());
    assert_eq!(connect(&*client, to).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    // What is connected stays so, also beside the next server.
    serve(&*server, "next", 8080);
    for (client, stream) in clients.iter_mut().zip(&mut streams) {
        client.write_all(b"ping").await.unwrap();
        stream.write_all(b"pong").await.unwrap();
    }
    for (client, stream) in clients.iter_mut().zip(&mut streams) {
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"pong");
    }
    assert_eq!(ask(&*client, to).await.unwrap(), "next");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_reset_with_its_server_and_beyond_the_bound() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let (full, idle, client) =
        (pod(node, "full", false).await, pod(node, "idle", false).await, pod(node, "client", false).await);
    serve(&*idle, "idle", 8080);
    let arrivals = full.serve((ANY, 8080).into()).unwrap();
    let to = (full.ips()[0], 8080);
    let mut waiting = Vec::new();
    for _ in 0..256 {
        waiting.push(connect(&*client, to).await.unwrap());
    }
    for _ in 0..10 {
        assert!(is_reset(connect(&*client, to).await).await);
    }
    assert_eq!(ask(&*client, (idle.ips()[0], 8080)).await.unwrap(), "idle", "nobody waits for another Pod's");
    assert!(waiting.iter().all(|stream| stream.take_error().unwrap().is_none()));
    drop(arrivals);
    for stream in waiting {
        assert!(is_reset(Ok(stream)).await);
    }
}

/// Its table is of an earlier life, whose listener is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_again_serves_what_is_asked_for_now() {
    let Some(mut bed) = bed(1).await else { return };
    let before = pod(&bed.nodes[0], "before", false).await;
    let arrivals = before.serve((ANY, 8080).into()).unwrap();
    bed.nodes.clear();
    drop(arrivals);
    let config = NodeConfig { name: "node-0".into(), index: 0, pod_cidr: "10.128.0.0/18".parse().unwrap() };
    let node = NodeNetwork::start(&bed.cluster, config).await.unwrap();
    let (after, client) = (pod(&node, "after", false).await, pod(&node, "client", false).await);
    serve(&*after, "after", 9090);
    assert_eq!(ask(&*client, (after.ips()[0], 9090)).await.unwrap(), "after");
    assert_eq!(ask(&*client, (after.ips()[0], 8080)).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
