//! The host itself: the Wasm runtime of this process, doing what its agent asks.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use nix::unistd::{dup2_stdin, dup2_stdout};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use wherry_runtime::{
    ContainerId, ContainerSpec, Image, Mount, Output, PodNetwork, Runtime, RuntimeError, Security, Stream,
};
use wherry_wasm::{Options, WasmRuntime};

use crate::network::{Broker, Far, lookups};
use crate::sandbox::{self, ARTIFACTS, CACHE, Plan};
use crate::streams;
use crate::wire::{Ask, Blob, Fault, Favour, IoFault, Order, Peer, Plea, Serve, Told};

/// The hidden subcommand under which a binary runs [`host_main`].
pub const HOST_COMMAND: &str = "wasm-host";

/// Why a host ends before its agent wants it to.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It was started by hand.
    #[error("this is started by the agent alone: {0}")]
    Arguments(String),
    /// It could not lock itself in.
    #[error("a host locks itself in: {0}")]
    Sandbox(#[from] sandbox::SandboxError),
    /// Its runtime did not start.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A step of the start failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs a host until its agent closes its socket, and with it the process. `words` are those after [`HOST_COMMAND`]: its name and its plan. Standard input is the
/// socket that calls come by, standard output the one for its network.
///
/// # Errors
/// When it does not come to serve; its agent has been told the same.
pub fn host_main(mut words: impl Iterator<Item = String>) -> Result<(), HostError> {
    let plan = words.nth(1).ok_or_else(|| HostError::Arguments("there is no plan".into()))?;
    let plan: Plan = serde_json::from_str(&plan).map_err(|error| HostError::Arguments(error.to_string()))?;
    let (calls, channel) = take_channels()?;
    let broker = Arc::new(Broker::new(channel));
    // What it has of the machine it looks at while it sees it.
    let options = Options::new(CACHE);
    let locked_in = sandbox::enter(&plan, &[calls.as_fd(), broker.as_fd()]).map_err(HostError::from);
    let served = locked_in.and_then(|()| serve(calls, &broker, options));
    if let Err(error) = &served {
        // Nobody may be there to hear it.
        drop(broker.failed(&error.to_string()));
    }
    served
}

/// The two sockets, in whose places nothing is.
fn take_channels() -> io::Result<(OwnedFd, OwnedFd)> {
    let (calls, network) = (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    Ok((calls, network))
}

fn serve(calls: OwnedFd, broker: &Arc<Broker>, options: Options) -> Result<(), HostError> {
    let wasm = WasmRuntime::new(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("wasm-host")
        .enable_io()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let calls = StdStream::from(calls);
        calls.set_nonblocking(true)?;
        let server = Arc::new(Server {
            wasm,
            broker: Arc::clone(broker),
            lookups: lookups(),
            agent: OnceLock::new(),
            artifacts: AtomicU64::new(0),
        });
        let agent = Arc::new(Peer::new(UnixStream::from_std(calls)?, Arc::clone(&server)));
        // Set once, here.
        drop(server.agent.set(Arc::clone(&agent)));
        agent.closed().await;
        Ok::<_, io::Error>(())
    })?;
    // Guests are not waited for: nobody takes what they would write.
    std::process::exit(0)
}

type Agent = Arc<Peer<Plea, Result<Favour, IoFault>>>;

/// What answers the agent.
struct Server {
    wasm: Arc<WasmRuntime>,
    broker: Arc<Broker>,
    lookups: Arc<Semaphore>,
    agent: OnceLock<Agent>,
    /// Counts files below [`ARTIFACTS`].
    artifacts: AtomicU64,
}

impl Serve<Ask, Result<Told, Fault>> for Server {
    fn serve(self: Arc<Self>, ask: Ask, fds: Vec<OwnedFd>) -> BoxFuture<'static, Result<Told, Fault>> {
        async move { self.answer(ask, fds).await.map_err(Fault::from) }.boxed()
    }
}

