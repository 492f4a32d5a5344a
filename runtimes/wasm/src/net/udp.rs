//! `wasi:sockets/udp`.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    Host, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram,
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket as Handle,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket;
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketError, SocketResult, subscribe};
use wasmtime_wasi::runtime::with_ambient_tokio_runtime;
use wherry_runtime::{PodNetwork, SocketFamily, SocketKind};

use super::{SocketsView, belongs, family, is_remote, options, ours, ours_owned, theirs, wasi_family};

/// Datagrams in one call.
const BATCH: usize = 16;
/// The largest datagram.
const DATAGRAM: usize = 65_507;

/// A guest's UDP socket.
struct Udp {
    family: SocketFamily,
    socket: Arc<UdpSocket>,
    state: State,
    remote: Option<SocketAddr>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    /// Over at `finish-bind`.
    Binding,
    Bound,
}

/// What arrives.
struct Incoming {
    socket: Arc<UdpSocket>,
    remote: Option<SocketAddr>,
}

/// What is sent.
struct Outgoing {
    network: Arc<dyn PodNetwork>,
    family: SocketFamily,
    socket: Arc<UdpSocket>,
    /// As the guest named it, and as it is.
    remote: Option<(SocketAddr, SocketAddr)>,
    permitted: usize,
}

impl udp_create_socket::Host for SocketsView<'_> {
    async fn create_udp_socket(&mut self, address_family: IpAddressFamily) -> SocketResult<Resource<Handle>> {
        let (family, permit) = (family(address_family), self.permit()?);
        let socket = self.network.socket(family, SocketKind::Udp)?;
        let socket = with_ambient_tokio_runtime(|| UdpSocket::from_std(StdUdpSocket::from(socket)))?;
        if family == SocketFamily::V6 {
            SockRef::from(&socket).set_only_v6(true)?;
        }
        // tokio learns of the readiness of a new socket a moment later; guests expect to send at once.
        socket.writable().await?;
        let socket = Arc::new(socket);
        let entry = self.table.push(Udp { family, socket, state: State::Fresh, remote: None, _permit: permit })?;
        Ok(theirs(&entry))
    }
}

impl SocketsView<'_> {
    fn udp(&mut self, handle: &Resource<Handle>) -> SocketResult<&mut Udp> {
        Ok(self.table.get_mut::<Udp>(&ours(handle))?)
    }
}

impl Host for SocketsView<'_> {}

impl HostUdpSocket for SocketsView<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<Handle>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let (pod, local) = (Arc::clone(self.network), SocketAddr::from(local));
        let udp = self.udp(&this)?;
        if udp.state != State::Fresh {
            return Err(ErrorCode::InvalidState.into());
        }
        if !belongs(local.ip(), udp.family) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        pod.bind(udp.socket.as_fd(), local)?;
        udp.state = State::Binding;
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<Handle>) -> SocketResult<()> {
        let udp = self.udp(&this)?;
        if udp.state != State::Binding {
            return Err(ErrorCode::NotInProgress.into());
        }
        udp.state = State::Bound;
        Ok(())
    }

    async fn stream(
        &mut self,
        this: Resource<Handle>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>)> {
        let entry: Resource<Udp> = ours(&this);
        if self.table.iter_children(&entry)?.any(|child| child.is::<Incoming>() || child.is::<Outgoing>()) {
            return Err(SocketError::trap(wasmtime::Error::msg("the socket's earlier streams are not dropped yet")));
        }
        let pod = Arc::clone(self.network);
        let udp = self.udp(&this)?;
        if udp.state != State::Bound {
            return Err(ErrorCode::InvalidState.into());
        }
        let remote = match remote.map(SocketAddr::from) {
            Some(named) if !belongs(named.ip(), udp.family) || !is_remote(named) => {
                return Err(ErrorCode::InvalidArgument.into());
            }
            Some(named) => Some((named, pod.map_connect(named)?)),
            None => None,
        };
        match remote {
            Some((named, _)) => pod.connect(udp.socket.as_fd(), Some(named))?,
            None if udp.remote.is_some() => pod.connect(udp.socket.as_fd(), None)?,
            None => {}
        }
        udp.remote = remote.map(|(_, target)| target);
        let incoming = Incoming { socket: Arc::clone(&udp.socket), remote: udp.remote };
        let outgoing =
            Outgoing { network: pod, family: udp.family, socket: Arc::clone(&udp.socket), remote, permitted: 0 };
        let incoming = self.table.push_child(incoming, &entry)?;
        let outgoing = self.table.push_child(outgoing, &entry)?;
        Ok((theirs(&incoming), theirs(&outgoing)))
    }

    fn local_address(&mut self, this: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        let udp = self.udp(&this)?;
        if udp.state != State::Bound {
            return Err(ErrorCode::InvalidState.into());
        }
        Ok(udp.socket.local_addr()?.into())
    }

    fn remote_address(&mut self, this: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        Ok(self.udp(&this)?.remote.ok_or(ErrorCode::InvalidState)?.into())
    }

    fn address_family(&mut self, this: Resource<Handle>) -> wasmtime::Result<IpAddressFamily> {
        Ok(wasi_family(self.table.get_mut::<Udp>(&ours(&this))?.family))
    }

    fn unicast_hop_limit(&mut self, this: Resource<Handle>) -> SocketResult<u8> {
        let udp = self.udp(&this)?;
        Ok(options::hop_limit(&SockRef::from(&*udp.socket), udp.family)?)
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<Handle>, value: u8) -> SocketResult<()> {
        let udp = self.udp(&this)?;
        options::set_hop_limit(&SockRef::from(&*udp.socket), udp.family, value)
    }

    fn receive_buffer_size(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(options::receive_buffer(&SockRef::from(&*self.udp(&this)?.socket))?)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        options::set_receive_buffer(&SockRef::from(&*self.udp(&this)?.socket), value)
    }

    fn send_buffer_size(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(options::send_buffer(&SockRef::from(&*self.udp(&this)?.socket))?)
    }

    fn set_send_buffer_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        options::set_send_buffer(&SockRef::from(&*self.udp(&this)?.socket), value)
    }

    fn subscribe(&mut self, this: Resource<Handle>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Udp>(self.table, ours(&this))
    }

    fn drop(&mut self, this: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete::<Udp>(ours_owned(&this))?;
        Ok(())
    }
}

