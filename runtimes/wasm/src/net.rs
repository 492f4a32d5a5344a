//! `wasi:sockets` in the Pod's network.
//!
//! wasmtime-wasi makes its sockets in the process's own network namespace. These host functions stand in their place: every
//! socket comes from [`PodNetwork::socket`], every address that a guest names is checked and mapped there first, a socket that was
//! not bound is bound to the Pod's address before it connects or sends, and names are looked up in the cluster's records.
//!
//! The resource types of wasmtime-wasi's bindings can't be made outside of that crate, so the guest's handles carry
//! those types while the table holds ours under the same index ([`ours`], [`theirs`]); every access to the table is checked
//! by type, so that a mix-up would be an error, never a confusion.

mod connect;
mod names;
mod options;
mod stream;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::SocketError;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::{
    ip_name_lookup, tcp as tcp_bindings, tcp_create_socket, udp as udp_bindings, udp_create_socket,
};
use wherry_runtime::{PodNetwork, SocketFamily};

pub(crate) use connect::{connect, resolve};

use crate::state::ComponentState;
use crate::traffic::Counter;

/// Names the data that the socket functions work on.
pub(crate) struct PodSockets;

/// What the socket functions work on.
pub(crate) struct SocketsView<'a> {
    pub(crate) table: &'a mut ResourceTable,
    pub(crate) network: &'a Arc<dyn PodNetwork>,
    pub(crate) traffic: &'a Arc<Counter>,
    /// One for each socket that the container may still have.
    pub(crate) permits: &'a Arc<Semaphore>,
}

/// Puts these functions into the place of wasmtime-wasi's.
pub(crate) fn add_to_linker(linker: &mut Linker<ComponentState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    tcp_create_socket::add_to_linker::<ComponentState, PodSockets>(linker, ComponentState::sockets)?;
    tcp_bindings::add_to_linker::<ComponentState, PodSockets>(linker, ComponentState::sockets)?;
    udp_create_socket::add_to_linker::<ComponentState, PodSockets>(linker, ComponentState::sockets)?;
    udp_bindings::add_to_linker::<ComponentState, PodSockets>(linker, ComponentState::sockets)?;
    ip_name_lookup::add_to_linker::<ComponentState, PodSockets>(linker, ComponentState::sockets)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl SocketsView<'_> {
    /// Held by a socket of the guest's for as long as it is there.
    fn permit(&self) -> Result<OwnedSemaphorePermit, ErrorCode> {
        Arc::clone(self.permits).try_acquire_owned().map_err(|_| ErrorCode::NewSocketLimit)
    }
}

impl network::Host for SocketsView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<io::Error>().map(ErrorCode::from))
    }
}

impl network::HostNetwork for SocketsView<'_> {
    fn drop(&mut self, this: Resource<network::Network>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// A handle of the guest's as the entry of the table that it is.
fn ours<T: 'static, U: 'static>(handle: &Resource<T>) -> Resource<U> {
    Resource::new_borrow(handle.rep())
}

/// The same, to take it out of the table.
fn ours_owned<T: 'static, U: 'static>(handle: &Resource<T>) -> Resource<U> {
    Resource::new_own(handle.rep())
}

/// An entry of the table as a handle for the guest.
fn theirs<T: 'static, U: 'static>(entry: &Resource<T>) -> Resource<U> {
    Resource::new_own(entry.rep())
}

fn family(family: IpAddressFamily) -> SocketFamily {
    match family {
        IpAddressFamily::Ipv4 => SocketFamily::V4,
        IpAddressFamily::Ipv6 => SocketFamily::V6,
    }
}

fn wasi_family(family: SocketFamily) -> IpAddressFamily {
    match family {
        SocketFamily::V4 => IpAddressFamily::Ipv4,
        SocketFamily::V6 => IpAddressFamily::Ipv6,
    }
}

/// No address, which means the Pod's own.
fn unspecified(family: SocketFamily) -> SocketAddr {
    match family {
        SocketFamily::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketFamily::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Whether a socket of `family` may name `address`: of its own family, and not an IPv4 address in IPv6's clothes, which
/// would get round the checks of the real one.
fn belongs(address: IpAddr, family: SocketFamily) -> bool {
    match (address, family) {
        (IpAddr::V4(_), SocketFamily::V4) => true,
        (IpAddr::V6(ip), SocketFamily::V6) => ip.to_ipv4_mapped().is_none(),
        _ => false,
    }
}

/// Whether data can be sent to `address` at all.
fn is_remote(address: SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified()
}

fn is_unicast(address: IpAddr) -> bool {
    !address.is_multicast() && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_no_way_round() {
        assert!(!belongs("::ffff:127.0.0.1".parse().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), SocketFamily::V6));
        assert!(
            belongs(Ipv6Addr::LOCALHOST.into(), SocketFamily::V6)
                && !belongs(Ipv4Addr::LOCALHOST.into(), SocketFamily::V6)
        );
    }
}
