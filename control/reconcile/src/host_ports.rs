//! Ports of the node that Pods occupy.

use k8s_openapi::api::core::v1::PodSpec;

/// What is told of a Pod whose ports others have: the scheduler's and the node's words.
pub const NO_FREE_PORTS: &str = "node(s) didn't have free ports for the requested pod ports";

/// A port of the node that a Pod occupies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// Its number.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// Empty for all addresses.
    pub ip: String,
}

impl HostPort {
    /// Whether both cannot be had at once.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip.is_empty() || other.ip.is_empty() || self.ip == other.ip)
    }
}

/// The ports that a Pod occupies while it runs: those of its containers and sidecars.
#[must_use]
pub fn of(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            // Validation sets the host's port to the container's where the Pod shares the host's network.
            let number = port.host_port.filter(|number| *number > 0)?;
            let ip = port.host_ip.clone().filter(|ip| ip != "0.0.0.0" && ip != "::").unwrap_or_default();
            Some(HostPort { port: number, protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()), ip })
        })
        .collect()
}
