//! Images from a registry, pull policies, the image command; clusters without root or containerd.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "images/cleanup.rs"]
mod cleanup;
#[path = "images/command.rs"]
mod command;
#[path = "images/containerd.rs"]
mod containerd;
#[path = "images/layout.rs"]
mod layout;
#[path = "images/moved.rs"]
mod moved;
#[path = "images/pods.rs"]
mod pods;
#[path = "images/pull.rs"]
mod pull;
#[path = "images/registries.rs"]
mod registries;
#[path = "images/rootless.rs"]
mod rootless;
#[path = "images/shared.rs"]
mod shared;

use wherry_test::Options;

/// A cluster of one node, of the binary under test.
fn options() -> Options {
    Options::new(env!("CARGO_BIN_EXE_wherry"))
}
