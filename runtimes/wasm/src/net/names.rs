//! `wasi:sockets/ip-name-lookup`.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{Host, HostResolveAddressStream, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, SocketResult, subscribe};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::{SocketsView, ours, ours_owned, resolve, theirs};

/// The longest name that DNS knows.
const NAME_BYTES: usize = 253;

/// A look-up, going on or answered.
enum Lookup {
    Going(AbortOnDropJoinHandle<io::Result<Vec<IpAddr>>>),
    Answered(Result<std::vec::IntoIter<IpAddr>, ErrorCode>),
}

impl Host for SocketsView<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        self.table.get(&network)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(plain) {
            return Err(ErrorCode::InvalidArgument.into());
        }
        let pod = Arc::clone(self.network);
        let lookup = Lookup::Going(spawn(async move { resolve(pod.as_ref(), &name).await }));
        Ok(theirs(&self.table.push(lookup)?))
    }
}

impl HostResolveAddressStream for SocketsView<'_> {
    fn resolve_next_address(&mut self, this: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        let lookup = self.table.get_mut::<Lookup>(&ours(&this))?;
        // A guest may ask again and again instead of waiting.
        let _ = lookup.poll_answer(&mut Context::from_waker(Waker::noop()));
        match lookup {
            Lookup::Going(_) => Err(ErrorCode::WouldBlock.into()),
            Lookup::Answered(Ok(addresses)) => Ok(addresses.next().map(Into::into)),
            Lookup::Answered(Err(code)) => Err((*code).into()),
        }
    }

    fn subscribe(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Lookup>(self.table, ours(&this))
    }

    fn drop(&mut self, this: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete::<Lookup>(ours_owned(&this))?;
        Ok(())
    }
}

impl Lookup {
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self::Going(answer) = self else { return Poll::Ready(()) };
        let Poll::Ready(answer) = Pin::new(answer).poll(cx) else { return Poll::Pending };
        *self = Self::Answered(answer.map(Vec::into_iter).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ErrorCode::NameUnresolvable,
            io::ErrorKind::PermissionDenied => ErrorCode::AccessDenied,
            _ => ErrorCode::TemporaryResolverFailure,
        }));
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll_answer(cx)).await;
    }
}
