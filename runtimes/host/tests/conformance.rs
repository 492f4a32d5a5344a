//! Hosts pass the suite of all runtimes, as real processes.

mod common;
#[path = "../../wasm/tests/support/workloads.rs"]
mod workloads;

use std::sync::Arc;

use async_trait::async_trait;
use common::Node;
use wherry_host::Isolation;
use wherry_runtime::Runtime;
use wherry_runtime::conformance::{Deed, Fixture, Program, Workload};

struct Hosts(Node);

#[async_trait]
impl Fixture for Hosts {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.0.runtime) as Arc<dyn Runtime>
    }

    async fn program(&self, workload: Workload) -> Option<Program> {
        Some(workloads::program(workload, |bytes| self.0.image(bytes)))
    }

    fn command(&self, deed: Deed) -> Vec<String> {
        workloads::command(deed)
    }
}

wherry_runtime::conformance_tests!(Hosts(Node::new(Isolation::Namespace)));
