//! What the tests stand on: hosts in a temporary directory, and containers in them with captured output.

#![allow(dead_code, clippy::unwrap_used, reason = "tests, each of which uses a part of it")]

#[path = "../../../wasm/tests/support/images.rs"]
mod images;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use wherry_host::{HostOptions, HostRuntime, Isolation};
use wherry_runtime::conformance::{Captured, Loopback};
use wherry_runtime::{ContainerId, ContainerSpec, Exit, Image, Limits, Output, PodRef, Runtime, Security, Signal};

/// A node whose Wasm runs in hosts.
pub(crate) struct Node {
    pub(crate) runtime: Arc<HostRuntime>,
    dir: TempDir,
}

impl Node {
    pub(crate) fn new(isolation: Isolation) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = HostRuntime::new(HostOptions {
            dir: dir.path().join("hosts"),
            node: "here".into(),
            isolation,
            program: env!("CARGO_BIN_EXE_wasm-host").into(),
        });
        Self { runtime, dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn image(&self, bytes: &[u8]) -> Arc<Image> {
        images::image(self.path(), bytes)
    }

    pub(crate) fn wat(&self, text: &str) -> Arc<Image> {
        self.image(&wat::parse_str(text).unwrap())
    }

    /// What a container of a Pod in `namespace` is, before it is made.
    pub(crate) fn spec(&self, namespace: &str, image: &Arc<Image>) -> ContainerSpec {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        ContainerSpec {
            id: ContainerId(format!("{number:064x}")),
            pod: PodRef { namespace: namespace.into(), name: format!("pod-{number}"), uid: format!("uid-{number}") },
            name: "main".into(),
            attempt: 0,
            image: Arc::clone(image),
            command: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            limits: Limits::default(),
            ports: Vec::new(),
            network: Arc::new(Loopback::new(own_ip(number))),
            hostname: format!("pod-{number}"),
            security: Security::default(),
            cgroup_parent: String::new(),
            stdin: false,
            stdin_once: false,
            tty: false,
        }
    }

    pub(crate) async fn start(&self, spec: ContainerSpec) -> Running {
        let (id, ip, output) = (spec.id.clone(), spec.network.ips()[0], Captured::new());
        self.runtime.create(spec, Arc::clone(&output) as Arc<dyn Output>).await.unwrap();
        self.runtime.start(&id).await.unwrap();
        Running { runtime: Arc::clone(&self.runtime), id, ip, output }
    }
}

/// A started container.
pub(crate) struct Running {
    runtime: Arc<HostRuntime>,
    pub(crate) id: ContainerId,
    pub(crate) ip: IpAddr,
    pub(crate) output: Arc<Captured>,
}

impl Running {
    pub(crate) async fn wait(&self) -> Exit {
        self.runtime.wait(&self.id).await.unwrap()
    }

    pub(crate) async fn kill(&self) -> Exit {
        self.runtime.kill(&self.id, Signal::Kill).await.unwrap();
        self.wait().await
    }

    pub(crate) async fn remove(&self) {
        self.runtime.remove(&self.id).await.unwrap();
    }
}

/// An address of 127.0.0.0/8 of its own.
pub(crate) fn own_ip(number: u64) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let [.., last] = number.to_be_bytes();
    IpAddr::from([127, 32 | (high & 0x0f), low, last])
}
