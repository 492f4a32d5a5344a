//! The parts of a cluster as one process joins them. `up` runs all of them; servers and agents on machines of their
//! own will run one each.

mod authority;
mod connector;
mod control_plane;
mod node;

pub(crate) use control_plane::{ControlPlane, addresses};
pub(crate) use node::{Containers, Node, NodeParts};

/// Chooses the cryptography for all TLS of this process.
pub(crate) fn install_crypto() {
    // An error means that it was chosen already.
    drop(rustls::crypto::ring::default_provider().install_default());
}
