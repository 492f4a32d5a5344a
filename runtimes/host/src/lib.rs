//! The Wasm runtime as child processes that can do nothing else: for tenants who do not trust one another, or not the sandbox.
//!
//! # The way of a call
//! [`HostRuntime`] is a [`Runtime`](wherry_runtime::Runtime) for the agent. It finds the host of the Pod's node or namespace, starting it where there is
//! none (`process`), and passes the call on (`wire`). The child ([`host_main`]) locks itself in (`sandbox`), then has `runtimes/wasm` do
//! what is asked (`server`). What the child needs of the node it asks its agent for: a log that takes output, a name's addresses, and
//! all that has to do with sockets (`network`). Files come to it by mounts that the agent makes in the child's own namespace (`room`),
//! standard streams as descriptors (`streams`).
//!
//! # What is promised
//! * A host is a user without any right, in an empty root that holds its cache of compiled code and the mounts of its containers.
//!   It cannot become more (no new privileges), reach other files (Landlock), or make a system call that it has no need of (seccomp).
//! * It holds no credentials of the cluster: its environment is empty, it inherits no descriptor but its two channels.
//! * It names no address to the kernel. Sockets are made, bound, connected and, for datagrams to anybody, sent to by the agent, which
//!   checks each address as it does for guests in its own process.
//! * Its end, however it came, is the exit 137 of its containers, and of nobody else's. The next container gets a new host.
//! * It ends with its agent, and when its last container is removed.
//!
//! # What differs from guests in the agent's process
//! A host is not root: what a volume's permissions keep from other users is kept from it. Each has its own cache, and compiles for
//! itself. Each counts the memory of its own guests against that of the machine.

mod client;
mod entry;
mod network;
mod process;
mod room;
mod sandbox;
mod server;
mod streams;
mod wire;

pub use client::{HostOptions, HostRuntime, Isolation};
pub use sandbox::{Plan, SandboxError, enter};
pub use server::{HOST_COMMAND, HostError, host_main};
