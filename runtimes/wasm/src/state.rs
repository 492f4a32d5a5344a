//! What a store holds for its guest, and the linkers that give a guest its host functions.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline, component};
use wasmtime_wasi::filesystem::{Descriptor, Dir};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p3;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wherry_runtime::{PodNetwork, Stream};

use crate::account::Account;
use crate::engine::SLICE;
use crate::files::{self, Directories, OpenFiles};
use crate::invocation::{self, Invocation};
use crate::memory::{Claim, Memory, NodeMemory};
use crate::mounts::Mounts;
use crate::net::{self, PodSockets, SocketsView};
use crate::outgoing::Outgoing;
use crate::program::PREVIEW_1;
use crate::settings;
use crate::stdio::Stdio;
use crate::turns;

/// Host memory that one host call may copy out of a guest.
const HOSTCALL_BYTES: usize = 8 << 20;
/// The most random bytes that one call gives.
const RANDOM_BYTES: u64 = 1 << 20;

/// The store's data of a component.
pub(crate) struct ComponentState {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    environment: Arc<Environment>,
    claim: Claim,
}

/// The store's data of a core module.
pub(crate) struct ModuleState {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) files: Arc<OpenFiles>,
    pub(crate) directories: Directories,
    claim: Claim,
}

/// All that is the same for each instance of a container.
pub(crate) struct Environment {
    pub(crate) account: Account,
    pub(crate) invocation: Invocation,
    pub(crate) mounts: Arc<Mounts>,
    /// Whether its program can ask for them: they are opened for each instance.
    pub(crate) opens_files: bool,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) outgoing: Outgoing,
    pub(crate) files: Arc<OpenFiles>,
    /// Sockets that it may have at once.
    pub(crate) sockets: Arc<Semaphore>,
    /// Handles of each of its instances.
    pub(crate) handles: usize,
    /// Host memory that is held whether an instance runs or not.
    pub(crate) own_bytes: u64,
}

impl Environment {
    /// The same for a command beside the container: its mounts, network and limits, with streams and arguments of its own.
    pub(crate) fn beside(&self, stdio: Arc<Stdio>, args: &[String]) -> Self {
        let Account { memory, cpu, traffic, requests, pulse, .. } = &self.account;
        Self {
            account: Account {
                memory: Arc::clone(memory),
                cpu: Arc::clone(cpu),
                stdio,
                traffic: Arc::clone(traffic),
                requests: Arc::clone(requests),
                pulse: Arc::clone(pulse),
            },
            invocation: Invocation { args: args.to_vec(), ..self.invocation.clone() },
            mounts: Arc::clone(&self.mounts),
            opens_files: self.opens_files,
            network: Arc::clone(&self.network),
            outgoing: self.outgoing.clone(),
            files: Arc::clone(&self.files),
            sockets: Arc::clone(&self.sockets),
            handles: self.handles,
            own_bytes: self.own_bytes,
        }
    }

    /// A store for one instance of a component. What a guest may ask for stays where it is until it does: most ask for little.
    pub(crate) fn component_store(self: &Arc<Self>, engine: &Engine) -> wasmtime::Result<Store<ComponentState>> {
        let state = ComponentState {
            table: ResourceTable::new(),
            wasi: self.wasi()?.build(),
            http: WasiHttpCtx::new(),
            outgoing: self.outgoing.clone(),
            environment: Arc::clone(self),
            claim: Claim::new(Arc::clone(&self.account.memory)),
        };
        let mut store = Store::new(engine, state);
        store.data_mut().table.set_max_capacity(self.handles);
        store.limiter(|state| &mut state.claim);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_max_component_handles(self.handles);
        yield_after_a_slice(&mut store);
        Ok(store)
    }

    /// A store for one instance of a core module.
    pub(crate) fn module_store(&self, engine: &Engine) -> wasmtime::Result<Store<ModuleState>> {
        let Invocation { args, env, cwd } = &self.invocation;
        let mut wasi = self.wasi()?;
        wasi.args(args).envs(&env[..]);
        if let Some(cwd) = cwd {
            wasi.initial_cwd(cwd);
        }
        let mut wasi = wasi.build_p1();
        let state = ModuleState {
            directories: Directories::of_mounts(&mut wasi, self.mounts.count()?)?,
            wasi,
            files: Arc::clone(&self.files),
            claim: Claim::new(Arc::clone(&self.account.memory)),
        };
        let mut store = Store::new(engine, state);
        store.data_mut().wasi.ctx().table.set_max_capacity(self.handles);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.limiter(|state| &mut state.claim);
        yield_after_a_slice(&mut store);
        Ok(store)
    }

