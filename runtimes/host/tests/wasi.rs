//! WASI inside a host: the guests of `tests/wasi` find all as in the agent's process.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../wasm/tests/support/cases.rs"]
mod cases;
mod common;
#[path = "../../wasm/tests/support/guests.rs"]
mod guests;

use std::sync::atomic::{AtomicU64, Ordering};

use cases::{COMMAND, Case, PREVIEW_1};
use common::{Node, own_ip};
use guests::guests;
use wherry_host::Isolation;

async fn all(guest: &[u8], cases: &[(&str, Case)]) {
    static NEXT: AtomicU64 = AtomicU64::new(128);
    let node = Node::new(Isolation::Node);
    let image = node.image(guest);
    let ip = || own_ip(NEXT.fetch_add(1, Ordering::Relaxed));
    cases::all(&*node.runtime, node.path(), cases, || node.spec("default", &image), ip).await;
}

#[tokio::test]
async fn every_case_of_preview_1_holds() {
    all(&guests().preview_1, PREVIEW_1).await;
}

#[tokio::test]
async fn every_case_of_a_command_of_0_2_holds() {
    all(&guests().command, COMMAND).await;
}
