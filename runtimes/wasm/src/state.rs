//! What a store holds for its guest, and the linkers that give a guest its host functions.

use std::sync::Arc;

use wasmtime::component::{HasData, ResourceTable};
use wasmtime::{Engine, Store, component};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wherry_runtime::{PodNetwork, Stream};

use crate::account::Account;
use crate::invocation::Invocation;
use crate::memory::Claim;
use crate::mounts::Mounts;
use crate::net::{self, PodSockets, SocketsView};
use crate::outgoing::Outgoing;

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
    network: Arc<dyn PodNetwork>,
    claim: Claim,
}

/// The store's data of a core module.
pub(crate) struct ModuleState {
    wasi: WasiP1Ctx,
    claim: Claim,
}

/// All that is the same for each instance of a container.
pub(crate) struct Environment {
    pub(crate) account: Account,
    pub(crate) invocation: Invocation,
    pub(crate) mounts: Mounts,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) outgoing: Outgoing,
    pub(crate) handles: usize,
}

impl Environment {
    /// A store for one instance of a component.
    pub(crate) fn component_store(&self, engine: &Engine) -> wasmtime::Result<Store<ComponentState>> {
        let state = ComponentState {
            table: ResourceTable::new(),
            wasi: self.wasi()?.build(),
            http: WasiHttpCtx::new(),
            outgoing: self.outgoing.clone(),
            network: Arc::clone(&self.network),
            claim: Claim::new(Arc::clone(&self.account.memory)),
        };
        let mut store = Store::new(engine, state);
        store.data_mut().table.set_max_capacity(self.handles);
        store.limiter(|state| &mut state.claim);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_max_component_handles(self.handles);
        yield_every_tick(&mut store);
        Ok(store)
    }

    /// A store for one instance of a core module.
    pub(crate) fn module_store(&self, engine: &Engine) -> wasmtime::Result<Store<ModuleState>> {
        let state = ModuleState { wasi: self.wasi()?.build_p1(), claim: Claim::new(Arc::clone(&self.account.memory)) };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.claim);
        yield_every_tick(&mut store);
        Ok(store)
    }

    /// stdin is closed, the network is none: sockets are [`net`]'s.
    fn wasi(&self) -> wasmtime::Result<WasiCtxBuilder> {
        let mut wasi = WasiCtx::builder();
        wasi.args(&self.invocation.args)
            .envs(&self.invocation.env)
            .stdout(self.account.stdio.pipe(Stream::Stdout))
            .stderr(self.account.stdio.pipe(Stream::Stderr))
            .max_random_size(RANDOM_BYTES);
        if let Some(cwd) = &self.invocation.cwd {
            wasi.initial_cwd(cwd);
        }
        self.mounts.open(&mut wasi)?;
        Ok(wasi)
    }
}

fn yield_every_tick<T: 'static>(store: &mut Store<T>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
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
    pub(crate) fn sockets(&mut self) -> SocketsView<'_> {
        SocketsView { table: &mut self.table, network: &self.network }
    }
}

/// The host functions of both kinds of guest.
pub(crate) struct Linkers {
    pub(crate) component: component::Linker<ComponentState>,
    pub(crate) module: wasmtime::Linker<ModuleState>,
}

impl Linkers {
    pub(crate) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut component = component::Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut component)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut component)?;
        net::add_to_linker(&mut component)?;
        let mut module = wasmtime::Linker::new(engine);
        p1::add_to_linker_async(&mut module, |state: &mut ModuleState| &mut state.wasi)?;
        Ok(Self { component, module })
    }
}
