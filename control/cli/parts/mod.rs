//! The parts of a cluster as one process joins them. `up` runs all of them; servers and agents on machines of their
//! own will run one each.

mod authority;
mod connector;
mod control_plane;
mod node;
mod shortage;
mod wasm;

pub(crate) use control_plane::{ControlPlane, addresses};
pub(crate) use node::{Containers, Node, NodeParts};
pub(crate) use shortage::ShortageArgs;
pub(crate) use wasm::{Isolate, Wasm};

use crate::data_dir::DataDir;

/// How a node of this process keeps its images: an artifact that says of itself that no runtime here can run it is not fetched.
pub(crate) fn images(dir: &DataDir) -> wherry_images::Options {
    let missing: wherry_images::Missing = wherry_wasm::missing_imports;
    wherry_images::Options { registries: dir.registries(), missing: Some(missing), ..wherry_images::Options::default() }
}

/// Chooses the cryptography for all TLS of this process.
pub(crate) fn install_crypto() {
    // An error means that it was chosen already.
    drop(rustls::crypto::ring::default_provider().install_default());
}
