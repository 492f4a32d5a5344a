//! [`WasmRuntime`]: the [`Runtime`] trait over all of this crate.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wherry_runtime::{
    ContainerId, ContainerSpec, ContainerStatus, DiskUse, Exit, Image, Kept, Limits, MemoryUse, Output, Runtime,
    RuntimeError, RuntimeInfo, Signal, Stats, Streams,
};

use crate::account::Account;
use crate::container::Container;
use crate::copy::Copies;
use crate::cpu::Cpu;
use crate::engine::{self, Ticker};
use crate::exec::exec;
use crate::files::OpenFiles;
use crate::imports::Offered;
use crate::invocation::{self, Invocation};
use crate::memory::{Memory, NodeMemory};
use crate::mounts::{Mounts, Staging};
use crate::options::Options;
use crate::outgoing::Outgoing;
use crate::program::Program;
use crate::programs::Programs;
use crate::state::Environment;
use crate::stdio::Stdio;
use crate::streams::Wiring;
use crate::traffic::Counter;
use crate::turns::Turns;

/// Version of wasmtime that this crate is built with; the workspace's manifest pins the major.
/// The major version of the engine, which decides what code its cache can hold.
pub const WASMTIME_VERSION: &str = "48";

/// Runs Wasm containers in this process.
pub struct WasmRuntime {
    options: Arc<Options>,
    programs: Programs,
    copies: Copies,
    node_memory: Arc<NodeMemory>,
    ticker: Ticker,
    turns: Arc<Turns>,
    /// Mounted files are staged here; this runtime's alone.
    staging: Staging,
    containers: Mutex<HashMap<ContainerId, Arc<Container>>>,
    /// The guests' threads. Taken out when this is dropped, which may happen on a thread of another runtime.
    guests: Option<tokio::runtime::Runtime>,
}

impl WasmRuntime {
    /// Makes the engine, its threads and its cache.
    pub fn new(options: Options) -> Result<Arc<Self>, RuntimeError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            RuntimeError::Failed(format!("the Wasm runtime: {what}: {error}"))
        };
        let engine = engine::new(&options).map_err(|error| failed("engine", &error))?;
        let programs = Programs::new(&engine, &options).map_err(|error| failed("start", &error))?;
        let ticker = Ticker::start(engine).map_err(|error| failed("ticker", &error))?;
        let guests = engine::guest_threads(&options).map_err(|error| failed("threads", &error))?;
        let copies = options.copies_dir.as_ref().unwrap_or(&options.cache_dir);
        let staging = Staging::new(&options.cache_dir, copies).map_err(|error| failed("mounts", &error))?;
        Ok(Arc::new(Self {
            node_memory: NodeMemory::new(options.memory_bytes),
            turns: Arc::new(Turns::new(options.threads)),
            options: Arc::new(options),
            programs,
            copies: Copies::new(),
            ticker,
            staging,
            containers: Mutex::default(),
            guests: Some(guests),
        }))
    }

    /// What guests may import.
    #[must_use]
    pub fn offered(&self) -> Offered {
        self.programs.offered()
    }

    /// The layers of which there is compiled code on disk, by their digests.
    #[must_use]
    pub fn compiled(&self) -> BTreeSet<String> {
        self.programs.compiled()
    }

    /// Drops what was compiled of a layer, on disk and in memory. Running containers keep theirs.
    pub fn forget(&self, layer: &str) {
        self.programs.forget(layer);
    }

    /// Ends every container at once and waits until all their output is handed over.
    pub async fn shutdown(&self) {
        let all: Vec<Arc<Container>> = self.containers.lock().values().cloned().collect();
        for container in &all {
            container.signal(Signal::Kill);
        }
        join_all(all.iter().map(|container| container.wait())).await;
    }

    fn find(&self, id: &ContainerId) -> Result<Arc<Container>, RuntimeError> {
        self.containers.lock().get(id).cloned().ok_or_else(|| RuntimeError::NotFound(id.clone()))
    }

    fn guests(&self) -> Result<&tokio::runtime::Handle, RuntimeError> {
        self.guests
            .as_ref()
            .map(tokio::runtime::Runtime::handle)
            .ok_or_else(|| RuntimeError::Failed("the runtime is shut down".into()))
    }

    async fn environment(
        &self,
        spec: &ContainerSpec,
        program: &Program,
        stdio: Arc<Stdio>,
    ) -> Result<Environment, RuntimeError> {
        let mounts = Arc::new(Mounts::new(spec.mounts.clone(), self.staging.of(&spec.id.0)));
        let opens_files = program.opens_files();
        if opens_files {
            let mounts = Arc::clone(&mounts);
            let made = self.guests()?.spawn_blocking(move || mounts.prepare()).await;
            made.map_err(|error| RuntimeError::Failed(format!("mounts: {error}")))?
                .map_err(|error| RuntimeError::InvalidSpec(error.to_string()))?;
        }
        let traffic = Arc::<Counter>::default();
        Ok(Environment {
            own_bytes: own_bytes(spec),
            account: Account {
                memory: Memory::new(spec.limits.memory_bytes, Arc::clone(&self.node_memory)),
                cpu: Arc::new(Cpu::new(&spec.limits, Arc::clone(&self.turns))),
                stdio,
                traffic: Arc::clone(&traffic),
                requests: Arc::default(),
                pulse: self.ticker.pulse(),
            },
            invocation: Invocation::of(spec),
            mounts,
            opens_files,
            network: Arc::clone(&spec.network),
            files: OpenFiles::new(self.options.files),
            sockets: Arc::new(Semaphore::new(self.options.sockets)),
            outgoing: Outgoing::new(Arc::clone(&spec.network), traffic, self.options.outgoing_requests),
            handles: self.options.handles,
        })
    }
}

