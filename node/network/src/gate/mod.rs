//! One listener for all served Pods of a node that have an address alone.
//!
//! ```text
//!  a packet to a Pod's address ─► (Services, host ports) ─► in the set? ─► this listener ─► by its address ─► the Pod's server
//!                                                             └► no: whatever listens there itself, or refused
//! ```
//!
//! The kernel's transparent proxying leads connections to what is in a set of addresses to the listener, each with the address that
//! its client meant. So an idle served Pod costs an element of the set and a row of a table here: no file, no socket.
//!
//! # Guarantees
//! - An address is served when [`Gate::serve`] returns, and is nobody's when its [`Arrivals`] are gone: both by the kernel's answer.
//! - An address has one owner: a guest's socket that listens there, or a row here. Who comes second is told `EADDRINUSE`.
//! - Who connects to the listener itself, or comes as an owner goes, is reset.
//! - Bounded: who waits for one Pod beyond [`WAITING`] is reset. Nobody waits for another Pod's.

mod message;
mod set;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use async_trait::async_trait;
use nix::errno::Errno;
use parking_lot::Mutex;
use rustix::net::{SocketFlags, accept_with};
use socket2::Socket;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;
use wherry_runtime::{Arrivals, SocketFamily, SocketKind, not_accepted};

use crate::NetworkError;
use crate::place::{Place, reset};
use set::Set;

/// Connections that wait for one address until its server takes them.
const WAITING: usize = 256;
/// Connections of all Pods that the kernel holds until they are handed on.
const BACKLOG: i32 = 4096;
/// What nobody serves.
const NOBODY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Gate {
    place: Arc<Place>,
    listener: AsyncFd<OwnedFd>,
    set: Set,
    served: Mutex<HashMap<SocketAddrV4, mpsc::Sender<StdTcpStream>>>,
    /// Held from taking a connection to handing it on.
    taking: Mutex<()>,
}

impl Gate {
    /// Whether the kernel can do all that is needed, and this process may have it done. Blocks for milliseconds.
    pub(crate) fn try_out(place: &Place) -> Result<(), NetworkError> {
        let (_listener, set) = make(place)?;
        set.add(NOBODY).and_then(|()| set.delete(NOBODY)).map_err(NetworkError::io("change the set of served Pods"))?;
        place.nft(&set::removal()).map(drop)
    }

    /// Opens the listener, from which connections are taken until `cancel`.
    pub(crate) async fn open(place: &Arc<Place>, cancel: CancellationToken) -> Result<Arc<Self>, NetworkError> {
        let made = place.clone();
        let made = tokio::task::spawn_blocking(move || make(&made)).await;
        let (listener, set) = made.map_err(|error| NetworkError::Nft(error.to_string()))??;
        let listener = watched(listener.into()).map_err(NetworkError::io("watch the Pods' listener"))?;
        let (place, served, taking) = (place.clone(), Mutex::default(), Mutex::default());
        let gate = Arc::new(Self { place, listener, set, served, taking });
        tokio::spawn(gate.clone().run(cancel));
        Ok(gate)
    }

    /// Has connections to `address` come to the caller.
    pub(crate) fn serve(self: &Arc<Self>, address: SocketAddrV4) -> io::Result<Box<dyn Arrivals>> {
        let probe = Socket::from(self.place.socket(SocketFamily::V4, SocketKind::Tcp)?);
        probe.set_reuse_address(true)?;
        let (sender, arrived) = mpsc::channel(WAITING);
        self.if_free(address, |served| {
            // What a listener would find in its way, this one finds.
            probe.bind(&SocketAddr::V4(address).into())?;
            probe.listen(1)?;
            served.insert(address, sender);
            Ok(())
        })?;
        drop(probe);
        let arrived = Box::new(Arrived { gate: self.clone(), address, is_open: true, arrived });
        self.set.add(address)?;
        Ok(arrived)
    }

    /// Does `what` makes `address` somebody's, unless it is served.
    pub(crate) fn unless_served<T>(
        &self,
        address: SocketAddrV4,
        what: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.if_free(address, |_| what())
    }

