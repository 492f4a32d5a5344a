//! The helper process of a node without root: it lives in a user and network namespace of its own, sets the node's
//! network up there, and hands sockets out over a Unix socket (`SCM_RIGHTS`). A threaded process cannot enter a
//! user namespace itself.
//!
//! Flow: `unshare --user --map-root-user --net` starts this binary again as [`HELPER_COMMAND`], its standard input one
//! end of a socket pair. It configures, answers `ready`, then serves requests until the other end closes. A
//! request is one datagram: `S` + family + kind asks for a socket, `F` for one to netfilter; `N` + script runs `nft`. An answer is one datagram:
//! `+` (with the descriptor, or with what `nft` printed), or `-` and a text.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, setsockopt,
    socketpair, sockopt,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use wherry_runtime::{SocketFamily, SocketKind};

use crate::NetworkError;
use crate::links::{NodeLinks, configure_node};
use crate::place::{feed_nft, make_netfilter, make_socket, nft_missing, spawn_nft};

/// The hidden subcommand under which the binary runs [`helper_main`].
pub const HELPER_COMMAND: &str = "netns-helper";

/// Larger scripts are split by the caller; a datagram of this size passes a socket pair with default buffers raised.
const MAX_MESSAGE: usize = 1 << 20;

/// What the helper sets up before it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HelperConfig {
    pub(crate) links: NodeLinks,
}

/// The parent's end.
#[derive(Debug)]
pub(crate) struct HelperClient {
    channel: Mutex<OwnedFd>,
    child: Mutex<Child>,
}

impl HelperClient {
    /// Starts a helper and waits until its network is up.
    pub(crate) fn start(config: &HelperConfig) -> Result<Self, NetworkError> {
        let fail = NetworkError::io("start the network helper");
        let start = || -> io::Result<Self> {
            let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
            for end in [&ours, &theirs] {
                setsockopt(end, sockopt::SndBuf, &(2 * MAX_MESSAGE))?;
            }
            let child = Command::new("unshare")
                .args(["--user", "--map-root-user", "--net", "--"])
                .arg(std::env::current_exe()?)
                .arg(HELPER_COMMAND)
                .arg(serde_json::to_string(config)?)
                .stdin(Stdio::from(theirs))
                // A Ctrl-C in the terminal goes to the whole group: the helper ends with its channel.
                .process_group(0)
                .spawn()?;
            let client = Self { channel: Mutex::new(ours), child: Mutex::new(child) };
            let ready = receive(client.channel.lock().as_fd())?;
            answer(ready)?;
            Ok(client)
        };
        start().map_err(fail)
    }

    pub(crate) fn socket(&self, family: SocketFamily, kind: SocketKind) -> io::Result<OwnedFd> {
        let family = if family == SocketFamily::V4 { b'4' } else { b'6' };
        let kind = if kind == SocketKind::Tcp { b't' } else { b'u' };
        self.call(&[b'S', family, kind])?.1.ok_or_else(|| io::Error::other("the network helper sent no socket"))
    }

    pub(crate) fn netfilter(&self) -> io::Result<OwnedFd> {
        self.call(b"F")?.1.ok_or_else(|| io::Error::other("the network helper sent no socket"))
    }

    pub(crate) fn nft(&self, script: &str) -> Result<String, String> {
        let mut message = Vec::with_capacity(script.len() + 1);
        message.push(b'N');
        message.extend_from_slice(script.as_bytes());
        if message.len() > MAX_MESSAGE {
            return Err(format!("a change of {} bytes is more than the network helper takes", message.len()));
        }
        self.call(&message).map(|(printed, _)| printed).map_err(|error| error.to_string())
    }

    fn call(&self, message: &[u8]) -> io::Result<(String, Option<OwnedFd>)> {
        let channel = self.channel.lock();
        send(channel.as_fd(), message, None)?;
        answer(receive(channel.as_fd())?)
    }
}

