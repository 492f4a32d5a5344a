//! Connections that the host makes for a guest (`wasi:http`), and look-ups.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream as StdTcpStream};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use wherry_runtime::{PodNetwork, SocketFamily, SocketKind};

use super::own_address;

/// The longest look-up.
const LOOKUP: Duration = Duration::from_secs(30);

/// The addresses that `name` means to the Pod: an address itself, or what the cluster knows.
pub(crate) async fn resolve(network: &dyn PodNetwork, name: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(ip) = name.parse() {
        return Ok(vec![ip]);
    }
    timeout(LOOKUP, network.resolve(name)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// A connection from the Pod's address to the first of `ips` that answers.
pub(crate) async fn connect(network: &dyn PodNetwork, ips: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for ip in ips {
        match connect_one(network, SocketAddr::new(*ip, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn connect_one(network: &dyn PodNetwork, address: SocketAddr) -> io::Result<TcpStream> {
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    let target = network.map_connect(address)?;
    let family = if target.is_ipv4() { SocketFamily::V4 } else { SocketFamily::V6 };
    let socket = tcp_socket(network, family)?;
    socket.bind(own_address(network, family)?)?;
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TCP socket in the Pod's network, for this thread's tokio runtime.
pub(crate) fn tcp_socket(network: &dyn PodNetwork, family: SocketFamily) -> io::Result<TcpSocket> {
    Ok(TcpSocket::from_std_stream(StdTcpStream::from(network.socket(family, SocketKind::Tcp)?)))
}
