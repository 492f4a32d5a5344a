//! A Pod's network, reached from inside a host: its agent makes, binds, connects and sends, and hands sockets over.
//!
//! A second socket pair carries one request at a time, each answered before the next: a datagram with what is wished, a
//! datagram back, with the new socket where one was wished. The caller waits meanwhile, as it would for the kernel. Where a
//! wish is about a socket that the host has, it names its number, and the agent takes the socket from the host
//! (`pidfd_getfd`): so the host need not be allowed to send descriptors, nor anything to an address.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, send, sendmsg,
};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use wherry_runtime::{ContainerId, PodNetwork, SocketFamily, SocketKind};

use crate::entry::Entries;
use crate::wire::{Blob, Favour, IoFault, Peer, Plea};

/// The longest message: a datagram of UDP and what is said of it.
const LONGEST: usize = 68 << 10;
/// Look-ups that a host has under way at once; more wait.
const LOOKUPS: usize = 256;

/// What a host sends.
#[derive(Serialize, Deserialize)]
enum Word {
    /// For this container.
    Wish(ContainerId, Wish),
    /// It could not lock itself in, and ends.
    Failed(String),
}

/// What a host wants done. Numbers are those of its own descriptors.
#[derive(Serialize, Deserialize)]
enum Wish {
    Socket(SocketFamily, SocketKind),
    Bind(RawFd, SocketAddr),
    Listen(RawFd, i32),
    Connect(RawFd, Option<SocketAddr>),
    SendTo(RawFd, Blob, SocketAddr),
    MapBind(SocketAddr),
    MapConnect(SocketAddr),
}

/// What came of it.
#[derive(Serialize, Deserialize)]
enum Granted {
    Done,
    Socket,
    Sent(usize),
    Address(SocketAddr),
}

type Answer = Result<Granted, IoFault>;

/// The host's end.
pub(crate) struct Broker {
    channel: OwnedFd,
    /// Held from a request to its answer.
    asking: Mutex<()>,
}

impl Broker {
    pub(crate) fn new(channel: OwnedFd) -> Self {
        Self { channel, asking: Mutex::default() }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Tells why this host ends before it has begun.
    pub(crate) fn failed(&self, why: &str) -> io::Result<()> {
        tell(&self.channel, &Word::Failed(why.to_owned()))
    }

    fn ask(&self, id: &ContainerId, wish: Wish) -> io::Result<(Granted, Option<OwnedFd>)> {
        let _one_at_a_time = self.asking.lock();
        tell(&self.channel, &Word::Wish(id.clone(), wish))?;
        let Some((answer, fd)) = hear::<Answer>(&self.channel)? else { return Err(io::ErrorKind::BrokenPipe.into()) };
        Ok((answer?, fd))
    }
}

/// A Pod's network as its host sees it.
pub(crate) struct Far {
    pub(crate) id: ContainerId,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) agent: Arc<Peer<Plea, Result<Favour, IoFault>>>,
    pub(crate) lookups: Arc<Semaphore>,
}

/// The look-ups of one host.
pub(crate) fn lookups() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LOOKUPS))
}

impl Far {
    fn ask(&self, wish: Wish) -> io::Result<Granted> {
        self.broker.ask(&self.id, wish).map(|(granted, _)| granted)
    }

    fn address(&self, wish: Wish) -> io::Result<SocketAddr> {
        match self.ask(wish)? {
            Granted::Address(address) => Ok(address),
            _ => Err(unexpected()),
        }
    }
}

#[async_trait]
impl PodNetwork for Far {
    fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    fn namespace(&self) -> Option<&Path> {
        None
    }

    fn socket(&self, family: SocketFamily, kind: SocketKind) -> io::Result<OwnedFd> {
        let (_, socket) = self.broker.ask(&self.id, Wish::Socket(family, kind))?;
        socket.ok_or_else(unexpected)
    }

    fn map_bind(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        self.address(Wish::MapBind(addr))
    }

    fn map_connect(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        self.address(Wish::MapConnect(addr))
    }

    fn bind(&self, socket: BorrowedFd<'_>, addr: SocketAddr) -> io::Result<()> {
        self.ask(Wish::Bind(socket.as_raw_fd(), addr)).map(drop)
    }

    fn listen(&self, socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
        self.ask(Wish::Listen(socket.as_raw_fd(), backlog)).map(drop)
    }

    fn connect(&self, socket: BorrowedFd<'_>, addr: Option<SocketAddr>) -> io::Result<()> {
        self.ask(Wish::Connect(socket.as_raw_fd(), addr)).map(drop)
    }

