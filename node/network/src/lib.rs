//! The node's network: Pod addresses, Service routing, cluster DNS.
//!
//! ```text
//!  host ── 127.0.0.1:nodePort ─┐ (publish)
//!                              ▼
//!  fabric namespace: bridge 172.30.0.1 (the API server listens here for Pods)
//!      │ veth                     │ veth
//!  node namespace 172.30.0.2   node namespace 172.30.0.3
//!      AnyIP: local podCIDR dev lo     ← Pods of Wasm alone: an address, no kernel object
//!      veth ── Pod namespace, eth0     ← Pods with a container
//!      nftables maps                   ← Services, host ports
//!      a listener                      ← served Pods of Wasm alone, all of them (gate)
//!      a listener                      ← connections that wait for what is scaled to zero (activate)
//!      10.96.0.10:53                   ← DNS
//! ```
//!
//! Nothing here touches the namespace that Wherry was started in: all traffic between Pods, Services and nodes
//! stays in namespaces made by [`Cluster`] and [`NodeNetwork`], kept as bind mounts below a data directory, so that
//! running containers keep theirs when the process dies and is started again.
//!
//! A Pod may be in the node's namespace instead (`hostNetwork`). There its listeners on all addresses take their ports from the
//! node's Pods of Wasm alone, whose addresses are the node's, too.
//!
//! # Guarantees
//! * A served Pod of Wasm alone holds no socket while nobody is connected to it, where the kernel can proxy transparently.
//! * [`Services::set`] is a delta: the table converges to the last value set for each Service, in one nftables
//!   transaction for all that waited; [`Services::drained`] resolves only after the kernel has the new rules.
//! * A thread that steps into a namespace to make a socket is back before the call returns, or the process ends.

mod activate;
mod cluster;
mod dns;
mod error;
mod gate;
mod helper;
mod host_ports;
mod ipam;
mod ipc;
mod links;
mod netns;
mod node;
mod place;
mod pod;
mod processes;
mod publish;
mod request;
mod services;
mod sysctls;

pub use activate::{Refusal, Waited};
pub use cluster::{Cluster, ClusterConfig};
pub use error::NetworkError;
pub use helper::{HELPER_COMMAND, helper_main};
pub use ipam::{Cidr, Ipam};
pub use node::{NodeConfig, NodeNetwork};
pub use processes::{POD_INIT_COMMAND, pod_init_main};
pub use request::{HostPort, PodDns, PodRequest, Sharing};
pub use services::{Host, Protocol, Service, ServiceKey, ServicePort, Services};
