//! OCI containers, by containerd's API.
//!
//! [`Containerd`] is a containerd of our own: a child process with its own root, state and socket, ended with us.
//! [`ContainerRuntime`] speaks to that one or to any other, and implements [`wherry_runtime::Runtime`].
//!
//! # Flow
//! An [`Image`](wherry_runtime::Image)'s layers are streamed into containerd and applied to snapshots, once an image
//! (`unpack`). A container is a snapshot over them, a record with our labels, and an OCI spec that we build (`spec`).
//! Starting makes a task: its output comes through fifos that we read (`stdio`); a task of ours waits for its end
//! (`entry`).
//!
//! # Guarantees
//! - There is no pause container: the Pod's network namespace is the agent's, given by its path.
//! - Containers outlive us. What a new life needs to know of them is in containerd's labels and in a small file a
//!   container; output that nobody reads waits in the fifo and holds the container up, it is not lost.
//! - Nothing polls: ends come from containerd's wait call, readiness from its notification.
//! - What containerd keeps for us is held by leases and labels, so that its garbage collector finds the rest.

mod attach;
mod cgroup;
mod client;
mod collect;
mod daemon;
mod entry;
mod exec;
mod journal;
mod lifecycle;
mod runtime;
mod spec;
mod stdio;
mod unpack;
mod vacate;

pub use daemon::{Containerd, ContainerdError, ContainerdOptions};
pub use runtime::{ContainerOptions, ContainerRuntime};