impl Drop for HelperClient {
    fn drop(&mut self) {
        // The helper ends when its channel closes; this only makes sure that it is reaped.
        let child = self.child.get_mut();
        drop(child.kill());
        drop(child.wait());
    }
}

/// The helper itself: `config` is its one argument, its channel is standard input. Returns when the parent is gone.
///
/// # Errors
/// When the network cannot be set up; the parent has been told the same.
pub fn helper_main(config: &str) -> Result<(), NetworkError> {
    let channel = io::stdin();
    let config: HelperConfig = serde_json::from_str(config)
        .map_err(|error| NetworkError::Invalid(format!("helper configuration: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NetworkError::io("start the helper's runtime"))?;
    let configured = runtime.block_on(async {
        let handle = crate::links::connection(rtnetlink::new_connection)?;
        configure_node(&handle, &config.links).await?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(NetworkError::io("turn on ip_forward"))
    });
    drop(runtime);
    let gone = NetworkError::io("answer the parent");
    match &configured {
        Ok(()) => send(channel.as_fd(), b"+", None).map_err(gone)?,
        Err(error) => send(channel.as_fd(), format!("-{error}").as_bytes(), None).map_err(gone)?,
    }
    configured?;
    serve(channel.as_fd()).map_err(NetworkError::io("serve the parent"))
}

fn serve(channel: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        let (message, _) = receive(channel)?;
        let result = match message.as_slice() {
            [] => return Ok(()),
            [b'S', family, kind] => {
                let family = if *family == b'4' { SocketFamily::V4 } else { SocketFamily::V6 };
                let kind = if *kind == b't' { SocketKind::Tcp } else { SocketKind::Udp };
                handed(make_socket(family, kind))
            }
            [b'F'] => handed(make_netfilter()),
            [b'N', script @ ..] => spawn_nft()
                .map_err(|error| nft_missing(&error))
                .and_then(|child| feed_nft(child, &String::from_utf8_lossy(script)))
                .map(|printed| (printed, None)),
            _ => Err("unknown request".to_owned()),
        };
        match result {
            Ok((text, fd)) => send(channel, format!("+{text}").as_bytes(), fd.as_ref())?,
            Err(text) => send(channel, format!("-{text}").as_bytes(), None)?,
        }
    }
}

fn handed(made: io::Result<OwnedFd>) -> Result<(String, Option<OwnedFd>), String> {
    made.map(|socket| (String::new(), Some(socket))).map_err(|error| error.to_string())
}

fn answer((message, fd): (Vec<u8>, Option<OwnedFd>)) -> io::Result<(String, Option<OwnedFd>)> {
    match message.as_slice() {
        [b'+', text @ ..] => Ok((String::from_utf8_lossy(text).into_owned(), fd)),
        [b'-', text @ ..] => Err(io::Error::other(String::from_utf8_lossy(text).into_owned())),
        _ => Err(io::Error::new(
            io::ErrorKind::BrokenPipe,
            "the network helper has ended (are unprivileged user namespaces allowed on this machine?)",
        )),
    }
}

fn send(channel: BorrowedFd<'_>, message: &[u8], fd: Option<&OwnedFd>) -> io::Result<()> {
    let raw = fd.map(|fd| [fd.as_raw_fd()]);
    let rights = raw.as_ref().map(|fds| [ControlMessage::ScmRights(fds)]);
    let control: &[ControlMessage<'_>] = rights.as_ref().map_or(&[], |rights| rights);
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

fn receive(channel: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut message = vec![0; MAX_MESSAGE];
    let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let (length, fd) = {
        let mut slices = [IoSliceMut::new(&mut message)];
        let received = recvmsg::<()>(channel.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let fd = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        (received.bytes, fd)
    };
    message.truncate(length);
    Ok((message, fd.map(own)))
}

#[allow(unsafe_code, reason = "SCM_RIGHTS delivers a bare number; the kernel made it for us alone a moment ago")]
fn own(fd: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: `fd` was just installed in this process by recvmsg and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
