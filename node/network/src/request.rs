//! What a Pod asks of its node.

use std::net::{IpAddr, Ipv4Addr};

use crate::Protocol;

/// How a Pod's names are looked up, where its containers have no resolver of their own: what its `/etc/hosts` and
/// `/etc/resolv.conf` say.
#[derive(Clone, Debug, Default)]
pub struct PodDns {
    /// Its own names.
    pub own: Vec<String>,
    /// What it knows without asking (`hostAliases`), in lower case.
    pub hosts: Vec<(String, IpAddr)>,
    /// Domains in which a name is looked for.
    pub search: Vec<String>,
    /// A name with as many dots is looked for as it is first.
    pub ndots: usize,
    /// The cluster's names are known to it.
    pub cluster: bool,
}

/// What a Pod asks of its node's network, and of what its containers share beside it.
#[derive(Clone, Debug, Default)]
pub struct PodRequest {
    /// It has a container, or asks for what only a namespace has.
    pub namespaced: bool,
    /// The address it had before a restart.
    pub ip: Option<IpAddr>,
    /// Its names.
    pub dns: PodDns,
    /// `hostNetwork`: the node's network is its own.
    pub host_network: bool,
    /// `hostIPC`: the machine's shared memory, semaphores and queues.
    pub host_ipc: bool,
    /// `hostPID` and `shareProcessNamespace`.
    pub processes: Sharing,
    /// `securityContext.sysctls`, of the network's and the IPC namespace's.
    pub sysctls: Vec<(String, String)>,
    /// `ports[].hostPort`.
    pub host_ports: Vec<HostPort>,
}

/// Whose a thing is that a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// The container's own.
    #[default]
    Container,
    /// One for all containers of the Pod.
    Pod,
    /// The node's.
    Node,
}

/// A port of the node that leads to the Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `ports[].protocol`.
    pub protocol: Protocol,
    /// `ports[].hostIP`; every address of the node where none.
    pub ip: Option<Ipv4Addr>,
    /// `ports[].hostPort`.
    pub port: u16,
    /// `ports[].containerPort`.
    pub target: u16,
}