impl HostIncomingDatagramStream for SocketsView<'_> {
    fn receive(&mut self, this: Resource<IncomingDatagramStream>, max: u64) -> SocketResult<Vec<IncomingDatagram>> {
        let incoming = self.table.get_mut::<Incoming>(&ours(&this))?;
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(BATCH);
        let (mut datagrams, mut buffer) = (Vec::new(), vec![0; DATAGRAM]);
        while datagrams.len() < max {
            match incoming.socket.try_recv_from(&mut buffer) {
                // Queued before the socket was connected to this peer.
                Ok((_, from)) if incoming.remote.is_some_and(|remote| remote != from) => {}
                Ok((length, from)) => {
                    self.traffic.received(length);
                    datagrams.push(IncomingDatagram { data: buffer[..length].to_vec(), remote_address: from.into() })
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || !datagrams.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(datagrams)
    }

    fn subscribe(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Incoming>(self.table, ours(&this))
    }

    fn drop(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        self.table.delete::<Incoming>(ours_owned(&this))?;
        Ok(())
    }
}

impl Outgoing {
    /// Where one datagram goes, as the guest names it; none where the socket is connected.
    fn target(&self, named: Option<SocketAddr>) -> SocketResult<Option<SocketAddr>> {
        match (named, self.remote) {
            (None, Some(_)) => Ok(None),
            (Some(named), Some((remote, _))) if named == remote => Ok(None),
            (Some(named), None) if belongs(named.ip(), self.family) && is_remote(named) => Ok(Some(named)),
            _ => Err(ErrorCode::InvalidArgument.into()),
        }
    }

    fn send(&self, datagram: &OutgoingDatagram) -> SocketResult<()> {
        if datagram.data.len() > DATAGRAM {
            return Err(ErrorCode::DatagramTooLarge.into());
        }
        match self.target(datagram.remote_address.map(SocketAddr::from))? {
            Some(target) => self
                .socket
                .try_io(Interest::WRITABLE, || self.network.send_to(self.socket.as_fd(), &datagram.data, target))?,
            None => self.socket.try_send(&datagram.data)?,
        };
        Ok(())
    }
}

impl HostOutgoingDatagramStream for SocketsView<'_> {
    fn check_send(&mut self, this: Resource<OutgoingDatagramStream>) -> SocketResult<u64> {
        let outgoing = self.table.get_mut::<Outgoing>(&ours(&this))?;
        outgoing.permitted = BATCH;
        Ok(BATCH as u64)
    }

    fn send(&mut self, this: Resource<OutgoingDatagramStream>, datagrams: Vec<OutgoingDatagram>) -> SocketResult<u64> {
        let outgoing = self.table.get_mut::<Outgoing>(&ours(&this))?;
        if datagrams.len() > std::mem::take(&mut outgoing.permitted) {
            return Err(SocketError::trap(wasmtime::Error::msg("more datagrams than were permitted")));
        }
        let mut sent = 0;
        for datagram in &datagrams {
            match outgoing.send(datagram) {
                Ok(()) => {
                    self.traffic.sent(datagram.data.len());
                    sent += 1;
                }
                Err(_) if sent > 0 => break,
                Err(error) => match error.downcast() {
                    Ok(ErrorCode::WouldBlock) => break,
                    Ok(code) => return Err(code.into()),
                    Err(trap) => return Err(SocketError::trap(trap)),
                },
            }
        }
        Ok(sent)
    }

    fn subscribe(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Outgoing>(self.table, ours(&this))
    }

    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        self.table.delete::<Outgoing>(ours_owned(&this))?;
        Ok(())
    }
}

#[async_trait]
impl Pollable for Udp {
    async fn ready(&mut self) {}
}

#[async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        let _ = self.socket.readable().await;
    }
}

#[async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {
        let _ = self.socket.writable().await;
    }
}
