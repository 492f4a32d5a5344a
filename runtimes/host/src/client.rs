//! [`HostRuntime`]: the [`Runtime`] trait over hosts.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use wherry_runtime::{
    ContainerId, ContainerSpec, ContainerStatus, DiskUse, Exit, Image, Kept, Limits, Output, Runtime, RuntimeError,
    RuntimeInfo, Signal, Stats, Streams,
};
use wherry_wasm::WASMTIME_VERSION;

use crate::entry::Entry;
use crate::process::{Failure, Host};
use crate::streams::Relay;
use crate::wire::{Ask, Order, Place, Told};

/// Who shares a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All Pods of the node.
    Node,
    /// The Pods of a namespace.
    Namespace,
}

/// How hosts are made.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Their directories are below.
    pub dir: PathBuf,
    /// The node's name.
    pub node: String,
    /// Who shares one.
    pub isolation: Isolation,
    /// What is run with [`HOST_COMMAND`](crate::HOST_COMMAND) as its first argument.
    pub program: PathBuf,
}

/// Runs a node's Wasm containers in processes of their own.
pub struct HostRuntime {
    options: HostOptions,
    seats: Mutex<HashMap<String, Arc<Seat>>>,
    containers: Mutex<HashMap<ContainerId, Known>>,
}

/// The place of a host: whoever wants one waits here while it is started.
#[derive(Default)]
struct Seat(tokio::sync::Mutex<Option<Arc<Host>>>);

/// A container and where it runs.
#[derive(Clone)]
struct Known {
    seat: String,
    host: Arc<Host>,
    entry: Arc<Entry>,
}

impl HostRuntime {
    /// Without any host: each is started by the first who needs it.
    #[must_use]
    pub fn new(options: HostOptions) -> Arc<Self> {
        Arc::new(Self { options, seats: Mutex::default(), containers: Mutex::default() })
    }

    /// Ends every container at once, waits until all their output is handed over, and ends the hosts.
    pub async fn shutdown(&self) {
        let seats: Vec<Arc<Seat>> = self.seats.lock().drain().map(|(_, seat)| seat).collect();
        let end = async |seat: Arc<Seat>| {
            let Some(host) = seat.0.lock().await.take() else { return };
            // One that has ended already has ended all.
            drop(host.ask(&Ask::Shutdown, Vec::new()).await);
            host.close();
            host.ended().await;
        };
        futures::future::join_all(seats.into_iter().map(end)).await;
    }

    /// The seat of a namespace's host, and whose that is in words.
    fn seat_of(&self, namespace: &str) -> (String, String) {
        match self.options.isolation {
            Isolation::Node => (self.options.node.clone(), format!("node {}", self.options.node)),
            Isolation::Namespace => (namespace.to_owned(), format!("namespace {namespace}")),
        }
    }

    /// A namespace's host, started where there is none.
    async fn host(&self, namespace: &str) -> Result<(String, Arc<Host>), RuntimeError> {
        let (name, whom) = self.seat_of(namespace);
        let seat = Arc::clone(self.seats.lock().entry(name.clone()).or_default());
        let mut place = seat.0.lock().await;
        if let Some(host) = &*place
            && !host.has_ended()
        {
            return Ok((name, Arc::clone(host)));
        }
        let host = Host::start(&self.options, &name, &whom).await?;
        *place = Some(Arc::clone(&host));
        Ok((name, host))
    }

    /// Ends a host that nobody needs any more: it has no container, and nobody is about to make one.
    async fn retire(&self, name: &str) {
        let Some(seat) = self.seats.lock().get(name).cloned() else { return };
        let mut place = seat.0.lock().await;
        if place.as_ref().is_some_and(|host| host.entries.is_empty() && Arc::strong_count(host) == 1) {
            *place = None;
            let mut seats = self.seats.lock();
            // The table's and this one: whoever has another is about to take the place.
            if Arc::strong_count(&seat) == 2 {
                seats.remove(name);
            }
        }
    }

    fn find(&self, id: &ContainerId) -> Result<Known, RuntimeError> {
        self.containers.lock().get(id).cloned().ok_or_else(|| RuntimeError::NotFound(id.clone()))
    }

    /// Asks what a running container answers; of one that was lost with its host, that it does not run.
    async fn ask_running(&self, id: &ContainerId, ask: &Ask, fds: Vec<OwnedFd>) -> Result<Told, RuntimeError> {
        let known = self.find(id)?;
        match known.host.ask(ask, fds).await {
            Ok(told) => Ok(told),
            Err(Failure::Told(error)) => Err(error),
            Err(Failure::Ended(why)) => {
                known.entry.lost(&why).await;
                Err(RuntimeError::WrongState { id: id.clone(), state: "exited", problem: why })
            }
        }
    }