    fn if_free<T>(
        &self,
        address: SocketAddrV4,
        what: impl FnOnce(&mut HashMap<SocketAddrV4, mpsc::Sender<StdTcpStream>>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut served = self.served.lock();
        if served.contains_key(&address) { Err(Errno::EADDRINUSE.into()) } else { what(&mut served) }
    }

    async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let take = async {
            // An error means that the reactor is gone.
            while let Ok(mut ready) = self.listener.readable().await {
                if let Ok(Err(error)) = ready.try_io(|_| self.take()) {
                    not_accepted(&error).await;
                }
            }
        };
        cancel.run_until_cancelled(take).await;
    }

    /// Hands on one connection that has arrived.
    fn take(&self) -> io::Result<()> {
        let _one_at_a_time = self.taking.lock();
        let client = accept_with(self.listener.get_ref(), SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let client = StdTcpStream::from(client);
        let refused = match client.local_addr()? {
            SocketAddr::V4(address) => match self.served.lock().get(&address) {
                Some(server) => match server.try_send(client) {
                    Ok(()) => return Ok(()),
                    Err(TrySendError::Full(client) | TrySendError::Closed(client)) => client,
                },
                None => client,
            },
            SocketAddr::V6(_) => client,
        };
        reset(&refused);
        Ok(())
    }

    /// Leads nobody to `address` any more.
    fn lead_nobody(&self, address: SocketAddrV4) {
        match self.set.delete(address) {
            // It never was there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // Who comes is reset all the same.
            Err(error) => tracing::warn!(%address, %error, "an address that is served no more is still led here"),
            Ok(()) => {}
        }
    }
}

fn make(place: &Place) -> Result<(Socket, Set), NetworkError> {
    let listen = || {
        let listener = Socket::from(place.socket(SocketFamily::V4, SocketKind::Tcp)?);
        // Its connections have it, too: who listens at a Pod's address after this one does not mind them.
        listener.set_reuse_address(true)?;
        listener.set_ip_transparent_v4(true)?;
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        listener.listen(BACKLOG)?;
        let address = listener.local_addr()?.as_socket_ipv4().ok_or(Errno::EAFNOSUPPORT)?;
        Ok((listener, address))
    };
    let (listener, address) = listen().map_err(NetworkError::io("listen for Pods"))?;
    let channel = place.netfilter().map_err(NetworkError::io("open a netlink socket of nftables"))?;
    place.nft(&set::script(address))?;
    Ok((listener, Set::new(channel)))
}

#[allow(unsafe_code, reason = "tokio cannot know that a descriptor stays open as long as its owner")]
fn watched(listener: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is its descriptor's only owner and names no other until it is dropped, with the `AsyncFd`.
    Ok(unsafe { AsyncFd::register(listener) }?)
}

/// What comes to one address.
struct Arrived {
    gate: Arc<Gate>,
    address: SocketAddrV4,
    /// Until it is closed. What is done for that is done once: a transaction that fails, as one for an element that is gone, has the kernel
    /// wait for all that read its sets, tens of milliseconds long; and the address may be another's by then.
    is_open: bool,
    arrived: mpsc::Receiver<StdTcpStream>,
}

#[async_trait]
impl Arrivals for Arrived {
    async fn next(&mut self) -> TcpStream {
        loop {
            // The row of the table is ours: nobody else ends the queue.
            let Some(client) = self.arrived.recv().await else { return std::future::pending().await };
            match TcpStream::from_std(client) {
                Ok(client) => return client,
                Err(error) => tracing::warn!(address = %self.address, %error, "a connection cannot be watched"),
            }
        }
    }

    fn close(mut self: Box<Self>) -> Vec<TcpStream> {
        self.is_open = false;
        self.gate.lead_nobody(self.address);
        // Some may be with the kernel yet. As many as can be, at the most: others go on coming.
        for _ in 0..BACKLOG {
            match self.gate.take() {
                Err(error) if error.kind() != io::ErrorKind::ConnectionAborted => break,
                _ => {}
            }
        }
        self.gate.served.lock().remove(&self.address);
        std::iter::from_fn(|| self.arrived.try_recv().ok())
            .filter_map(|client| TcpStream::from_std(client).ok())
            .collect()
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        self.gate.lead_nobody(self.address);
        self.gate.served.lock().remove(&self.address);
        while let Ok(client) = self.arrived.try_recv() {
            reset(&client);
        }
    }
}