    fn send_to(&self, socket: BorrowedFd<'_>, datagram: &[u8], addr: SocketAddr) -> io::Result<usize> {
        match self.ask(Wish::SendTo(socket.as_raw_fd(), Blob(datagram.to_vec()), addr))? {
            Granted::Sent(length) => Ok(length),
            _ => Err(unexpected()),
        }
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let _one = self.lookups.acquire().await.map_err(io::Error::other)?;
        let plea = Plea::Resolve { id: self.id.clone(), name: name.to_owned() };
        match self.agent.call(&plea, Vec::new()).await.map_err(io::Error::other)?? {
            Favour::Addresses(addresses) => Ok(addresses),
            Favour::Taken => Err(unexpected()),
        }
    }
}

fn unexpected() -> io::Error {
    io::Error::other("the agent answered something else")
}

/// The agent's side: does what a host wishes until it is gone; why it failed where it said so. One thread a host does nothing else,
/// so that a host that finds a way to make it wait makes itself wait.
pub(crate) fn serve(channel: &OwnedFd, host: &OwnedFd, entries: &Entries) -> Option<String> {
    loop {
        let word = match hear::<Word>(channel) {
            Ok(Some((word, _))) => word,
            Ok(None) => return None,
            Err(error) => return Some(format!("its network requests cannot be read: {error}")),
        };
        let (id, wish) = match word {
            Word::Wish(id, wish) => (id, wish),
            Word::Failed(why) => return Some(why),
        };
        let done = entries.find(&id).and_then(|entry| grant(entry.network().as_ref(), host, wish));
        let (answer, socket): (Answer, _) = match done {
            Ok((granted, socket)) => (Ok(granted), socket),
            Err(error) => (Err(error.into()), None),
        };
        if hand(channel, &answer, socket.as_ref()).is_err() {
            return None;
        }
    }
}

fn grant(network: &dyn PodNetwork, host: &OwnedFd, wish: Wish) -> io::Result<(Granted, Option<OwnedFd>)> {
    let take = |number: RawFd| -> io::Result<OwnedFd> {
        let socket = pidfd_getfd(host, number, PidfdGetfdFlags::empty())?;
        // Whatever the host has made of it: nothing is waited for here.
        ioctl_fionbio(&socket, true)?;
        Ok(socket)
    };
    let granted = match wish {
        Wish::Socket(family, kind) => return Ok((Granted::Socket, Some(network.socket(family, kind)?))),
        Wish::Bind(socket, addr) => {
            network.bind(take(socket)?.as_fd(), addr)?;
            Granted::Done
        }
        Wish::Listen(socket, backlog) => {
            network.listen(take(socket)?.as_fd(), backlog)?;
            Granted::Done
        }
        Wish::Connect(socket, addr) => {
            network.connect(take(socket)?.as_fd(), addr)?;
            Granted::Done
        }
        Wish::SendTo(socket, datagram, addr) => {
            Granted::Sent(network.send_to(take(socket)?.as_fd(), &datagram.0, addr)?)
        }
        Wish::MapBind(addr) => Granted::Address(network.map_bind(addr)?),
        Wish::MapConnect(addr) => Granted::Address(network.map_connect(addr)?),
    };
    Ok((granted, None))
}

fn encoded<T: Serialize>(what: &T) -> io::Result<Vec<u8>> {
    postcard::to_allocvec(what).map_err(io::Error::other)
}

/// Sends without a descriptor, which a host may.
fn tell<T: Serialize>(channel: &OwnedFd, what: &T) -> io::Result<()> {
    let bytes = encoded(what)?;
    if bytes.len() > LONGEST {
        return Err(Errno::MSGSIZE.into());
    }
    rustix::io::retry_on_intr(|| send(channel, &bytes, SendFlags::NOSIGNAL))?;
    Ok(())
}

fn hand<T: Serialize>(channel: &OwnedFd, what: &T, fd: Option<&OwnedFd>) -> io::Result<()> {
    let Some(fd) = fd else { return tell(channel, what) };
    let (bytes, fds) = (encoded(what)?, [fd.as_fd()]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::io::retry_on_intr(|| sendmsg(channel, &[io::IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// What the other side said; none where it is gone.
fn hear<T: serde::de::DeserializeOwned>(channel: &OwnedFd) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut bytes = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = rustix::io::retry_on_intr(|| {
        recvmsg(channel, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?
    .bytes;
    if length == 0 {
        return Ok(None);
    }
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let said = postcard::from_bytes(&bytes[..length]);
    said.map(|said| Some((said, fd))).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}
