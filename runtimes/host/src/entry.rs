//! What the agent keeps of a container that a host runs.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use wherry_runtime::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, Exit, Output, PodNetwork, PodRef, Stream,
};

use crate::wire::{Blob, Favour, IoFault, Plea, Serve};

/// The exit code of what was ended from outside.
const KILLED: i32 = 137;

/// A container of a host.
pub(crate) struct Entry {
    id: ContainerId,
    pod: PodRef,
    name: String,
    attempt: u32,
    output: Arc<dyn Output>,
    network: Arc<dyn PodNetwork>,
    created_at: SystemTime,
    started_at: OnceLock<SystemTime>,
    exit: OnceLock<Exit>,
    /// Held while its log takes output: a container writes one piece at a time, and its end waits for the last.
    writing: tokio::sync::Mutex<()>,
}

impl Entry {
    pub(crate) fn new(spec: &ContainerSpec, output: Arc<dyn Output>) -> Arc<Self> {
        Arc::new(Self {
            id: spec.id.clone(),
            pod: spec.pod.clone(),
            name: spec.name.clone(),
            attempt: spec.attempt,
            output,
            network: Arc::clone(&spec.network),
            created_at: SystemTime::now(),
            started_at: OnceLock::new(),
            exit: OnceLock::new(),
            writing: tokio::sync::Mutex::new(()),
        })
    }

    pub(crate) fn network(&self) -> &Arc<dyn PodNetwork> {
        &self.network
    }

    pub(crate) fn started(&self) {
        self.started_at.get_or_init(SystemTime::now);
    }

    /// Its exit, where that is known.
    pub(crate) fn exit(&self) -> Option<&Exit> {
        self.exit.get()
    }

    /// It ended; what was known first stays.
    pub(crate) fn ended(&self, exit: Exit) -> &Exit {
        self.exit.get_or_init(|| exit)
    }

    /// Its host has ended, for this reason: so has it, once its log has what came before.
    pub(crate) async fn lost(&self, why: &str) -> &Exit {
        let _written = self.writing.lock().await;
        let started_at = self.started_at.get().copied().unwrap_or(self.created_at);
        let finished_at = SystemTime::now().max(started_at);
        self.ended(Exit { code: KILLED, oom_killed: false, message: Some(why.to_owned()), started_at, finished_at })
    }

    /// In the words of an error.
    pub(crate) fn state_name(&self) -> &'static str {
        match (self.exit.get(), self.started_at.get()) {
            (Some(_), _) => "exited",
            (None, Some(_)) => "running",
            (None, None) => "created",
        }
    }

    /// As an exited one is listed.
    pub(crate) fn exited(&self, exit: &Exit) -> ContainerStatus {
        ContainerStatus {
            id: self.id.clone(),
            pod: self.pod.clone(),
            name: self.name.clone(),
            attempt: self.attempt,
            state: ContainerState::Exited(exit.clone()),
        }
    }

    async fn write(&self, stream: Stream, bytes: Blob) -> Result<Favour, IoFault> {
        let Ok(_one) = self.writing.try_lock() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a container writes one piece at a time").into());
        };
        self.output.write(stream, Bytes::from(bytes.0)).await;
        Ok(Favour::Taken)
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, IoFault> {
        Ok(self.network.resolve(name).await?)
    }
}

/// The containers of one host: what it asks, it asks for one of these.
#[derive(Default)]
pub(crate) struct Entries(Mutex<HashMap<ContainerId, Arc<Entry>>>);

impl Entries {
    pub(crate) fn add(&self, entry: &Arc<Entry>) {
        self.0.lock().insert(entry.id.clone(), Arc::clone(entry));
    }

    pub(crate) fn remove(&self, id: &ContainerId) {
        self.0.lock().remove(id);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.0.lock().values().cloned().collect()
    }

    pub(crate) fn find(&self, id: &ContainerId) -> io::Result<Arc<Entry>> {
        let found = self.0.lock().get(id).cloned();
        found.ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "no container of this host"))
    }
}

impl Serve<Plea, Result<Favour, IoFault>> for Entries {
    fn serve(self: Arc<Self>, plea: Plea, _: Vec<OwnedFd>) -> BoxFuture<'static, Result<Favour, IoFault>> {
        async move {
            match plea {
                Plea::Output { id, stream, bytes } => self.find(&id)?.write(stream, bytes).await,
                Plea::Resolve { id, name } => self.find(&id)?.resolve(&name).await.map(Favour::Addresses),
            }
        }
        .boxed()
    }
}
