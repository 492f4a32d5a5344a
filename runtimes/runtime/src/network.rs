//! Where a Pod's sockets are made.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use crate::arrivals::{self, Arrivals};

/// The transport of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SocketKind {
    /// `SOCK_STREAM`.
    Tcp,
    /// `SOCK_DGRAM`.
    Udp,
}

/// One Pod's view of the network, as `node/network` gives it to a runtime.
///
/// A Pod of Wasm alone has an address but no namespace of its own (AnyIP); a Pod with any container has a
/// network namespace, and its Wasm containers make their sockets inside it. A runtime need not know which:
/// it asks for sockets here, names addresses to them through this trait alone ([`bind`](Self::bind),
/// [`connect`](Self::connect), [`send_to`](Self::send_to)), and looks names up here. So whoever runs guests needs no right to name
/// any address to the kernel itself.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// The Pod's addresses, the primary one first.
    fn ips(&self) -> &[IpAddr];

    /// The path of the Pod's own network namespace, for an OCI runtime; none where the Pod has an address alone.
    fn namespace(&self) -> Option<&Path>;

    /// What the Pod's containers share beside the network; none where each has its own.
    fn shared(&self) -> Option<&SharedMemory> {
        None
    }

    /// Whose processes its containers see. Makes the Pod's shared namespace where it is not there (any more).
    fn processes(&self) -> io::Result<Processes> {
        Ok(Processes::Container)
    }

    /// A new unbound, non-blocking, close-on-exec socket in the Pod's network. It stays there whichever
    /// thread uses it. Takes microseconds; never waits on the network.
    fn socket(&self, family: SocketFamily, kind: SocketKind) -> io::Result<OwnedFd>;

    /// The address that a guest's `bind(addr)` means: the unspecified address and loopback mean the Pod's own
    /// where the Pod has no namespace. `PermissionDenied` where the Pod may not bind it.
    fn map_bind(&self, addr: SocketAddr) -> io::Result<SocketAddr>;

    /// The address that a guest's `connect(addr)` or `send_to(addr)` means; loopback is the Pod itself.
    /// `PermissionDenied` where the Pod may not reach it (the node's loopback, link-local, multicast).
    fn map_connect(&self, addr: SocketAddr) -> io::Result<SocketAddr>;

    /// Binds a socket of this network to what a guest means by `addr`, as [`map_bind`](Self::map_bind) has it.
    fn bind(&self, socket: BorrowedFd<'_>, addr: SocketAddr) -> io::Result<()> {
        SockRef::from(&socket).bind(&self.map_bind(addr)?.into())
    }

    /// Has a bound socket accept connections, of which `backlog` may wait.
    fn listen(&self, socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
        SockRef::from(&socket).listen(backlog)
    }

    /// Has connections to what a guest means by `addr` ([`map_bind`](Self::map_bind)) come to the caller, in whose tokio runtime it is
    /// called. They do when it returns. `AddrInUse` where somebody in the Pod has the address; `AddrInUse` is then also what others
    /// get who want it. Takes microseconds, as making a socket does. Whether a listener stands behind it is the network's concern.
    fn serve(&self, addr: SocketAddr) -> io::Result<Box<dyn Arrivals>> {
        arrivals::listener(self, addr)
    }

    /// Connects a socket to what a guest means by `addr`, as [`map_connect`](Self::map_connect) has it; with none, a datagram
    /// socket is connected to nobody any more. A TCP connection has only begun: it is there, or has failed, when the socket can be
    /// written to.
    fn connect(&self, socket: BorrowedFd<'_>, addr: Option<SocketAddr>) -> io::Result<()> {
        let Some(addr) = addr else { return Ok(rustix::net::connect_unspec(socket)?) };
        match SockRef::from(&socket).connect(&self.map_connect(addr)?.into()) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => Ok(()),
            done => done,
        }
    }

    /// Sends a datagram to what a guest means by `addr`, as [`map_connect`](Self::map_connect) has it. Returns its length.
    fn send_to(&self, socket: BorrowedFd<'_>, datagram: &[u8], addr: SocketAddr) -> io::Result<usize> {
        SockRef::from(&socket).send_to(datagram, &self.map_connect(addr)?.into())
    }

    /// The addresses of `name`, by the Pod's search path and the cluster's records.
    /// `NotFound` where there is no such name.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The places on the node that make the containers of a Pod one machine to `shm_open(3)`, `semget(2)` and the like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMemory {
    /// The IPC namespace's file; the machine's own where none.
    pub namespace: Option<PathBuf>,
    /// What is mounted at `/dev/shm`.
    pub shm: PathBuf,
}

/// Whose processes a container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processes {
    /// Its own.
    Container,
    /// Those of all containers of its Pod: the PID namespace's file.
    Pod(PathBuf),
    /// The machine's.
    Node,
}

/// The address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SocketFamily {
    /// `AF_INET`.
    V4,
    /// `AF_INET6`.
    V6,
}