    /// Enters a container before its host knows it, so that nobody else makes it and its output has a way.
    fn enter(&self, known: &Known, id: &ContainerId) -> Result<(), RuntimeError> {
        let mut containers = self.containers.lock();
        if let Some(other) = containers.get(id) {
            let (id, state) = (id.clone(), other.entry.state_name());
            return Err(RuntimeError::WrongState { id, state, problem: "its identity is taken".into() });
        }
        containers.insert(id.clone(), known.clone());
        known.host.entries.add(&known.entry);
        Ok(())
    }

    /// Forgets a container.
    fn leave(&self, host: &Host, id: &ContainerId) {
        self.containers.lock().remove(id);
        host.entries.remove(id);
    }

    async fn make(&self, host: &Host, spec: ContainerSpec) -> Result<(), RuntimeError> {
        let layer = layer(&spec.image)?;
        let id = spec.id.clone();
        let places = host.room.bring(&id, &spec.mounts).await?;
        let told = host.ask(&Ask::Create(Box::new(order(spec, places))), layer).await;
        told.map(drop).map_err(RuntimeError::from)
    }
}

/// Undoes what was entered, unless it came to be.
struct Entered<'a> {
    runtime: &'a HostRuntime,
    host: &'a Arc<Host>,
    id: &'a ContainerId,
    made: bool,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if !self.made {
            self.runtime.leave(self.host, self.id);
        }
    }
}

/// The image's layer, open; the host says what is wrong with an image that has not the one.
fn layer(image: &Image) -> Result<Vec<OwnedFd>, RuntimeError> {
    let [layer] = image.layers.as_slice() else { return Ok(Vec::new()) };
    let file =
        File::open(&layer.path).map_err(|error| RuntimeError::Failed(format!("{}: {error}", layer.path.display())))?;
    Ok(vec![file.into()])
}

fn order(spec: ContainerSpec, places: Vec<Place>) -> Order {
    Order {
        id: spec.id,
        pod: spec.pod,
        name: spec.name,
        attempt: spec.attempt,
        image: Image::clone(&spec.image),
        command: spec.command,
        args: spec.args,
        env: spec.env,
        working_dir: spec.working_dir,
        places,
        limits: spec.limits,
        ports: spec.ports,
        ips: spec.network.ips().to_vec(),
        hostname: spec.hostname,
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
    }
}

fn unexpected() -> RuntimeError {
    RuntimeError::Failed("the host process answered something else".into())
}

