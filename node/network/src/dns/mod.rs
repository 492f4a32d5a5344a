//! Cluster DNS by the Kubernetes DNS specification: pure answers from the Service table, and a hickory server on the
//! cluster address. Look-ups of Wasm containers are answered from the same table without a packet.

mod answers;
mod server;

pub(crate) use answers::{Zone, candidates};
pub(crate) use server::serve;
