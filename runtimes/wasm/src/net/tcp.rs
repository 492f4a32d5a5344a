//! `wasi:sockets/tcp`.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use socket2::{SockRef, Socket};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::{Host, HostTcpSocket, ShutdownType, TcpSocket as Handle};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket;
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, Pollable, SocketResult, subscribe};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wherry_runtime::SocketFamily;

use super::connect::{connected as established, tcp_socket};
use super::stream::{Reader, Writer};
use super::{
    SocketsView, belongs, family, is_remote, is_unicast, options, ours, ours_owned, theirs, unspecified, wasi_family,
};
use crate::traffic::Counter;

/// The kernel bounds it further (`net.core.somaxconn`).
const BACKLOG: u32 = 128;

/// A guest's TCP socket.
struct Tcp {
    family: SocketFamily,
    backlog: u32,
    state: State,
    _permit: OwnedSemaphorePermit,
}

/// Where a socket is in its life. `Binding` and `ListenStarted` are over at the guest's `finish-*`.
enum State {
    /// Fresh; left by `start-bind` or `start-connect`.
    Fresh(Socket),
    Binding(Socket),
    /// Left by `start-listen` or `start-connect`.
    Bound(Socket),
    ListenStarted(TcpListener),
    /// Left by dropping it alone. A connection that arrived while the guest waited is kept here.
    Listening {
        listener: TcpListener,
        arrived: Option<io::Result<TcpStream>>,
    },
    /// Left by `finish-connect`.
    Connecting(AbortOnDropJoinHandle<io::Result<TcpStream>>),
    ConnectDone(io::Result<TcpStream>),
    /// Left by dropping it alone.
    Connected {
        stream: Arc<TcpStream>,
        reader: Reader,
        writer: Writer,
    },
    Closed,
}

impl Tcp {
    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Closed)
    }

    fn option(&self) -> SocketResult<SockRef<'_>> {
        match &self.state {
            State::Fresh(socket) | State::Binding(socket) | State::Bound(socket) => Ok(SockRef::from(socket)),
            State::ListenStarted(listener) | State::Listening { listener, .. } => Ok(SockRef::from(listener)),
            State::Connected { stream, .. } => Ok(SockRef::from(&**stream)),
            State::Connecting(_) | State::ConnectDone(_) | State::Closed => Err(ErrorCode::InvalidState.into()),
        }
    }
}

fn connected(stream: TcpStream, traffic: &Arc<Counter>) -> (State, Reader, Writer) {
    let stream = Arc::new(stream);
    let reader = Reader::new(Arc::clone(&stream), Arc::clone(traffic));
    let writer = Writer::new(Arc::clone(&stream), Arc::clone(traffic));
    (State::Connected { stream, reader: reader.clone(), writer: writer.clone() }, reader, writer)
}

impl tcp_create_socket::Host for SocketsView<'_> {
    fn create_tcp_socket(&mut self, address_family: IpAddressFamily) -> SocketResult<Resource<Handle>> {
        let (family, permit) = (family(address_family), self.permit()?);
        let socket = tcp_socket(self.network.as_ref(), family)?;
        if family == SocketFamily::V6 {
            SockRef::from(&socket).set_only_v6(true)?;
        }
        let entry = self.table.push(Tcp { family, backlog: BACKLOG, state: State::Fresh(socket), _permit: permit })?;
        Ok(theirs(&entry))
    }
}

impl SocketsView<'_> {
    fn tcp(&mut self, handle: &Resource<Handle>) -> SocketResult<&mut Tcp> {
        Ok(self.table.get_mut::<Tcp>(&ours(handle))?)
    }

    fn add_streams(
        &mut self,
        parent: &Resource<Tcp>,
        reader: Reader,
        writer: Writer,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let (input, output): (DynInputStream, DynOutputStream) = (Box::new(reader), Box::new(writer));
        Ok((self.table.push_child(input, parent)?, self.table.push_child(output, parent)?))
    }
}

impl Host for SocketsView<'_> {}

