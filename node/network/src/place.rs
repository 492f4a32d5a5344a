//! A place where sockets are made and rules are set: a namespace that this process may enter, or one that a helper
//! process holds for it (without root).

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
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
