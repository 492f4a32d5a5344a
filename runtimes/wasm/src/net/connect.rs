//! Connections that the host makes for a guest (`wasi:http`), and look-ups.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use socket2::Socket;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wherry_runtime::{PodNetwork, SocketFamily, SocketKind};

use super::unspecified;

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
    network.bind(socket.as_fd(), unspecified(family))?;
    network.connect(socket.as_fd(), Some(address))?;
    let stream = connected(socket).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TCP socket in the Pod's network.
pub(crate) fn tcp_socket(network: &dyn PodNetwork, family: SocketFamily) -> io::Result<Socket> {
    network.socket(family, SocketKind::Tcp).map(Socket::from)
}

/// The connection that was begun on `socket`, once it is there.
pub(crate) async fn connected(socket: Socket) -> io::Result<TcpStream> {
    let stream = TcpStream::from_std(StdTcpStream::from(socket))?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}
