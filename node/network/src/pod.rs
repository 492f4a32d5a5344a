//! One Pod's view of the network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use wherry_runtime::{PodNetwork, SharedMemory, SocketFamily, SocketKind};

use crate::dns::{Zone, candidates};
use crate::netns::Netns;
use crate::node::PodDns;
use crate::place::{Place, make_socket};

/// A Pod with an address, and a namespace if it has containers.
pub(crate) struct Pod {
    pub(crate) ips: [IpAddr; 1],
    pub(crate) ip: Ipv4Addr,
    pub(crate) namespace: Option<Netns>,
    pub(crate) shared: Option<SharedMemory>,
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
        self.namespace.as_ref().map(Netns::path)
    }

    fn shared(&self) -> Option<&SharedMemory> {
        self.shared.as_ref()
    }

    fn socket(&self, family: SocketFamily, kind: SocketKind) -> io::Result<OwnedFd> {
        match &self.namespace {
            Some(netns) => netns.enter(|| make_socket(family, kind)),
            None => self.node.socket(family, kind),
        }
    }

    fn map_bind(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let ip = v4(addr.ip())?;
        let own = self.ip;
        let bound = if ip.is_unspecified() || ip.is_loopback() {
            if self.namespace.is_some() { ip } else { own }
        } else if ip == own {
            own
        } else {
            return Err(denied(format!("cannot bind {ip}: the Pod's address is {own}")));
        };
        Ok(SocketAddr::new(bound.into(), addr.port()))
    }

    fn map_connect(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let ip = v4(addr.ip())?;
        let target = if ip.is_loopback() || ip.is_unspecified() {
            if self.namespace.is_some() { Ipv4Addr::LOCALHOST } else { self.ip }
        } else if ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() {
            return Err(denied(format!("a Pod may not reach {ip}")));
        } else {
            ip
        };
        Ok(SocketAddr::new(target.into(), addr.port()))
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        if lower == "localhost" || lower.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
        }
        if lower == self.dns.hostname {
            return Ok(self.ips.to_vec());
        }
        candidates(name, &self.dns.namespace, &self.zone.domain)
            .iter()
            .find_map(|candidate| self.zone.addresses(candidate))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no address is known for {name:?}")))
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
