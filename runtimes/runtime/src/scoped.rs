//! One runtime, shared by the nodes of a process.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    ContainerId, ContainerSpec, ContainerStatus, DiskUse, Exit, Image, Kept, Limits, Output, Runtime, RuntimeError,
    RuntimeInfo, Signal, Stats, Streams, User,
};

/// A node's share of a runtime: its [`list`](Runtime::list) has the containers that were made through it, and no
/// neighbour's. For runtimes whose containers end with the process; what outlives it must be told apart by the runtime.
pub struct Scoped {
    inner: Arc<dyn Runtime>,
    own: Mutex<HashSet<ContainerId>>,
}

impl Scoped {
    /// A share without containers.
    #[must_use]
    pub fn new(inner: Arc<dyn Runtime>) -> Arc<Self> {
        Arc::new(Self { inner, own: Mutex::default() })
    }
}

#[async_trait]
impl Runtime for Scoped {
    fn info(&self) -> RuntimeInfo {
        self.inner.info()
    }

    async fn prepare(&self, image: &Arc<Image>, namespace: &str) -> Result<(), RuntimeError> {
        self.inner.prepare(image, namespace).await
    }

    async fn create(&self, spec: ContainerSpec, output: Arc<dyn Output>) -> Result<(), RuntimeError> {
        let id = spec.id.clone();
        self.own.lock().insert(id.clone());
        let made = self.inner.create(spec, output).await;
        if made.is_err() {
            self.own.lock().remove(&id);
        }
        made
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.start(id).await
    }

    async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError> {
        self.inner.kill(id, signal).await
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        self.inner.wait(id).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.inner.remove(id).await?;
        self.own.lock().remove(id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let mut all = self.inner.list().await?;
        let own = self.own.lock();
        all.retain(|container| own.contains(&container.id));
        Ok(all)
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

    async fn ask(&self, id: &ContainerId, port: u16, request: http::Request<()>) -> Option<http::Response<()>> {
        self.inner.ask(id, port, request).await
    }

    async fn user(&self, id: &ContainerId) -> Result<Option<User>, RuntimeError> {
        self.inner.user(id).await
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

    fn prepared(&self) -> BTreeSet<String> {
        self.inner.prepared()
    }

    async fn retain(&self, kept: &Kept<'_>) -> Result<(), RuntimeError> {
        self.inner.retain(kept).await
    }
}
