//! Two real nodes in namespaces, Pods of both kinds, Services, DNS, node ports. Needs root and `nft`.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::TcpStream;
use wherry_network::{HostPort, NetworkError, NodeConfig, NodeNetwork, PodRequest, Protocol, Service, ServiceKey};
use wherry_runtime::{PodNetwork, PodRef, SocketFamily, SocketKind};

use support::{Bed, ask, bed, dns, key, pod, read, serve, service};

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_both_kinds_reach_each_other_and_services() {
    let Some(bed) = bed(2).await else { return };
    let [first, second] = &bed.nodes[..] else { unreachable!() };
    let pods = [
        ("anyip-0", pod(first, "anyip-0", false).await),
        ("netns-0", pod(first, "netns-0", true).await),
        ("anyip-1", pod(second, "anyip-1", false).await),
        ("netns-1", pod(second, "netns-1", true).await),
    ];
    for (name, pod) in &pods {
        serve(&**pod, name, 8080);
    }
    for (from, client) in &pods {
        for (to, server) in &pods {
            let answer = ask(&**client, (server.ips()[0], 8080)).await;
            assert_eq!(answer.as_deref().ok(), Some(*to), "{from} -> {to}: {answer:?}");
        }
        let own = ask(&**client, ([127, 0, 0, 1], 8080)).await;
        // A namespaced Pod's server listens on its own loopback too, an AnyIP Pod's on its address.
        assert!(from.starts_with("netns") || own.as_deref().ok() == Some(*from), "{from}: {own:?}");
    }
    // What has an interface of its own is counted there, from the Pod's side.
    let carried = first.traffic().await.unwrap();
    assert_eq!(carried.keys().collect::<Vec<_>>(), ["uid-netns-0"]);
    let carried = carried["uid-netns-0"];
    assert!(carried.received.bytes > 0 && carried.sent.packets > 0, "{carried:?}");

    let endpoints: Vec<_> = pods.iter().map(|(_, pod)| (pod.ips()[0], 8080)).collect();
    for node in &bed.nodes {
        node.services().set(key(), Some(service(80, Some(30123), &endpoints)));
    }
    // A second Service whose endpoint leaves: its drain follows the first one's rules into the kernel.
    for node in &bed.nodes {
        node.services().set(ServiceKey { name: "b".into(), ..key() }, None);
    }
    settled(&bed, &endpoints).await;
    for (from, client) in &pods {
        let mut seen = BTreeMap::<String, u32>::new();
        for _ in 0..80 {
            let answer = ask(&**client, ([10, 96, 0, 7], 80)).await;
            *seen.entry(answer.unwrap_or_else(|error| format!("{from}: {error}"))).or_default() += 1;
        }
        assert_eq!(
            seen.keys().map(String::as_str).collect::<Vec<_>>(),
            ["anyip-0", "anyip-1", "netns-0", "netns-1"],
            "{from}: {seen:?}"
        );
    }
    for node in &bed.nodes {
        let answer = read(node.dial(SocketAddr::new(node.ip(), 30123)).await.unwrap()).await;
        assert!(pods.iter().any(|(name, _)| *name == answer), "{answer}");
    }

    for node in &bed.nodes {
        node.services().set(key(), Some(service(80, None, &endpoints[..1])));
        node.services().drained(endpoints[1].0).await;
        node.services().drained(endpoints[3].0).await;
    }
    for (from, client) in &pods {
        for _ in 0..10 {
            assert_eq!(ask(&**client, ([10, 96, 0, 7], 80)).await.unwrap(), "anyip-0", "{from}");
        }
    }
    for node in &bed.nodes {
        node.services().set(key(), Some(service(80, None, &[])));
        node.services().drained(endpoints[0].0).await;
    }
    let refused = ask(&*pods[0].1, ([10, 96, 0, 7], 80)).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// Waits until every endpoint answers through the Service on each node, by way of the table's own notification: an
/// address that no rule leads to is drained at once, so the wait is for the opposite.
async fn settled(bed: &Bed, endpoints: &[(IpAddr, u16)]) {
    for node in &bed.nodes {
        for (ip, _) in endpoints {
            node.services().targeted(*ip).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_answers_pods_and_wasm_look_ups_alike() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let pod = pod(node, "client", true).await;
    node.services().set(key(), Some(service(80, None, &[])));
    assert_eq!(pod.resolve("web").await.unwrap(), [IpAddr::from([10, 96, 0, 7])]);
    assert_eq!(pod.resolve("client").await.unwrap(), pod.ips());
    assert_eq!(pod.resolve("nobody").await.unwrap_err().kind(), std::io::ErrorKind::NotFound);

    for (name, kind, code, answers) in [
        ("web.default.svc.cluster.local.", RecordType::A, ResponseCode::NoError, 1),
        ("web.default.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError, 0),
        ("_http._tcp.web.default.svc.cluster.local.", RecordType::SRV, ResponseCode::NoError, 1),
        ("no.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain, 0),
        ("example.org.", RecordType::A, ResponseCode::Refused, 0),
    ] {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let socket = socket2::Socket::from(pod.socket(SocketFamily::V4, SocketKind::Udp).unwrap());
        let socket = tokio::net::UdpSocket::from_std(socket.into()).unwrap();
        let mut buffer = [0; 512];
        let mut length = None;
        // A new link may drop its first packet; resolvers ask again, and so does this one.
        for _ in 0..10 {
            socket.send_to(&query.to_vec().unwrap(), (node.dns_ip(), 53)).await.unwrap();
            let received = tokio::time::timeout(std::time::Duration::from_secs(2), socket.recv(&mut buffer)).await;
            if let Ok(received) = received {
                length = Some(received.unwrap());
                break;
            }
        }
        let length = length.unwrap_or_else(|| panic!("no answer to {name} {kind}"));
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, answers), "{name} {kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_kept_refused_and_given_back() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let first = pod(node, "a", false).await;
    assert_eq!(pod(node, "a", false).await.ips(), first.ips());
    let other = PodRef { namespace: "default".into(), name: "b".into(), uid: "b".into() };
    let dns = dns("b");
    let asked =
        |namespaced| PodRequest { namespaced, ip: Some(first.ips()[0]), dns: dns.clone(), ..PodRequest::default() };
    let taken = node.add_pod(&other, asked(false)).await;
    assert!(matches!(taken, Err(NetworkError::Address { .. })));
    node.remove_pod("uid-a").await.unwrap();
    let kept = node.add_pod(&other, asked(true)).await.unwrap();
    assert_eq!(kept.ips(), first.ips());
    assert!(kept.namespace().unwrap().exists());
    node.remove_pod("b").await.unwrap();
    assert!(!kept.namespace().unwrap().exists());

    for addr in ["169.254.169.254:80", "224.0.0.1:80", "[fe80::1]:80", "[::ffff:169.254.1.1]:80"] {
        assert!(first.map_connect(addr.parse().unwrap()).is_err(), "{addr}");
    }
    assert!(first.map_bind("10.128.0.200:80".parse().unwrap()).is_err());
    assert_eq!(first.map_connect("[::ffff:127.0.0.1]:80".parse().unwrap()).unwrap().ip(), first.ips()[0]);
}

/// The agent was killed before it told of the address; its Pods stay, and so do their addresses.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_outlive_a_life_that_told_nobody() {
    let Some(mut bed) = bed(1).await else { return };
    let before = pod(&bed.nodes[0], "kept", true).await;
    let gone = pod(&bed.nodes[0], "gone", true).await;
    bed.nodes.clear();
    let config = NodeConfig { name: "node-0".into(), index: 0, pod_cidr: "10.128.0.0/18".parse().unwrap() };
    let node = NodeNetwork::start(&bed.cluster, config).await.unwrap();
    let new = pod(&node, "new", true).await;
    assert!(new.ips() != before.ips() && new.ips() != gone.ips(), "{:?}", new.ips());
    let kept = pod(&node, "kept", true).await;
    assert_eq!(kept.ips(), before.ips());
    // Both have what they had, also when somebody else is removed, and more than once.
    let (first, second) = tokio::join!(node.remove_pod("uid-gone"), node.remove_pod("uid-gone"));
    first.and(second).unwrap();
    node.remove_pod("uid-gone").await.unwrap();
    for (name, pod) in [("new", &new), ("kept", &kept)] {
        serve(&**pod, name, 8080);
        let stream = node.dial((pod.ips()[0], 8080).into()).await.unwrap();
        assert_eq!(read(stream).await, name);
    }
}

/// Another address than the one that is there, or one end of a pair: the pair is made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_made_link_is_made_anew() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let links = |namespace: &std::path::Path, arguments: &str| {
        let net = format!("--net={}", namespace.display());
        let done = std::process::Command::new("nsenter").arg(net).arg("ip").args(arguments.split(' ')).status();
        assert!(done.unwrap().success(), "{arguments}");
    };
    let made = pod(node, "half", true).await;
    let namespace = made.namespace().unwrap().to_owned();
    // As a life leaves it that ends between making a pair and moving an end.
    links(&namespace, "link del eth0");
    links(&namespace, "link add eth0 type veth peer name wp0a800063");
    links(&namespace, "addr add 10.128.0.99/32 dev eth0");
    let mut bed = bed;
    bed.nodes.clear();
    let config = NodeConfig { name: "node-0".into(), index: 0, pod_cidr: "10.128.0.0/18".parse().unwrap() };
    let node = NodeNetwork::start(&bed.cluster, config).await.unwrap();
    let again = pod(&node, "half", true).await;
    serve(&*again, "half", 8080);
    let stream = node.dial((again.ips()[0], 8080).into()).await.unwrap();
    assert_eq!(read(stream).await, "half");
}

#[tokio::test(flavor = "multi_thread")]
async fn node_ports_are_published_on_loopback() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let pod = pod(node, "web", false).await;
    serve(&*pod, "web", 8080);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    node.services().set(key(), Some(service(80, Some(free), &[(pod.ips()[0], 8080)])));
    node.services().targeted(pod.ips()[0]).await;
    let mut answer = None;
    for _ in 0..200 {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", free)).await {
            answer = Some(read(stream).await);
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(answer.as_deref(), Some("web"));
    // The Service goes, and so does its port.
    node.services().set(key(), None);
    node.services().drained(pod.ips()[0]).await;
    let mut closed = false;
    for _ in 0..200 {
        closed = TcpStream::connect(("127.0.0.1", free)).await.is_err();
        if closed {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(closed);
}

/// A Pod that asks for more than an address.
async fn asking(node: &NodeNetwork, name: &str, request: PodRequest) -> Arc<dyn PodNetwork> {
    let pod = PodRef { namespace: "default".into(), name: name.into(), uid: format!("uid-{name}") };
    node.add_pod(&pod, request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn host_ports_lead_to_pods_of_both_kinds() {
    let Some(bed) = bed(2).await else { return };
    let node = &bed.nodes[0];
    let port = |port, ip| HostPort { protocol: Protocol::Tcp, ip, port, target: 8080 };
    for (name, namespaced, number) in [("wasm", false, 18080), ("container", true, 18081)] {
        let host_ports = vec![port(number, None), port(number + 10, Some(Ipv4Addr::LOCALHOST))];
        let pod = asking(node, name, PodRequest { namespaced, host_ports, ..PodRequest::default() }).await;
        serve(&*pod, if namespaced { "container" } else { "wasm" }, 8080);
    }
    let SocketAddr::V4(v4) = SocketAddr::new(node.ip(), 0) else { unreachable!() };
    let at = |ip: Ipv4Addr, port: u16| SocketAddr::from((ip, port));
    let (here, there) = (pod(node, "here", true).await, pod(&bed.nodes[1], "there", true).await);
    for (name, number) in [("wasm", 18080), ("container", 18081)] {
        for from in [&here, &there] {
            assert_eq!(ask(&**from, at(*v4.ip(), number)).await.unwrap(), name);
            assert!(ask(&**from, at(*v4.ip(), number + 10)).await.is_err(), "127.0.0.1 alone");
        }
        for number in [number, number + 10] {
            assert_eq!(read(node.dial(at(Ipv4Addr::LOCALHOST, number)).await.unwrap()).await, name);
        }
    }
    for name in ["uid-wasm", "uid-container"] {
        node.remove_pod(name).await.unwrap();
    }
    assert!(node.dial(at(Ipv4Addr::LOCALHOST, 18080)).await.is_err());
    assert!(ask(&*here, at(*v4.ip(), 18081)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_may_be_in_the_nodes_network() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let host = asking(node, "host", PodRequest { host_network: true, namespaced: true, ..PodRequest::default() }).await;
    assert_eq!((host.ips(), host.namespace()), (&[node.ip()][..], node.namespace()));
    serve(&*host, "host", 9999);
    let pod = pod(node, "pod", true).await;
    assert_eq!(ask(&*pod, SocketAddr::new(node.ip(), 9999)).await.unwrap(), "host");
    assert_eq!(ask(&*host, ([127, 0, 0, 1], 9999)).await.unwrap(), "host");
    // Its address is that of others too: they go on when it goes.
    node.drained(node.ip()).await;
    node.remove_pod("uid-host").await.unwrap();
    let again = asking(node, "again", PodRequest { host_network: true, ..PodRequest::default() }).await;
    assert_eq!(again.ips(), [node.ip()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sysctls_are_the_pods_own() {
    let Some(bed) = bed(1).await else { return };
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let sysctls = vec![set("net/ipv4/tcp_syncookies", "0"), set("kernel.shm_rmid_forced", "1")];
    let request = PodRequest { namespaced: true, sysctls, ..PodRequest::default() };
    let with = asking(&bed.nodes[0], "with", request).await;
    let without = pod(&bed.nodes[0], "without", true).await;
    let of = |pod: &dyn PodNetwork| {
        let net = format!("--net={}", pod.namespace().unwrap().display());
        let ipc = format!("--ipc={}", pod.shared().unwrap().namespace.as_ref().unwrap().display());
        let names = ["net/ipv4/tcp_syncookies", "kernel/shm_rmid_forced", "net/ipv4/ip_unprivileged_port_start"];
        let files = names.map(|name| format!("/proc/sys/{name}"));
        let output = std::process::Command::new("nsenter").args([&net, &ipc, "cat"]).args(files).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(of(&*with), "0\n1\n0\n");
    assert_eq!(of(&*without), "1\n0\n0\n");
    let wrong = PodRequest { namespaced: true, sysctls: vec![set("net.ipv4.none", "1")], ..PodRequest::default() };
    let other = PodRef { namespace: "default".into(), name: "wrong".into(), uid: "wrong".into() };
    let told = bed.nodes[0].add_pod(&other, wrong).await.err().unwrap().to_string();
    assert!(told.starts_with("set the sysctl net.ipv4.none to \"1\": No such file"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_what_sleeps_are_held_until_it_wakes() {
    let Some(bed) = bed(1).await else { return };
    let node = &bed.nodes[0];
    let set = |sleeps, endpoints: &[(IpAddr, u16)]| {
        node.services().set(key(), Some(Service { sleeps, ..service(80, Some(30124), endpoints) }));
    };
    let mut waited = node.waited();
    let mut last = None;
    for (name, namespaced) in [("anyip", Some(false)), ("netns", Some(true)), ("outside", None)] {
        let server = pod(node, &format!("server-of-{name}"), true).await;
        serve(&*server, "awake", 8080);
        let ip = server.ips()[0];
        set(true, &[]);
        if let Some(last) = last.replace(ip) {
            node.services().drained(last).await;
        }
        let client = match namespaced {
            Some(namespaced) => Some(pod(node, name, namespaced).await),
            None => None,
        };
        // At first the rules come a moment later: until then it is refused, as any Service without endpoints does.
        let asked = tokio::spawn(async move {
            loop {
                let answer = match &client {
                    Some(client) => ask(&**client, ([10, 96, 0, 7], 80)).await,
                    None => match TcpStream::connect(("127.0.0.1", 30124)).await {
                        Ok(stream) => Ok(read(stream).await),
                        Err(error) => Err(error),
                    },
                };
                match answer {
                    Ok(answer) => return answer,
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{name}"),
                }
            }
        });
        waited.wait_for(|waited| waited.contains_key(&key())).await.unwrap();
        assert!(!asked.is_finished(), "{name} is held");
        set(true, &[(ip, 8080)]);
        assert_eq!(asked.await.unwrap(), "awake", "{name}");
        waited.wait_for(|waited| waited.is_empty()).await.unwrap();
        node.services().targeted(ip).await;
    }
    let client = pod(node, "client", false).await;
    assert_eq!(ask(&*client, ([10, 96, 0, 7], 80)).await.unwrap(), "awake");
    assert!(waited.borrow().is_empty(), "who is awake is asked directly");
    assert_eq!(node.connections().await.unwrap()[&key()], 4, "held or not, each is counted once");

    // A client that gives up is waited for no longer, and neither is one whose Service does not sleep any more.
    set(true, &[]);
    node.services().drained(last.unwrap()).await;
    let hold = |client: Arc<dyn PodNetwork>| tokio::spawn(async move { ask(&*client, ([10, 96, 0, 7], 80)).await });
    let asked = hold(client.clone());
    waited.wait_for(|waited| waited.contains_key(&key())).await.unwrap();
    asked.abort();
    waited.wait_for(|waited| waited.is_empty()).await.unwrap();
    let asked = hold(client);
    waited.wait_for(|waited| waited.contains_key(&key())).await.unwrap();
    set(false, &[]);
    assert_eq!(asked.await.unwrap().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}