    /// Network and environment are none: sockets are [`net`]'s, and what a component is told about itself [`invocation`]'s.
    fn wasi(&self) -> wasmtime::Result<WasiCtxBuilder> {
        let mut wasi = WasiCtx::builder();
        wasi.stdout(self.account.stdio.pipe(Stream::Stdout))
            .stderr(self.account.stdio.pipe(Stream::Stderr))
            .max_random_size(RANDOM_BYTES);
        if let Some(stdin) = self.account.stdio.take_stdin() {
            wasi.stdin(stdin);
        }
        if self.opens_files {
            self.mounts.open(&mut wasi)?;
        }
        Ok(wasi)
    }
}

/// Has the guest give its thread back when it has run for [`SLICE`] ticks, begun ones counted.
fn yield_after_a_slice<T: 'static>(store: &mut Store<T>) {
    store.set_epoch_deadline(SLICE);
    store.epoch_deadline_callback(|_| {
        turns::preempted();
        Ok(UpdateDeadline::Yield(SLICE))
    });
}

impl WasiView for ComponentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for ComponentState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}

impl HasData for PodSockets {
    type Data<'a> = SocketsView<'a>;
}

impl ComponentState {
    /// What the guest is told about itself.
    pub(crate) fn invocation(&self) -> &Invocation {
        &self.environment.invocation
    }

    pub(crate) fn sockets(&mut self) -> SocketsView<'_> {
        let Environment { network, account, sockets, .. } = &*self.environment;
        SocketsView { table: &mut self.table, network, traffic: &account.traffic, permits: sockets }
    }

    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// An open directory, and where its container's files are counted; none where it is a file.
    pub(crate) fn directory(&self, open: &Resource<Descriptor>) -> wasmtime::Result<Option<(Arc<OpenFiles>, Dir)>> {
        Ok(match self.table.get(open)? {
            Descriptor::Dir(dir) => Some((Arc::clone(&self.environment.files), dir.clone())),
            Descriptor::File(_) => None,
        })
    }
}

/// The host functions of both kinds of guest.
pub(crate) struct Linkers {
    pub(crate) component: component::Linker<ComponentState>,
    pub(crate) module: wasmtime::Linker<ModuleState>,
    /// The functions of preview 1.
    pub(crate) preview_1: HashSet<String>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut component = component::Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut component)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut component)?;
        net::add_to_linker(&mut component)?;
        // All of 0.3 but its sockets: wasmtime-wasi's would be the node's own.
        p3::cli::add_to_linker(&mut component)?;
        p3::clocks::add_to_linker(&mut component)?;
        p3::filesystem::add_to_linker(&mut component)?;
        p3::random::add_to_linker(&mut component)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut component)?;
        files::add_to_linker(&mut component)?;
        invocation::add_to_linker(&mut component)?;
        settings::add_to_linker(&mut component)?;
        let mut module = wasmtime::Linker::new(engine);
        p1::add_to_linker_async(&mut module, |state: &mut ModuleState| &mut state.wasi)?;
        files::add_preview_1(&mut module)?;
        // wasmtime-wasi's traps on codes beyond 125, which processes use.
        module.allow_shadowing(true);
        module.func_wrap(PREVIEW_1, "proc_exit", |code: i32| Err::<(), _>(wasmtime::Error::from(I32Exit(code))))?;
        module.allow_shadowing(false);
        // Its state is never looked at: the names alone are.
        let state = ModuleState {
            wasi: WasiCtx::builder().build_p1(),
            files: OpenFiles::new(0),
            directories: Directories::default(),
            claim: Claim::new(Memory::new(None, NodeMemory::new(0))),
        };
        let mut store = Store::new(engine, state);
        let preview_1 = module.iter(&mut store).map(|(_, name, _)| name.to_owned()).collect();
        Ok(Self { component, module, preview_1 })
    }
}
