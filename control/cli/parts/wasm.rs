//! Where guests run: in this process, or in hosts.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use clap::ValueEnum;
use wherry_agent::Memory;
use wherry_host::{HostOptions, HostRuntime, Isolation};
use wherry_network::Cluster;
use wherry_runtime::Runtime;
use wherry_wasm::{Options, WasmRuntime};

/// What keeps WebAssembly apart from the node's agent, and from other WebAssembly, beside its sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolate {
    /// Nothing: it runs in the agent's process
    None,
    /// A process for each node
    Node,
    /// A process for each namespace of a node
    Namespace,
}

/// The Wasm runtimes of this process' nodes.
pub(crate) enum Wasm {
    /// One for all.
    Inside(Arc<WasmRuntime>),
    /// Each node's own.
    Hosts { isolation: Isolation, runtimes: Vec<Arc<HostRuntime>> },
}

impl Wasm {
    /// With its files below `dir`, and in memory where there is a place for them.
    pub(crate) fn new(dir: &Path, memory: Option<&Memory>, isolate: Isolate) -> anyhow::Result<Self> {
        let isolation = match isolate {
            Isolate::None => {
                let copies_dir = memory.map(|memory| memory.path().join("wasm"));
                let options = Options { copies_dir, ..Options::new(dir.join("wasm")) };
                return Ok(Self::Inside(WasmRuntime::new(options)?));
            }
            Isolate::Node => Isolation::Node,
            Isolate::Namespace => Isolation::Namespace,
        };
        if !nix::unistd::Uid::effective().is_root() {
            bail!("--isolate: only root can make processes that are less than this one");
        }
        Ok(Self::Hosts { isolation, runtimes: Vec::new() })
    }

    /// The runtime of a node, whose files are below `dir`.
    pub(crate) fn of_node(&mut self, node: &str, dir: &Path) -> anyhow::Result<Arc<dyn Runtime>> {
        match self {
            Self::Inside(runtime) => Ok(runtime.clone()),
            Self::Hosts { isolation, runtimes } => {
                let runtime = HostRuntime::new(HostOptions {
                    dir: dir.join("hosts"),
                    node: node.to_owned(),
                    isolation: *isolation,
                    program: std::env::current_exe()?,
                });
                runtimes.push(runtime.clone());
                Ok(runtime)
            }
        }
    }

    /// Open files that a served Pod holds in its process while nothing is asked of it. Hosts have listeners of their own: no socket
    /// is led to another process.
    pub(crate) fn files_of_pod(&self, cluster: &Cluster) -> u64 {
        u64::from(!(matches!(self, Self::Inside(_)) && cluster.shares_listener()))
    }

    /// Ends every container.
    pub(crate) async fn shutdown(&self) {
        match self {
            Self::Inside(runtime) => runtime.shutdown().await,
            Self::Hosts { runtimes, .. } => {
                futures::future::join_all(runtimes.iter().map(|runtime| runtime.shutdown())).await;
            }
        }
    }
}
