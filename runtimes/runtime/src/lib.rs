//! What the agent and the runtimes agree on.
//!
//! The agent runs every container through [`Runtime`] and knows no other word for it: WebAssembly
//! (`runtimes/wasm`) and OCI containers (`runtimes/containers`) are two implementations that pass the
//! same conformance suite ([`conformance`]). This crate holds the trait, the plain data it speaks in, and
//! the seams a runtime needs from its node: where output goes ([`Output`]), where sockets are made
//! ([`PodNetwork`]), what an image is ([`Image`]).

mod arrivals;
mod attach;
pub mod conformance;
pub mod fake;
mod image;
mod network;
mod output;
mod runtime;
mod scoped;
mod spec;
mod stats;
mod streams;

pub use arrivals::{Arrivals, accept, listener, not_accepted};
pub use attach::{Attachers, Attachment};
pub use image::{Descriptor, Image, ImageKind};
pub use network::{PodNetwork, Processes, SharedMemory, SocketFamily, SocketKind};
pub use output::{Output, Stream};
pub use runtime::{
    ContainerState, ContainerStatus, ExecOutput, Exit, Kept, Runtime, RuntimeError, RuntimeInfo, Signal,
};
pub use scoped::Scoped;
pub use spec::{
    ContainerId, ContainerSpec, Handle, Limits, Make, Maker, Mount, PodRef, Propagation, Seccomp, Security, User,
};
pub use stats::{Carried, DiskUse, MemoryUse, Stats, Throttling, Traffic};
pub use streams::{Input, Sink, Streams, TerminalSize, collect};
