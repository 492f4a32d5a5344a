//! Whom a session is with: looked up among what runs here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::http::StatusCode;
use tokio::net::{TcpSocket, TcpStream};
use wherry_runtime::{ContainerId, PodNetwork, Runtime, SocketFamily, SocketKind};

use super::handshake::Refusal;
use crate::driver::shared::{Seen, View};

/// A container that runs.
pub(super) struct Container {
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) id: ContainerId,
}

fn pod(view: &View, namespace: &str, pod: &str) -> Result<Seen, Refusal> {
    let seen = view.read().get(&(namespace.to_owned(), pod.to_owned())).cloned();
    seen.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "pod does not exist"))
}

/// The container of this name, while it runs.
pub(super) fn container(view: &View, namespace: &str, name: &str, container: &str) -> Result<Container, Refusal> {
    let seen = pod(view, namespace, name)?;
    let running = seen.containers.into_iter().find(|one| one.name == container).and_then(|one| one.live);
    let (id, runtime) =
        running.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("container not found ({container:?})")))?;
    Ok(Container { runtime, id })
}

/// A Pod that can be dialled.
#[derive(Clone)]
pub(super) struct Pod {
    network: Arc<dyn PodNetwork>,
    full_name: String,
    uid: String,
}

/// The Pod of this name, while it has a network.
pub(super) fn dialled(view: &View, namespace: &str, name: &str) -> Result<Pod, Refusal> {
    let seen = pod(view, namespace, name)?;
    let full_name = format!("{name}_{namespace}");
    let network =
        seen.network.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("pod not found ({full_name:?})")))?;
    Ok(Pod { network, full_name, uid: seen.pod.metadata.uid.clone().unwrap_or_default() })
}

impl Pod {
    /// Connects to a port of the Pod's own loopback. What went wrong is told in a kubelet's words.
    pub(super) async fn forward(&self, port: u16) -> Result<TcpStream, String> {
        self.connect(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).await.map_err(|why| {
            self.failed(port, &format!("failed to connect to localhost:{port}: dial tcp4 127.0.0.1:{port}: {why}"))
        })
    }

    /// Connects to a port of the Pod's address.
    pub(super) async fn dial(&self, port: u16) -> Result<TcpStream, String> {
        let ip = self.network.ips().first().copied().ok_or("the pod has no address")?;
        self.connect(SocketAddr::new(ip, port)).await.map_err(|why| format!("dial tcp {ip}:{port}: {why}"))
    }

    async fn connect(&self, to: SocketAddr) -> Result<TcpStream, String> {
        let dial = async {
            let to = self.network.map_connect(to)?;
            let socket = self.network.socket(SocketFamily::V4, SocketKind::Tcp)?;
            let stream = TcpSocket::from_std_stream(std::net::TcpStream::from(socket)).connect(to).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(stream)
        };
        dial.await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            _ => format!("connect: {error}"),
        })
    }

    /// What is told of a port that could not be forwarded.
    pub(super) fn failed(&self, port: u16, why: &str) -> String {
        format!("error forwarding port {port} to pod {}, uid {}: {why}", self.full_name, self.uid)
    }
}