impl Drop for WasmRuntime {
    fn drop(&mut self) {
        for container in self.containers.get_mut().values() {
            container.signal(Signal::Kill);
        }
        if let Some(guests) = self.guests.take() {
            guests.shutdown_background();
        }
        // Containers that still hold theirs remove them when they go.
        let _ = std::fs::remove_dir(&self.staging.links);
        let _ = std::fs::remove_dir(&self.staging.copies);
    }
}

#[async_trait]
impl Runtime for WasmRuntime {
    fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: "wasmtime".into(), version: WASMTIME_VERSION.into() }
    }

    async fn prepare(&self, image: &Arc<Image>, _: &str) -> Result<(), RuntimeError> {
        let entry = image.entrypoint.first().and_then(|program| invocation::entry_of(program));
        self.programs.get(image, entry).await.map(drop)
    }

    async fn create(&self, spec: ContainerSpec, output: Arc<dyn Output>) -> Result<(), RuntimeError> {
        let taken = |known: &Arc<Container>| Err(known.wrong_state(known.state_name(), "its identity is taken"));
        if let Some(known) = self.containers.lock().get(&spec.id) {
            return taken(known);
        }
        let program = self.programs.get(&spec.image, invocation::entry(&spec)).await?;
        if matches!(&*program, Program::Served(_)) && (spec.stdin || spec.tty) {
            let text = "stdin and tty: a component that is served (wasi:http/incoming-handler) has neither";
            return Err(RuntimeError::InvalidSpec(text.into()));
        }
        let wiring = {
            let _guests = self.guests()?.enter();
            Wiring::of_container(spec.stdin, spec.stdin_once, spec.tty)?
        };
        let environment = self.environment(&spec, &program, Arc::clone(&wiring.stdio)).await?;
        let id = spec.id.clone();
        let container = Arc::new(Container::new(spec, program, environment, wiring, output));
        match self.containers.lock().entry(id) {
            Entry::Occupied(known) => taken(known.get()),
            Entry::Vacant(place) => {
                place.insert(container);
                Ok(())
            }
        }
    }

    async fn start(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        self.find(id)?.start(&self.options, self.guests()?)
    }

    async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<(), RuntimeError> {
        self.find(id)?.signal(signal);
        Ok(())
    }

    async fn wait(&self, id: &ContainerId) -> Result<Exit, RuntimeError> {
        let container = self.find(id)?;
        Ok(container.wait().await)
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let removed = {
            let mut containers = self.containers.lock();
            if let Some(container) = containers.get(id) {
                container.check_removable()?;
            }
            containers.remove(id)
        };
        // Its files go with it: not under the lock.
        drop(removed);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        Ok(self.containers.lock().values().map(|container| container.status()).collect())
    }

    async fn adopt(&self, id: &ContainerId, _: Arc<dyn Output>) -> Result<(), RuntimeError> {
        // Containers live and die with this process: there is none to adopt.
        Err(RuntimeError::NotFound(id.clone()))
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: &[String],
        tty: bool,
        streams: Streams,
    ) -> Result<i32, RuntimeError> {
        exec(&self.find(id)?, self.guests()?, &self.copies, command, tty, streams).await
    }

    async fn attach(&self, id: &ContainerId, streams: Streams) -> Result<(), RuntimeError> {
        self.find(id)?.attach(streams).await
    }

    async fn ask(&self, id: &ContainerId, port: u16, request: http::Request<()>) -> Option<http::Response<()>> {
        self.find(id).ok()?.ask(port, request).await
    }

    async fn update(&self, id: &ContainerId, limits: Limits) -> Result<(), RuntimeError> {
        let container = self.find(id)?;
        let account = &container.environment().account;
        account.memory.limit(limits.memory_bytes).map_err(RuntimeError::InvalidSpec)?;
        account.cpu.limit(&limits);
        Ok(())
    }

    async fn stats(&self, id: &ContainerId) -> Result<Stats, RuntimeError> {
        let container = self.find(id)?;
        let Some(started_at) = container.started_at() else {
            return Err(container.wrong_state(container.state_name(), "only a running container uses anything"));
        };
        let environment = container.environment();
        let account = &environment.account;
        let held = account.memory.held() + environment.own_bytes + account.stdio.held();
        Ok(Stats {
            started_at: Some(started_at),
            cpu_nanos: account.cpu.used_nanos(),
            throttling: account.cpu.throttling(),
            memory: MemoryUse { usage: held, working_set: held, rss: held, ..MemoryUse::default() },
            traffic: Some(account.traffic.read()),
            requests: container.is_served().then(|| account.requests.load(Ordering::Relaxed)),
        })
    }

    async fn disk(&self, id: &ContainerId) -> Result<DiskUse, RuntimeError> {
        // A guest writes to its mounts alone, and they are volumes.
        self.find(id).map(|_| DiskUse::default())
    }

    fn prepared(&self) -> BTreeSet<String> {
        self.programs.usable()
    }

    async fn retain(&self, kept: &Kept<'_>) -> Result<(), RuntimeError> {
        self.compiled().iter().filter(|layer| !kept(layer)).for_each(|layer| self.forget(layer));
        Ok(())
    }
}

/// What the node holds for a container beside its instances: itself, and what its guest is told.
fn own_bytes(spec: &ContainerSpec) -> u64 {
    let words = spec.command.iter().chain(&spec.args).map(String::len).sum::<usize>();
    let env = spec.image.env.iter().chain(&spec.env).map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let own = size_of::<Container>() + size_of::<Environment>() + size_of::<Stdio>() + size_of::<Cpu>();
    (own + words + env) as u64
}
