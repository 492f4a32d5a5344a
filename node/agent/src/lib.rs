//! The node agent: what a kubelet does, for WebAssembly and containers alike.
//!
//! ```text
//!  Pods of this node ─► driver ─► lifecycle (pure: desired + observed → actions, status)
//!                         │
//!                         ├─► ports: images, network      config: env, volumes, files
//!                         ├─► Runtime (wasm | containers)  probe: http, tcp, exec
//!                         └─► status, events, DELETE       logs ◄── Output ◄── Runtime
//!  streams: ports and commands of Pods ◄─► clients, over SPDY and WebSockets
//!  node: Node object, Lease, Services → network            http: logs, metrics ◄── measure
//!  shortage: who has outgrown what it may have (pure) ◄── measure
//! ```
//!
//! # Guarantees
//! - Both kinds of container go through one lifecycle; the agent knows [`Runtime`](wherry_runtime::Runtime) only.
//! - A field of a manifest that this node cannot honour is refused with its path and why, never ignored.
//! - Nothing polls: informers, outcomes and the timers of the driver drive everything. Every task is owned and ends with
//!   [`Agent::run`].

mod adapters;
mod agent;
mod clock;
mod config;
mod connector;
mod driver;
mod http;
mod lifecycle;
mod logs;
mod manifests;
mod measure;
mod memory;
mod node;
pub mod ports;
mod probe;
mod shortage;
mod streams;
mod timers;

pub use adapters::{ClusterNetwork, Started};
pub use agent::{Agent, AgentError, Config, vacate};
pub use clock::Clock;
pub use config::files::DnsConfig;
pub use connector::Connector;
pub use memory::Memory;
pub use node::Capacity;
pub use node::limits::PodLimit;
pub use shortage::{ImageGc, ShortageOptions, ThresholdError, Thresholds};
