//! What the end-to-end tests share: the real binary in a directory of its own, driven by real clients.
//!
//! Everything that is started here is a child of the test and ends with its handle; a cluster that is dropped is stopped by
//! SIGTERM, as a user would stop it. Waits are for events (`kubectl wait`, a watch, a line of output) with a limit.

mod again;
mod cluster;
mod extension;
mod http;
mod image;
mod kubectl;
mod process;
mod registry;

pub use again::until;
pub use cluster::{Cluster, Options};
pub use extension::Extension;
pub use http::{Answer, get, patient_get, request};
pub use image::{echo_image, image_of, sample, wasm_layout, worker_image};
pub use kubectl::{Kubectl, Output};
pub use process::{Child, Line};
pub use registry::{Registry, RegistryOptions};

use std::path::PathBuf;
use std::time::Duration;

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether this process is root; says so where it is not and a test is left out.
#[must_use]
pub fn is_root(what: &str) -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        eprintln!("left out: {what} needs root");
    }
    root
}
