//! The conformance suite of `wherry-runtime`, run by a real containerd and runc.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use wherry_runtime::conformance::{Deed, Fixture, Program, Workload};
use wherry_runtime::{
    ContainerId, ContainerSpec, ContainerStatus, Descriptor, DiskUse, Exit, Image, Kept, Limits, Output, Runtime,
    RuntimeError, RuntimeInfo, Signal, Stats, Stream, Streams,
};

use support::Node;

/// A shell is not ready for a signal when it starts: as process 1 it is deaf to it until its trap is set.
const UNTIL_TOLD: &str = "trap 'exit 143' TERM; echo ready; while :; do sleep 3600 & wait $!; done";

struct Containers {
    /// None where containers can't be run here: every check is left out then.
    node: Option<Node>,
    runtime: Arc<dyn Runtime>,
}

impl Containers {
    async fn new() -> Self {
        if !support::possible() {
            return Self { node: None, runtime: wherry_runtime::fake::FakeRuntime::new("absent") };
        }
        let node = Node::start().await;
        let runtime = Arc::new(Patient { inner: node.runtime(), ready: Mutex::default() });
        Self { node: Some(node), runtime }
    }
}

#[async_trait]
impl Fixture for Containers {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime)
    }

    async fn program(&self, workload: Workload) -> Option<Program> {
        let node = self.node.as_ref()?;
        let image = node.busybox().await;
        let script = match workload {
            Workload::Exits0 => "exit 0",
            Workload::Exits3 => "exit 3",
            Workload::RunsUntilTold | Workload::RunsCommands => UNTIL_TOLD,
            Workload::Copies => "exec cat",
            Workload::Prints => "echo out 1; echo err 1 >&2; echo out 2; echo err 2 >&2",
            // Process 1 can't be ended by a signal of its own making; its child can.
            Workload::Crashes => "sh -c 'kill -ABRT $$'; exit $?",
            Workload::EatsMemory => "x=0123456789abcdef; while :; do x=$x$x; done",
            Workload::Broken => {
                return Some(Program { image: Arc::new(broken(node, &image)), command: vec![], args: vec![] });
            }
        };
        Some(Program { image, command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(), args: vec![] })
    }

    fn command(&self, deed: Deed) -> Vec<String> {
        let script = match deed {
            Deed::Prints => "echo out; echo err >&2; exit 3",
            Deed::Copies => "exec cat",
            Deed::Floods => "exec head -c 1048576 /dev/zero",
            Deed::Waits => "exec sleep 3600",
        };
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }
}

/// An image whose layer is no archive.
fn broken(node: &Node, image: &Image) -> Image {
    let blob = |name: &str, media_type: &str, bytes: &[u8]| {
        let path = node.dir.join(name);
        std::fs::write(&path, bytes).unwrap();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        Descriptor { media_type: media_type.to_owned(), digest, size: bytes.len() as u64, path }
    };
    let config = format!(r#"{{"rootfs": {{"type": "layers", "diff_ids": ["sha256:{}"]}}}}"#, "0".repeat(64));
    let layer = blob("layer", "application/vnd.oci.image.layer.v1.tar+gzip", b"this is no archive");
    Image {
        config: blob("config", "application/vnd.oci.image.config.v1+json", config.as_bytes()),
        manifest: blob("manifest", "", b"broken"),
        layers: vec![layer],
        ..image.clone()
    }
}

/// The runtime, but `start` of [`UNTIL_TOLD`] returns when it listens to signals.
struct Patient {
    inner: Arc<dyn Runtime>,
    ready: Mutex<Vec<(ContainerId, watch::Receiver<bool>)>>,
}

struct Listening {
    output: Arc<dyn Output>,
    ready: watch::Sender<bool>,
}

#[async_trait]
impl Output for Listening {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        self.ready.send_replace(true);
        self.output.write(stream, bytes).await;
    }
}

#[async_trait]
impl Runtime for Patient {
    fn info(&self) -> RuntimeInfo {
        self.inner.info()
    }

    async fn prepare(&self, image: &Arc<Image>, namespace: &str) -> Result<(), RuntimeError> {
        self.inner.prepare(image, namespace).await
    }

    async fn create(&self, spec: ContainerSpec, output: Arc<dyn Output>) -> Result<(), RuntimeError> {
        if spec.command.last().is_none_or(|script| script != UNTIL_TOLD) {
            return self.inner.create(spec, output).await;
        }
        let (id, (sender, receiver)) = (spec.id.clone(), watch::channel(false));
        self.inner.create(spec, Arc::new(Listening { output, ready: sender })).await?;
        self.ready.lock().push((id, receiver));
        Ok(())
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.start(id).await?;
        let ready = self.ready.lock().iter().find(|(known, _)| known == id).map(|(_, ready)| ready.clone());
        if let Some(mut ready) = ready {
            ready.wait_for(|ready| *ready).await.unwrap();
        }
        Ok(())
    }

    async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError> {
        self.inner.kill(id, signal).await
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        self.inner.wait(id).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.remove(id).await
    }

    async fn list(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        self.inner.list().await
    }

    async fn adopt(&self, id: &ContainerId, output: Arc<dyn Output>) -> Result<(), RuntimeError> {
        self.inner.adopt(id, output).await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        tty: bool,
        streams: Streams,
    ) -> Result<i32, RuntimeError> {
        self.inner.exec(id, command, tty, streams).await
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<(), RuntimeError> {
        self.inner.attach(id, streams).await
    }

    async fn update(&self, id: &ContainerId, limits: Limits) -> Result<(), RuntimeError> {
        self.inner.update(id, limits).await
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RuntimeError> {
        self.inner.stats(id).await
    }

    async fn disk(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        self.inner.disk(id).await
    }

    async fn retain(&self, kept: &Kept<'_>) -> Result<(), RuntimeError> {
        self.inner.retain(kept).await
    }
}

wherry_runtime::conformance_tests!(Containers::new().await);