impl HostTcpSocket for SocketsView<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<Handle>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let (pod, local) = (Arc::clone(self.network), SocketAddr::from(local));
        let tcp = self.tcp(&this)?;
        let State::Fresh(socket) = &tcp.state else { return Err(ErrorCode::InvalidState.into()) };
        if !belongs(local.ip(), tcp.family) || !is_unicast(local.ip()) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        // So that a restarted server finds its port free, as every native server arranges for itself.
        socket.set_reuse_address(true)?;
        pod.bind(socket.as_fd(), local)?;
        if let State::Fresh(socket) = tcp.take() {
            tcp.state = State::Binding(socket);
        }
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<Handle>) -> SocketResult<()> {
        let tcp = self.tcp(&this)?;
        match tcp.take() {
            State::Binding(socket) => {
                tcp.state = State::Bound(socket);
                Ok(())
            }
            other => {
                tcp.state = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    fn start_connect(
        &mut self,
        this: Resource<Handle>,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let (pod, remote) = (Arc::clone(self.network), SocketAddr::from(remote));
        let tcp = self.tcp(&this)?;
        if !matches!(tcp.state, State::Fresh(_) | State::Bound(_)) {
            return Err(ErrorCode::InvalidState.into());
        }
        if !belongs(remote.ip(), tcp.family) || !is_remote(remote) || !is_unicast(remote.ip()) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        // What it may not reach it is told at once, and the socket is as it was.
        pod.map_connect(remote)?;
        let socket = match tcp.take() {
            State::Fresh(socket) => {
                pod.bind(socket.as_fd(), unspecified(tcp.family))?;
                socket
            }
            State::Bound(socket) => socket,
            other => {
                tcp.state = other;
                return Err(ErrorCode::InvalidState.into());
            }
        };
        let begun = pod.connect(socket.as_fd(), Some(remote));
        tcp.state = State::Connecting(spawn(async move {
            begun?;
            established(socket).await
        }));
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Resource<Handle>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let traffic = Arc::clone(self.traffic);
        let tcp = self.tcp(&this)?;
        if let State::Connecting(connecting) = &mut tcp.state {
            let Poll::Ready(done) = std::pin::Pin::new(connecting).poll(&mut Context::from_waker(Waker::noop())) else {
                return Err(ErrorCode::WouldBlock.into());
            };
            tcp.state = State::ConnectDone(done);
        }
        match tcp.take() {
            State::ConnectDone(done) => {
                let (state, reader, writer) = connected(done?, &traffic);
                tcp.state = state;
                self.add_streams(&ours(&this), reader, writer)
            }
            other => {
                tcp.state = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    async fn start_listen(&mut self, this: Resource<Handle>) -> SocketResult<()> {
        let pod = Arc::clone(self.network);
        let tcp = self.tcp(&this)?;
        match tcp.take() {
            State::Bound(socket) => {
                pod.listen(socket.as_fd(), i32::try_from(tcp.backlog).unwrap_or(i32::MAX))?;
                tcp.state = State::ListenStarted(TcpListener::from_std(StdTcpListener::from(socket))?);
                Ok(())
            }
            other => {
                tcp.state = other;
                Err(ErrorCode::InvalidState.into())
            }
        }
    }

    fn finish_listen(&mut self, this: Resource<Handle>) -> SocketResult<()> {
        let tcp = self.tcp(&this)?;
        match tcp.take() {
            State::ListenStarted(listener) => {
                tcp.state = State::Listening { listener, arrived: None };
                Ok(())
            }
            other => {
                tcp.state = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    fn accept(
        &mut self,
        this: Resource<Handle>,
    ) -> SocketResult<(Resource<Handle>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        // Without one the connection stays in the kernel's queue.
        let permit = self.permit();
        let tcp = self.tcp(&this)?;
        let family = tcp.family;
        let State::Listening { listener, arrived } = &mut tcp.state else { return Err(ErrorCode::InvalidState.into()) };
        let permit = permit?;
        let stream = match arrived.take() {
            Some(arrived) => arrived?,
            None => match listener.poll_accept(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(accepted) => accepted?.0,
                Poll::Pending => return Err(ErrorCode::WouldBlock.into()),
            },
        };
        let (state, reader, writer) = connected(stream, self.traffic);
        let entry = self.table.push(Tcp { family, backlog: BACKLOG, state, _permit: permit })?;
        let (input, output) = self.add_streams(&entry, reader, writer)?;
        Ok((theirs(&entry), input, output))
    }

    fn local_address(&mut self, this: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        let address = match &self.tcp(&this)?.state {
            State::Bound(socket) => socket.local_addr()?.as_socket().ok_or(ErrorCode::Unknown)?,
            State::ListenStarted(listener) | State::Listening { listener, .. } => listener.local_addr()?,
            State::Connected { stream, .. } => stream.local_addr()?,
            _ => return Err(ErrorCode::InvalidState.into()),
        };
        Ok(address.into())
    }

    fn remote_address(&mut self, this: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        match &self.tcp(&this)?.state {
            State::Connected { stream, .. } => Ok(stream.peer_addr()?.into()),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn is_listening(&mut self, this: Resource<Handle>) -> wasmtime::Result<bool> {
        Ok(matches!(self.table.get_mut::<Tcp>(&ours(&this))?.state, State::Listening { .. }))
    }

    fn address_family(&mut self, this: Resource<Handle>) -> wasmtime::Result<IpAddressFamily> {
        Ok(wasi_family(self.table.get_mut::<Tcp>(&ours(&this))?.family))
    }

    fn set_listen_backlog_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        let tcp = self.tcp(&this)?;
        match tcp.state {
            _ if value == 0 => Err(ErrorCode::InvalidArgument.into()),
            State::Fresh(_) | State::Binding(_) | State::Bound(_) => {
                tcp.backlog = u32::try_from(value).unwrap_or(u32::MAX).min(i32::MAX.unsigned_abs());
                Ok(())
            }
            State::ListenStarted(_) | State::Listening { .. } => Err(ErrorCode::NotSupported.into()),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn keep_alive_enabled(&mut self, this: Resource<Handle>) -> SocketResult<bool> {
        Ok(self.tcp(&this)?.option()?.keepalive()?)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<Handle>, value: bool) -> SocketResult<()> {
        Ok(self.tcp(&this)?.option()?.set_keepalive(value)?)
    }

    fn keep_alive_idle_time(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(options::keep_alive_idle(&self.tcp(&this)?.option()?)?)
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        options::set_keep_alive_idle(&self.tcp(&this)?.option()?, value)
    }

    fn keep_alive_interval(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(options::keep_alive_interval(&self.tcp(&this)?.option()?)?)
    }

    fn set_keep_alive_interval(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        options::set_keep_alive_interval(&self.tcp(&this)?.option()?, value)
    }

    fn keep_alive_count(&mut self, this: Resource<Handle>) -> SocketResult<u32> {
        Ok(options::keep_alive_count(&self.tcp(&this)?.option()?)?)
    }

    fn set_keep_alive_count(&mut self, this: Resource<Handle>, value: u32) -> SocketResult<()> {
        options::set_keep_alive_count(&self.tcp(&this)?.option()?, value)
    }

    fn hop_limit(&mut self, this: Resource<Handle>) -> SocketResult<u8> {
        let tcp = self.tcp(&this)?;
        Ok(options::hop_limit(&tcp.option()?, tcp.family)?)
    }

    fn set_hop_limit(&mut self, this: Resource<Handle>, value: u8) -> SocketResult<()> {
        let tcp = self.tcp(&this)?;
        options::set_hop_limit(&tcp.option()?, tcp.family, value)
    }

    fn receive_buffer_size(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(options::receive_buffer(&self.tcp(&this)?.option()?)?)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        options::set_receive_buffer(&self.tcp(&this)?.option()?, value)
    }

    fn send_buffer_size(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(options::send_buffer(&self.tcp(&this)?.option()?)?)
    }

    fn set_send_buffer_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        options::set_send_buffer(&self.tcp(&this)?.option()?, value)
    }

    fn subscribe(&mut self, this: Resource<Handle>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Tcp>(self.table, ours(&this))
    }

    fn shutdown(&mut self, this: Resource<Handle>, what: ShutdownType) -> SocketResult<()> {
        let State::Connected { reader, writer, .. } = &self.tcp(&this)?.state else {
            return Err(ErrorCode::InvalidState.into());
        };
        if matches!(what, ShutdownType::Receive | ShutdownType::Both) {
            reader.shutdown();
        }
        if matches!(what, ShutdownType::Send | ShutdownType::Both) {
            writer.shutdown();
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete::<Tcp>(ours_owned(&this))?;
        Ok(())
    }
}

#[async_trait]
impl Pollable for Tcp {
    async fn ready(&mut self) {
        match &mut self.state {
            State::Connecting(connecting) => self.state = State::ConnectDone(connecting.await),
            State::Listening { listener, arrived } if arrived.is_none() => {
                *arrived = Some(listener.accept().await.map(|(stream, _)| stream));
            }
            _ => {}
        }
    }
}