#[async_trait]
impl Runtime for HostRuntime {
    fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: "wasmtime".into(), version: WASMTIME_VERSION.into() }
    }

    async fn prepare(&self, image: &Arc<Image>, namespace: &str) -> Result<(), RuntimeError> {
        let (_, host) = self.host(namespace).await?;
        host.ask(&Ask::Prepare(Box::new(Image::clone(image))), layer(image)?).await?;
        host.prepared.lock().extend(image.layers.iter().map(|layer| layer.digest.clone()));
        Ok(())
    }

    async fn create(&self, spec: ContainerSpec, output: Arc<dyn Output>) -> Result<(), RuntimeError> {
        let (seat, host) = self.host(&spec.pod.namespace).await?;
        let (id, entry) = (spec.id.clone(), Entry::new(&spec, output));
        self.enter(&Known { seat, host: Arc::clone(&host), entry }, &id)?;
        let mut entered = Entered { runtime: self, host: &host, id: &id, made: false };
        let made = self.make(&host, spec).await;
        entered.made = made.is_ok();
        if made.is_err()
            && let Err(error) = host.room.clear(&id).await
        {
            tracing::debug!(%id, %error, "the mounts of a container that was not made are left");
        }
        made
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let known = self.find(id)?;
        known.host.ask(&Ask::Start(id.clone()), Vec::new()).await?;
        known.entry.started();
        Ok(())
    }

    async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError> {
        let known = self.find(id)?;
        match known.host.ask(&Ask::Kill(id.clone(), signal), Vec::new()).await {
            Ok(_) => Ok(()),
            Err(Failure::Told(error)) => Err(error),
            // It has ended with its host.
            Err(Failure::Ended(why)) => {
                known.entry.lost(&why).await;
                Ok(())
            }
        }
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        let known = self.find(id)?;
        if let Some(exit) = known.entry.exit() {
            return Ok(exit.clone());
        }
        match known.host.ask(&Ask::Wait(id.clone()), Vec::new()).await {
            Ok(Told::Exit(exit)) => Ok(known.entry.ended(exit).clone()),
            Ok(_) => Err(unexpected()),
            Err(Failure::Told(error)) => Err(error),
            Err(Failure::Ended(why)) => Ok(known.entry.lost(&why).await.clone()),
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Ok(known) = self.find(id) else { return Ok(()) };
        match known.host.ask(&Ask::Remove(id.clone()), Vec::new()).await {
            Ok(_) => {
                let cleared = known.host.room.clear(id).await;
                cleared.map_err(|error| RuntimeError::Failed(format!("the mounts of container {id}: {error}")))?;
            }
            Err(Failure::Told(error)) => return Err(error),
            // Its mounts have gone with it.
            Err(Failure::Ended(_)) => {}
        }
        self.leave(&known.host, id);
        let Known { seat, host, .. } = known;
        drop(host);
        self.retire(&seat).await;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let mut hosts: Vec<Arc<Host>> = Vec::new();
        for known in self.containers.lock().values() {
            if !hosts.iter().any(|host| Arc::ptr_eq(host, &known.host)) {
                hosts.push(Arc::clone(&known.host));
            }
        }
        let mut all = Vec::new();
        for host in hosts {
            match host.ask(&Ask::List, Vec::new()).await {
                Ok(Told::All(more)) => all.extend(more),
                Ok(_) => return Err(unexpected()),
                Err(Failure::Told(error)) => return Err(error),
                Err(Failure::Ended(why)) => {
                    for entry in host.entries.all() {
                        all.push(entry.exited(entry.lost(&why).await));
                    }
                }
            }
        }
        Ok(all)
    }

    async fn adopt(&self, id: &ContainerId, _: Arc<dyn Output>) -> Result<(), RuntimeError> {
        // Hosts end with their agent.
        Err(RuntimeError::NotFound(id.clone()))
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        tty: bool,
        streams: Streams,
    ) -> Result<i32, RuntimeError> {
        let (relay, given, fds) = Relay::new(streams).map_err(|error| RuntimeError::Failed(error.to_string()))?;
        let ask = Ask::Exec { id: id.clone(), command: command.to_vec(), tty, given };
        match relay.run(self.ask_running(id, &ask, fds)).await? {
            Told::Code(code) => Ok(code),
            _ => Err(unexpected()),
        }
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<(), RuntimeError> {
        let (relay, given, fds) = Relay::new(streams).map_err(|error| RuntimeError::Failed(error.to_string()))?;
        relay.run(self.ask_running(id, &Ask::Attach { id: id.clone(), given }, fds)).await.map(drop)
    }

    async fn update(&self, id: &ContainerId, limits: Limits) -> Result<(), RuntimeError> {
        self.ask_running(id, &Ask::Update(id.clone(), limits), Vec::new()).await.map(drop)
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RuntimeError> {
        match self.ask_running(id, &Ask::Stats(id.clone()), Vec::new()).await? {
            Told::Stats(stats) => Ok(stats),
            _ => Err(unexpected()),
        }
    }

    async fn disk(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        match self.ask_running(id, &Ask::Disk(id.clone()), Vec::new()).await? {
            Told::Disk(disk) => Ok(disk),
            _ => Err(unexpected()),
        }
    }

    /// Of the host that all namespaces share, while it runs: what a namespace's has made is for nobody else.
    fn prepared(&self) -> BTreeSet<String> {
        let seats = self.seats.lock();
        let seat = seats.get(&self.options.node).filter(|_| self.options.isolation == Isolation::Node);
        // While somebody has the place a host is being started there, or ended.
        let place = seat.and_then(|seat| seat.0.try_lock().ok());
        let host = place.as_deref().and_then(Option::as_ref).filter(|host| !host.has_ended());
        host.map(|host| host.prepared.lock().clone()).unwrap_or_default()
    }

    /// Hosts that do not run keep theirs, within the bounds of their caches, until they run again.
    async fn retain(&self, kept: &Kept<'_>) -> Result<(), RuntimeError> {
        let seats: Vec<Arc<Seat>> = self.seats.lock().values().cloned().collect();
        for seat in seats {
            let place = seat.0.lock().await;
            let Some(host) = place.as_ref().filter(|host| !host.has_ended()) else { continue };
            // Under the lock: it is not taken for idle and ended meanwhile. One that ends by itself has nothing left to forget.
            if let Ok(Told::Layers(mut layers)) = host.ask(&Ask::Compiled, Vec::new()).await {
                layers.retain(|layer| !kept(layer));
                if !layers.is_empty() {
                    host.prepared.lock().retain(|layer| !layers.contains(layer));
                    drop(host.ask(&Ask::Forget(layers), Vec::new()).await);
                }
            }
        }
        Ok(())
    }
}
