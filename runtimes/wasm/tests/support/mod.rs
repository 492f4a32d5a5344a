//! What the tests stand on: a runtime in a temporary directory, images from WAT, containers with captured output.

#![allow(dead_code, clippy::unwrap_used, reason = "tests, each of which uses a part of it")]

mod images;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use wherry_runtime::conformance::{Captured, Loopback};
use wherry_runtime::{
    ContainerId, ContainerSpec, Exit, Image, Limits, Output, PodNetwork, PodRef, Runtime, RuntimeError, Security,
    Signal, Stats,
};
use wherry_wasm::{Options, WasmRuntime};

/// A runtime of its own, and images for it.
pub(crate) struct Node {
    pub(crate) runtime: Arc<WasmRuntime>,
    dir: TempDir,
    images: Mutex<HashMap<String, Arc<Image>>>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(dir.path().join("cache"));
        options.instances = 256;
        change(&mut options);
        Self { runtime: WasmRuntime::new(options).unwrap(), dir, images: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The image of a module or component in text form.
    pub(crate) fn wat(&self, text: &str) -> Arc<Image> {
        self.image(&wat::parse_str(text).unwrap())
    }

    /// The image of these bytes, whatever they are.
    pub(crate) fn image(&self, bytes: &[u8]) -> Arc<Image> {
        let digest = hex::encode(Sha256::digest(bytes));
        let mut images = self.images.lock();
        let image = images.entry(digest).or_insert_with(|| images::image(self.dir.path(), bytes));
        Arc::clone(image)
    }

    /// What a container of `image` is, before it is made.
    pub(crate) fn spec(&self, image: &Arc<Image>) -> ContainerSpec {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        ContainerSpec {
            id: ContainerId(format!("{number:064x}")),
            pod: PodRef { namespace: "default".into(), name: format!("pod-{number}"), uid: format!("uid-{number}") },
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
            network: Arc::new(Loopback::new(own_ip())) as Arc<dyn PodNetwork>,
            hostname: format!("pod-{number}"),
            security: Security::default(),
            cgroup_parent: String::new(),
            stdin: false,
            stdin_once: false,
            tty: false,
        }
    }

    /// Makes and starts a container.
    pub(crate) async fn start(&self, spec: ContainerSpec) -> Running {
        let (id, ip, output) = (spec.id.clone(), spec.network.ips()[0], Captured::new());
        self.runtime.create(spec, Arc::clone(&output) as Arc<dyn Output>).await.unwrap();
        self.runtime.start(&id).await.unwrap();
        Running { runtime: Arc::clone(&self.runtime), id, ip, output }
    }

    /// Runs a module to its end.
    pub(crate) async fn run(&self, text: &str) -> (Exit, Arc<Captured>) {
        let running = self.start(self.spec(&self.wat(text))).await;
        (running.wait().await, Arc::clone(&running.output))
    }

    /// Why an image is refused.
    pub(crate) async fn refusal(&self, image: &Arc<Image>) -> String {
        match self.runtime.prepare(image, "default").await.unwrap_err() {
            RuntimeError::InvalidImage(text) => text,
            other => panic!("refused for another reason: {other:?}"),
        }
    }
}

/// A started container.
pub(crate) struct Running {
    runtime: Arc<WasmRuntime>,
    pub(crate) id: ContainerId,
    pub(crate) ip: IpAddr,
    pub(crate) output: Arc<Captured>,
}

impl Running {
    pub(crate) async fn wait(&self) -> Exit {
        self.runtime.wait(&self.id).await.unwrap()
    }

    pub(crate) async fn kill(&self) -> Exit {
        self.signal(Signal::Kill).await;
        self.wait().await
    }

    pub(crate) async fn signal(&self, signal: Signal) {
        self.runtime.kill(&self.id, signal).await.unwrap();
    }

    pub(crate) async fn stats(&self) -> Stats {
        self.runtime.stats(&self.id).await.unwrap()
    }

    pub(crate) async fn cpu_nanos(&self) -> u64 {
        self.stats().await.cpu_nanos
    }
}

/// An address of 127.0.0.0/8 that no other test of this process, and hardly one of another, uses.
pub(crate) fn own_ip() -> IpAddr {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let [.., last] = next.to_be_bytes();
    IpAddr::from([127, 16 | (high & 0x0f), low, last])
}
