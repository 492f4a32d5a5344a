//! Where connections to a served container arrive.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd as _;
use std::time::Duration;

use async_trait::async_trait;
use socket2::Socket;
use tokio::net::{TcpListener, TcpStream};

use crate::{PodNetwork, SocketFamily, SocketKind};

/// Connections that may wait in the kernel for a listener of its own.
const BACKLOG: i32 = 4096;
/// How long nothing is accepted after it failed.
const AGAIN: Duration = Duration::from_millis(50);

/// The connections to one address of a Pod, from [`PodNetwork::serve`].
///
/// Whoever drops it has the address free again; who waits there by then is reset.
#[async_trait]
pub trait Arrivals: Send + 'static {
    /// The next connection, driven by the caller's tokio runtime. None is lost where the wait is given up.
    async fn next(&mut self) -> TcpStream;

    /// Ends it: the address is free again. Returns those that had arrived by now.
    fn close(self: Box<Self>) -> Vec<TcpStream>;
}

/// Accepts the next connection. Where none can be accepted (this process is out of descriptors, most likely), it is tried again
/// a moment later: at once it would fail again.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => not_accepted(&error).await,
        }
    }
}

/// Waits as is due after `accept(2)` failed.
pub async fn not_accepted(error: &io::Error) {
    // A client that left again says nothing of the next.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::warn!(%error, "connections cannot be accepted for a moment");
        tokio::time::sleep(AGAIN).await;
    }
}

/// A listener of its own for what a guest of `network` means by `addr`: what [`PodNetwork::serve`] is where a network has no
/// better way.
///
/// # Errors
/// As `bind(2)` and `listen(2)`.
pub fn listener<N: PodNetwork + ?Sized>(network: &N, addr: SocketAddr) -> io::Result<Box<dyn Arrivals>> {
    let family = if addr.is_ipv4() { SocketFamily::V4 } else { SocketFamily::V6 };
    let socket = Socket::from(network.socket(family, SocketKind::Tcp)?);
    socket.set_reuse_address(true)?;
    network.bind(socket.as_fd(), addr)?;
    network.listen(socket.as_fd(), BACKLOG)?;
    Ok(Box::new(Listener(TcpListener::from_std(StdTcpListener::from(socket))?)))
}

struct Listener(TcpListener);

#[async_trait]
impl Arrivals for Listener {
    async fn next(&mut self) -> TcpStream {
        accept(&self.0).await.0
    }

    /// Those too of which the reactor has not told yet.
    fn close(self: Box<Self>) -> Vec<TcpStream> {
        let mut streams = Vec::new();
        let Ok(listener) = self.0.into_std() else { return streams };
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(_) => return streams,
            };
            streams.extend(stream);
        }
    }
}
