//! A place where sockets are made and rules are set: a namespace that this process may enter, or one that a helper
//! process holds for it (without root).

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use wherry_runtime::{SocketFamily, SocketKind};

use crate::NetworkError;
use crate::helper::HelperClient;
use crate::netns::Netns;

/// Where a node's network lives.
#[derive(Debug)]
pub(crate) enum Place {
    /// We have the right to step in.
    Entered(Netns),
    /// A helper process is inside.
    Held(HelperClient),
}

impl Place {
    /// A new non-blocking socket that belongs to the place.
    pub(crate) fn socket(&self, family: SocketFamily, kind: SocketKind) -> io::Result<OwnedFd> {
        match self {
            Self::Entered(netns) => netns.enter(|| make_socket(family, kind)),
            Self::Held(helper) => helper.socket(family, kind),
        }
    }

    /// A new socket to the place's netfilter.
    pub(crate) fn netfilter(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Entered(netns) => netns.enter(make_netfilter),
            Self::Held(helper) => helper.netfilter(),
        }
    }

    /// Runs one nftables script (one transaction) in the place, and returns what it printed. Blocks for milliseconds.
    pub(crate) fn nft(&self, script: &str) -> Result<String, NetworkError> {
        match self {
            // A child starts in the namespace of the thread that forks it.
            Self::Entered(netns) => {
                let child = netns.enter(spawn_nft).map_err(|error| NetworkError::Nft(nft_missing(&error)))?;
                feed_nft(child, script).map_err(NetworkError::Nft)
            }
            Self::Held(helper) => helper.nft(script).map_err(NetworkError::Nft),
        }
    }
}

pub(crate) fn make_socket(family: SocketFamily, kind: SocketKind) -> io::Result<OwnedFd> {
    let family = match family {
        SocketFamily::V4 => AddressFamily::Inet,
        SocketFamily::V6 => AddressFamily::Inet6,
    };
    let kind = match kind {
        SocketKind::Tcp => SockType::Stream,
        SocketKind::Udp => SockType::Datagram,
    };
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?)
}

pub(crate) fn make_netfilter() -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkNetFilter;
    Ok(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?)
}

pub(crate) fn spawn_nft() -> io::Result<std::process::Child> {
    let spawn = |program| {
        // A group of its own: Ctrl-C is for us, who end in order.
        let mut command = Command::new(program);
        command
            .process_group(0)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    };
    match spawn("nft") {
        // An ordinary user's PATH lacks the directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => spawn("/usr/sbin/nft"),
        spawned => spawned,
    }
}

pub(crate) fn feed_nft(mut child: std::process::Child, script: &str) -> Result<String, String> {
    let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        return fed.map(|()| printed).map_err(|error| error.to_string());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

pub(crate) fn nft_missing(error: &io::Error) -> String {
    format!("cannot start `nft` (package nftables): {error}")
}

/// A tokio listener from a bare socket: bound, listening.
pub(crate) fn listen(socket: OwnedFd, addr: std::net::SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let socket = socket2::Socket::from(socket);
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    tokio::net::TcpListener::from_std(socket.into())
}

/// Connects a bare socket.
pub(crate) async fn connect(socket: OwnedFd, addr: std::net::SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let stream: std::net::TcpStream = socket2::Socket::from(socket).into();
    tokio::net::TcpSocket::from_std_stream(stream).connect(addr).await
}

/// Ends a connection as a port that nobody listens on answers, once the stream is dropped.
pub(crate) fn reset(client: &impl AsFd) {
    // Without it the client would see an orderly end; where it fails, that is what it sees.
    drop(socket2::SockRef::from(client).set_linger(Some(Duration::ZERO)));
}
