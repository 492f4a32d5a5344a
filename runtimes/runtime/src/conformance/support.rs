//! What the checks stand on: an output that remembers, an output that can be held, and loopback as a Pod's network.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Notify, watch};

use crate::{Output, PodNetwork, SocketFamily, SocketKind, Stream};

/// An [`Output`] that remembers all it was given.
#[derive(Default)]
pub struct Captured {
    streams: Mutex<(Vec<u8>, Vec<u8>)>,
    more: Notify,
}

impl Captured {
    /// An empty one.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What came on stdout so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.streams.lock().0).into_owned()
    }

    /// Resolves when this text has come on stdout.
    pub async fn said(&self, text: &str) {
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            more.as_mut().enable();
            if self.stdout().contains(text) {
                return;
            }
            more.await;
        }
    }

    /// What came on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.streams.lock().1).into_owned()
    }
}

#[async_trait]
impl Output for Captured {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        let mut streams = self.streams.lock();
        match stream {
            Stream::Stdout => streams.0.extend_from_slice(&bytes),
            Stream::Stderr => streams.1.extend_from_slice(&bytes),
        }
        drop(streams);
        self.more.notify_waiters();
    }
}

/// An [`Output`] that takes nothing until it is opened: a log that is behind.
pub struct Gate {
    open: watch::Sender<bool>,
    behind: Arc<Captured>,
}

impl Gate {
    /// A closed one; what passes it goes to `behind`.
    #[must_use]
    pub fn closed(behind: Arc<Captured>) -> Arc<Self> {
        Arc::new(Self { open: watch::Sender::new(false), behind })
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

#[async_trait]
impl Output for Gate {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        // The sender lives as long as `self`: waiting cannot fail.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        self.behind.write(stream, bytes).await;
    }
}

/// A Pod's network made of one loopback address (any of 127.0.0.0/8): real sockets, no setup, no rights.
pub struct Loopback {
    ips: [IpAddr; 1],
    names: Vec<(String, IpAddr)>,
}

impl Loopback {
    /// A Pod at `ip`, for which no name exists.
    #[must_use]
    pub fn new(ip: IpAddr) -> Self {
        Self { ips: [ip], names: Vec::new() }
    }

    /// The same, with one more name to look up.
    #[must_use]
    pub fn with_name(mut self, name: &str, ip: IpAddr) -> Self {
        self.names.push((name.to_owned(), ip));
        self
    }

    fn own(&self, addr: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.ips[0], addr.port())
    }
}

#[async_trait]
impl PodNetwork for Loopback {
    fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    fn namespace(&self) -> Option<&Path> {
        None
    }

    fn socket(&self, family: SocketFamily, kind: SocketKind) -> io::Result<OwnedFd> {
        let domain = match family {
            SocketFamily::V4 => Domain::IPV4,
            SocketFamily::V6 => Domain::IPV6,
        };
        let (kind, protocol) = match kind {
            SocketKind::Tcp => (Type::STREAM, Protocol::TCP),
            SocketKind::Udp => (Type::DGRAM, Protocol::UDP),
        };
        Ok(Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?.into())
    }

    fn map_bind(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        if addr.ip().is_unspecified() || addr.ip() == IpAddr::from([127, 0, 0, 1]) || addr.ip() == self.ips[0] {
            return Ok(self.own(addr));
        }
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn map_connect(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        match addr.ip() {
            ip if ip == IpAddr::from([127, 0, 0, 1]) => Ok(self.own(addr)),
            IpAddr::V4(ip) if ip.is_loopback() => Ok(addr),
            _ => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let found: Vec<IpAddr> = self.names.iter().filter(|(known, _)| known == name).map(|(_, ip)| *ip).collect();
        if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
    }
}
