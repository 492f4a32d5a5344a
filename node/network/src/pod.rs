//! One Pod's view of the network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use socket2::{SockRef, Type};
use wherry_runtime::{Arrivals, PodNetwork, Processes, SharedMemory, SocketFamily, SocketKind, listener};

use crate::dns::{Zone, candidates};
use crate::gate::Gate;
use crate::netns::Netns;
use crate::place::{Place, make_socket};
use crate::processes::PodProcesses;
use crate::request::PodDns;

/// Where a Pod's sockets are.
#[derive(Debug)]
pub(crate) enum View {
    /// In the node's namespace, with an address of its own: a Pod of Wasm alone. Served at the node's gate, where there is one.
    Address(Option<Arc<Gate>>),
    /// In a namespace of its own.
    Own(Netns),
    /// Wherever the node's are: `hostNetwork`.
    Node,
}

/// Whose processes its containers see.
#[derive(Debug)]
pub(crate) enum Seen {
    Container,
    Pod(PodProcesses),
    Node,
}

/// A Pod with an address, and a namespace if it has containers.
pub(crate) struct Pod {
    pub(crate) ips: [IpAddr; 1],
    pub(crate) ip: Ipv4Addr,
    pub(crate) view: View,
    pub(crate) shared: Option<SharedMemory>,
    pub(crate) processes: Seen,
    pub(crate) node: Arc<Place>,
    pub(crate) zone: Zone,
    pub(crate) dns: PodDns,
}

#[async_trait]
impl PodNetwork for Pod {
    fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    fn namespace(&self) -> Option<&Path> {
        match (&self.view, &*self.node) {
            (View::Own(netns), _) | (View::Node, Place::Entered(netns)) => Some(netns.path()),
            (View::Node, Place::Held(_)) | (View::Address(_), _) => None,
        }
    }

    fn shared(&self) -> Option<&SharedMemory> {
        self.shared.as_ref()
    }

    fn processes(&self) -> io::Result<Processes> {
        Ok(match &self.processes {
            Seen::Container => Processes::Container,
            Seen::Pod(processes) => Processes::Pod(processes.open_or_create()?),
            Seen::Node => Processes::Node,
        })
    }

    fn socket(&self, family: SocketFamily, kind: SocketKind) -> io::Result<OwnedFd> {
        match &self.view {
            View::Own(netns) => netns.enter(|| make_socket(family, kind)),
            View::Address(_) | View::Node => self.node.socket(family, kind),
        }
    }

    fn map_bind(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let ip = v4(addr.ip())?;
        let own = self.ip;
        let bound = match &self.view {
            View::Node => ip,
            View::Own(_) if ip.is_unspecified() || ip.is_loopback() => ip,
            View::Address(_) if ip.is_unspecified() || ip.is_loopback() => own,
            _ if ip == own => own,
            _ => return Err(denied(format!("cannot bind {ip}: the Pod's address is {own}"))),
        };
        Ok(SocketAddr::new(bound.into(), addr.port()))
    }

    fn map_connect(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let ip = v4(addr.ip())?;
        let target = if ip.is_loopback() || ip.is_unspecified() {
            if matches!(self.view, View::Address(_)) { self.ip } else { Ipv4Addr::LOCALHOST }
        } else if matches!(self.view, View::Node) {
            ip
        } else if ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() {
            return Err(denied(format!("a Pod may not reach {ip}")));
        } else {
            ip
        };
        Ok(SocketAddr::new(target.into(), addr.port()))
    }

    fn bind(&self, socket: BorrowedFd<'_>, addr: SocketAddr) -> io::Result<()> {
        let (socket, addr) = (SockRef::from(&socket), self.map_bind(addr)?);
        self.unless_served(&socket, addr, || socket.bind(&addr.into()))
    }

    fn listen(&self, socket: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
        let socket = SockRef::from(&socket);
        let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        // It may have been free when the socket was bound.
        self.unless_served(&socket, bound, || socket.listen(backlog))
    }

    fn serve(&self, addr: SocketAddr) -> io::Result<Box<dyn Arrivals>> {
        match (&self.view, self.map_bind(addr)?) {
            (View::Address(Some(gate)), SocketAddr::V4(mapped)) if mapped.port() != 0 => gate.serve(mapped),
            _ => listener(self, addr),
        }
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        if lower == "localhost" || lower.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        if self.dns.own.contains(&lower) {
            return Ok(self.ips.to_vec());
        }
        let known = self.dns.hosts.iter().filter(|(host, _)| *host == lower).map(|(_, ip)| *ip);
        let known: Vec<IpAddr> = known.collect();
        if !known.is_empty() {
            return Ok(known);
        }
        let candidates = if self.dns.cluster { candidates(name, &self.dns) } else { Vec::new() };
        candidates
            .iter()
            .find_map(|candidate| self.zone.addresses(candidate))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no address is known for {name:?}")))
    }
}

impl Pod {
    /// Does what makes a guest's socket the owner of an address, as the kernel would if a listener stood where it is served.
    fn unless_served<T>(
        &self,
        socket: &SockRef<'_>,
        addr: SocketAddr,
        what: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match (&self.view, addr) {
            (View::Address(Some(gate)), SocketAddr::V4(addr)) if socket.r#type()? == Type::STREAM => {
                gate.unless_served(addr, what)
            }
            _ => what(),
        }
    }
}

/// The IPv4 address that is meant: a guest may write it as an IPv4-mapped one.
fn v4(ip: IpAddr) -> io::Result<Ipv4Addr> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) if ip.is_unspecified() => Ok(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(ip) if ip.is_loopback() => Ok(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) => {
            Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("{ip}: this cluster's network is IPv4")))
        }
    }
}

fn denied(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}
