//! Nodes in namespaces, Pods that serve and ask. Needs root and `nft`.
#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wherry_network::{
    Cluster, ClusterConfig, NodeConfig, NodeNetwork, PodDns, PodRequest, Protocol, Service, ServiceKey, ServicePort,
};
use wherry_runtime::{PodNetwork, PodRef, SocketFamily, SocketKind};

pub struct Bed {
    dir: tempfile::TempDir,
    pub cluster: Cluster,
    pub nodes: Vec<Arc<NodeNetwork>>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        Cluster::remove(self.dir.path()).unwrap();
    }
}

/// None where the tests may not make namespaces; says so.
pub async fn bed(nodes: u16) -> Option<Bed> {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: making network namespaces needs root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = ClusterConfig {
        dir: dir.path().to_owned(),
        cluster_cidr: "10.128.0.0/9".parse().unwrap(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        dns_ip: Ipv4Addr::new(10, 96, 0, 10),
        domain: "cluster.local".into(),
        publish: true,
    };
    let cluster = Cluster::start(config).await.unwrap();
    let mut started = Vec::new();
    for index in 0..nodes {
        let pod_cidr = format!("10.128.{}.0/18", u32::from(index) * 64).parse().unwrap();
        let config = NodeConfig { name: format!("node-{index}"), index, pod_cidr };
        started.push(NodeNetwork::start(&cluster, config).await.unwrap());
    }
    for index in 0..nodes {
        let pods = format!("10.128.{}.0/18", u32::from(index) * 64).parse().unwrap();
        for node in &started {
            node.set_peer(pods, Some(cluster.node_ip(index))).await.unwrap();
        }
    }
    Some(Bed { dir, cluster, nodes: started })
}

/// As a Pod of the namespace `default` has it.
pub fn dns(name: &str) -> PodDns {
    let search = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(str::to_owned).to_vec();
    PodDns { own: vec![name.into()], search, ndots: 5, cluster: true, ..PodDns::default() }
}

pub async fn pod(node: &NodeNetwork, name: &str, namespaced: bool) -> Arc<dyn PodNetwork> {
    let pod = PodRef { namespace: "default".into(), name: name.into(), uid: format!("uid-{name}") };
    let dns = dns(name);
    node.add_pod(&pod, PodRequest { namespaced, dns, ..PodRequest::default() }).await.unwrap()
}

/// Serves `name` on every connection.
pub fn serve(pod: &dyn PodNetwork, name: &'static str, port: u16) {
    let mut arrivals = pod.serve(SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
    tokio::spawn(async move {
        loop {
            let mut stream = arrivals.next().await;
            stream.write_all(name.as_bytes()).await.unwrap();
        }
    });
}

pub async fn read(stream: TcpStream) -> String {
    try_read(stream).await.unwrap()
}

pub async fn try_read(mut stream: TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// Connects as a Pod does: from its own address.
pub async fn connect(from: &dyn PodNetwork, to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::from(from.socket(SocketFamily::V4, SocketKind::Tcp)?);
    socket.bind(&SocketAddr::new(from.ips()[0], 0).into())?;
    let target = from.map_connect(to.into())?;
    tokio::net::TcpSocket::from_std_stream(socket.into()).connect(target).await
}

/// Connects as a Pod does, and reads to the end.
pub async fn ask(from: &dyn PodNetwork, to: impl Into<SocketAddr>) -> std::io::Result<String> {
    try_read(connect(from, to).await?).await
}

pub fn service(port: u16, node_port: Option<u16>, endpoints: &[(IpAddr, u16)]) -> Service {
    Service {
        cluster_ips: vec![IpAddr::from([10, 96, 0, 7])],
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port,
            node_port,
            endpoints: endpoints.iter().map(|&endpoint| endpoint.into()).collect(),
        }],
        ..Service::default()
    }
}

pub fn key() -> ServiceKey {
    ServiceKey { namespace: "default".into(), name: "web".into() }
}
