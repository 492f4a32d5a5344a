//! The trait that both kinds implement.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::User;
use crate::{ContainerId, ContainerSpec, DiskUse, Image, Limits, Output, PodRef, Stats, Streams};

/// Runs containers. Every method may be called concurrently, for different containers and for one.
///
/// # Lifecycle
/// `create` → *Created* → `start` → *Running* → (exit, [`Runtime::kill`]) → *Exited* → `remove`. A container
/// that has exited keeps its [`Exit`] until it is removed. A failure of one container is that container's
/// [`Exit`], never the runtime's.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version; the name is the scheme of `containerID` (`wasmtime://...`, `containerd://...`).
    fn info(&self) -> RuntimeInfo;

    /// Makes an image ready to start from (compiles it, unpacks its layers), so that [`create`](Self::create)
    /// is fast for Pods of `namespace`, whose hosts may share nothing with others. Idempotent; concurrent calls for one image share
    /// the work. Fails with [`RuntimeError::InvalidImage`] for what this runtime can never run, saying what was wrong with it.
    async fn prepare(&self, image: &Arc<Image>, namespace: &str) -> Result<(), RuntimeError>;

    /// Makes a container without starting it. Everything it writes goes to `output`.
    async fn create(&self, spec: ContainerSpec, output: Arc<dyn Output>) -> Result<(), RuntimeError>;

    /// Starts a created container. Returns when its first instruction may run; for a served component, when
    /// its listeners accept.
    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// Sends a signal. [`Signal::Term`] asks: a served component stops accepting, finishes the requests it has and
    /// exits 0; a command without a way to hear of it exits 143, as a process with the default action would.
    /// [`Signal::Kill`] ends it (exit 137). Nothing happens to a container that has exited.
    async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError>;

    /// Waits until the container has exited and all its output has been handed over. Callers may be many; cancel-safe.
    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError>;

    /// Forgets an exited or never started container and frees all that it held. Idempotent. Refuses a running one.
    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError>;

    /// The containers that exist, those of an earlier life of the agent included.
    async fn list(&self) -> Result<Vec<ContainerStatus>, RuntimeError>;

    /// Takes an existing container's output again after a restart of the agent. Runtimes whose containers
    /// do not outlive the agent answer [`RuntimeError::NotFound`].
    async fn adopt(&self, id: &ContainerId, output: Arc<dyn Output>) -> Result<(), RuntimeError>;

    /// Runs a command beside a running container, in its mounts, environment, network and limits, and returns its exit code once
    /// all it wrote has been handed over. With `tty` it has a terminal. Dropping the future ends the command and frees all that
    /// it held. Fails with [`RuntimeError::InvalidSpec`] for a command that cannot be run there, in the words of a kubelet.
    /// [`collect`](crate::collect) is for callers that want its output as a whole.
    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        tty: bool,
        streams: Streams,
    ) -> Result<i32, RuntimeError>;

    /// Joins a running container's own streams: its output from here on, its stdin where its spec says `stdin`. Callers may be
    /// many; what they do is no matter to its log. Returns when the container has ended and its output has been handed over, or
    /// when every stream of the caller is closed; one that stays too far behind is let go with an error.
    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<(), RuntimeError>;

    /// Asks a running container what a client of its `port` on the Pod's address would ask, without a connection in between, and gives
    /// the head of its answer once its body (10 KiB of it at most) has come. None where it has to be asked over the network: only a
    /// runtime that serves HTTP for its containers can do without. Dropping the future gives the request up.
    async fn ask(&self, _id: &ContainerId, _port: u16, _request: http::Request<()>) -> Option<http::Response<()>> {
        None
    }

    /// Who a container's first process is; none where the kind has no users.
    async fn user(&self, _id: &ContainerId) -> Result<Option<User>, RuntimeError> {
        Ok(None)
    }

    /// Changes what a running container may use, without ending it. Fails, and changes nothing, where it holds more memory than it
    /// is to have.
    async fn update(&self, id: &ContainerId, limits: Limits) -> Result<(), RuntimeError>;

    /// What a running container has used so far, and holds now. Cheap: counters are read, nothing is walked.
    async fn stats(&self, id: &ContainerId) -> Result<Stats, RuntimeError>;

    /// What a container has written into its own root filesystem; zero where the kind has none. May walk a tree of files.
    async fn disk(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError>;

    /// The layers, by their digests, of which [`prepare`](Self::prepare) has made all there is to make, for Pods of whichever
    /// namespace. Cheap and without waiting: it is asked often. Empty where having an image is as good.
    fn prepared(&self) -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// Frees what [`prepare`](Self::prepare) made of images that are gone. `kept` says of the digest of a manifest or layer whether
    /// an image on the node has it; nobody may prepare or start one of which it says no. What runs goes on.
    async fn retain(&self, kept: &Kept<'_>) -> Result<(), RuntimeError>;
}

/// Whether a blob, by its digest, is part of an image on the node.
pub type Kept<'a> = dyn Fn(&str) -> bool + Send + Sync + 'a;

/// Which runtime this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// `wasmtime` or `containerd`.
    pub name: String,
    /// Its version, without a leading `v`.
    pub version: String,
}

/// How to end a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Signal {
    /// Ask (SIGTERM).
    Term,
    /// End (SIGKILL).
    Kill,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code as Kubernetes reports it: 128 + n for a signal n; a trap is 134 (as an abort), OOM 137.
    pub code: i32,
    /// It went beyond `limits.memory`.
    pub oom_killed: bool,
    /// What the runtime knows of the cause, for people: the trap and its Wasm backtrace. None for a plain exit.
    pub message: Option<String>,
    /// When it started; the time of its making where it never did.
    pub started_at: SystemTime,
    /// When it ended.
    pub finished_at: SystemTime,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Started, not exited.
    Running {
        /// When it started.
        started_at: SystemTime,
    },
    /// Ended; left by `remove`.
    Exited(Exit),
}

/// A container as its runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStatus {
    /// Its identity.
    pub id: ContainerId,
    /// Its Pod.
    pub pod: PodRef,
    /// `containers[].name`.
    pub name: String,
    /// As in its spec.
    pub attempt: u32,
    /// Where it is.
    pub state: ContainerState,
}

/// What a command wrote and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// Its exit code.
    pub code: i32,
    /// Its standard output, cut at the limit.
    pub stdout: Bytes,
    /// Its standard error, cut at the limit.
    pub stderr: Bytes,
}

/// Why a runtime could not do a thing.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such container (or it is of another runtime).
    #[error("no container {0}")]
    NotFound(ContainerId),
    /// The container is not in the state that this needs.
    #[error("container {id} is {state}: {problem}")]
    WrongState {
        /// The container.
        id: ContainerId,
        /// The state it is in.
        state: &'static str,
        /// What cannot be done in it.
        problem: String,
    },
    /// The image can never run here: retrying is useless (told as `ImageInspectError`).
    #[error("{0}")]
    InvalidImage(String),
    /// The container can't be made as asked (a bad mount, an unknown user, a command that is not in the image).
    #[error("{0}")]
    InvalidSpec(String),
    /// This kind of runtime has no such thing.
    #[error("{0}")]
    Unsupported(String),
    /// The machinery failed; worth a retry.
    #[error("{0}")]
    Failed(String),
}

impl RuntimeError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}