impl Server {
    async fn answer(&self, ask: Ask, fds: Vec<OwnedFd>) -> Result<Told, RuntimeError> {
        let wasm = &self.wasm;
        Ok(match ask {
            Ask::Prepare(image) => {
                let artifact = self.artifact(*image, fds).await?;
                wasm.prepare(&artifact.image, "").await?;
                Told::Done
            }
            Ask::Create(order) => {
                self.create(*order, fds).await?;
                Told::Done
            }
            Ask::Start(id) => {
                wasm.start(&id).await?;
                Told::Done
            }
            Ask::Kill(id, signal) => {
                wasm.kill(&id, signal).await?;
                Told::Done
            }
            Ask::Wait(id) => Told::Exit(wasm.wait(&id).await?),
            Ask::Remove(id) => {
                wasm.remove(&id).await?;
                Told::Done
            }
            Ask::List => Told::All(wasm.list().await?),
            Ask::Exec { id, command, tty, given } => {
                let streams = streams::received(given, fds).map_err(failed)?;
                Told::Code(wasm.exec(&id, &command, tty, streams).await?)
            }
            Ask::Attach { id, given } => {
                wasm.attach(&id, streams::received(given, fds).map_err(failed)?).await?;
                Told::Done
            }
            Ask::Update(id, limits) => {
                wasm.update(&id, limits).await?;
                Told::Done
            }
            Ask::Stats(id) => Told::Stats(wasm.stats(&id).await?),
            Ask::Disk(id) => Told::Disk(wasm.disk(&id).await?),
            Ask::Compiled => Told::Layers(wasm.compiled().into_iter().collect()),
            Ask::Forget(layers) => {
                layers.iter().for_each(|layer| wasm.forget(layer));
                Told::Done
            }
            Ask::Shutdown => {
                wasm.shutdown().await;
                Told::Done
            }
        })
    }

    async fn create(&self, order: Order, fds: Vec<OwnedFd>) -> Result<(), RuntimeError> {
        let agent = self.agent.get().ok_or_else(|| RuntimeError::Failed("the host is not ready".into()))?;
        let artifact = self.artifact(order.image.clone(), fds).await?;
        let output = Arc::new(Log { id: order.id.clone(), agent: Arc::clone(agent) });
        let network = self.network(&order.id, order.ips.clone(), agent);
        self.wasm.create(spec(order, &artifact.image, network), output).await
    }

    fn network(&self, id: &ContainerId, ips: Vec<IpAddr>, agent: &Agent) -> Arc<dyn PodNetwork> {
        Arc::new(Far {
            id: id.clone(),
            ips,
            broker: Arc::clone(&self.broker),
            agent: Arc::clone(agent),
            lookups: Arc::clone(&self.lookups),
        })
    }

    /// The image, its layer in a file of ours for as long as this is kept.
    async fn artifact(&self, mut image: Image, fds: Vec<OwnedFd>) -> Result<Artifact, RuntimeError> {
        let (Some(layer), Some(fd)) = (image.layers.first_mut(), fds.into_iter().next()) else {
            // The runtime says what is wrong with it.
            return Ok(Artifact { image: Arc::new(image), path: None });
        };
        let place = PathBuf::from(format!("{ARTIFACTS}/{}", self.artifacts.fetch_add(1, Ordering::Relaxed)));
        layer.path.clone_from(&place);
        let mut file = File::create_new(&place).map_err(failed)?;
        let artifact = Artifact { image: Arc::new(image), path: Some(place) };
        let copied = tokio::task::spawn_blocking(move || io::copy(&mut File::from(fd), &mut file)).await;
        copied.map_err(|error| RuntimeError::Failed(error.to_string()))?.map_err(failed)?;
        Ok(artifact)
    }
}

fn failed(error: io::Error) -> RuntimeError {
    RuntimeError::Failed(format!("the host: {error}"))
}

/// A module that is being compiled.
struct Artifact {
    image: Arc<Image>,
    path: Option<PathBuf>,
}

impl Drop for Artifact {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(file = %path.display(), %error, "a module is left behind");
        }
    }
}

fn spec(order: Order, image: &Arc<Image>, network: Arc<dyn PodNetwork>) -> ContainerSpec {
    let mounts = order.places.into_iter().map(|place| Mount {
        source: place.source,
        target: place.target,
        read_only: place.read_only,
        ..Mount::default()
    });
    ContainerSpec {
        id: order.id,
        pod: order.pod,
        name: order.name,
        attempt: order.attempt,
        image: Arc::clone(image),
        command: order.command,
        args: order.args,
        env: order.env,
        working_dir: order.working_dir,
        mounts: mounts.collect(),
        limits: order.limits,
        ports: order.ports,
        network,
        hostname: order.hostname,
        // The node's own matters: a guest has no user.
        security: Security::default(),
        cgroup_parent: String::new(),
        stdin: order.stdin,
        stdin_once: order.stdin_once,
        tty: order.tty,
    }
}

/// A container's log, which its agent keeps.
struct Log {
    id: ContainerId,
    agent: Agent,
}

#[async_trait]
impl Output for Log {
    async fn write(&self, stream: Stream, bytes: Bytes) {
        let plea = Plea::Output { id: self.id.clone(), stream, bytes: Blob(bytes.into()) };
        if let Ok(Err(refused)) = self.agent.call(&plea, Vec::new()).await {
            tracing::warn!(id = %self.id, error = %io::Error::from(refused), "output is lost");
        }
    }
}
