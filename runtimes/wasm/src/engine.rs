//! The engine, the threads that guests run on, and the ticker that takes the threads back.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::Options;

/// How often the epoch advances while guests run.
pub(crate) const TICK: Duration = Duration::from_millis(2);

/// Ticks after which a guest gives its thread back. Since the first of them has begun already, it has had at least one less.
pub(crate) const SLICE: u64 = 2;

/// Elements of one table; a `table.grow` beyond is refused, a module that starts beyond is invalid.
pub(crate) const TABLE_ELEMENTS: usize = 100_000;

/// Bytes of memory that a slot of the pool keeps between two instances, of what the first one wrote.
const KEPT_BYTES: usize = 128 << 10;

/// Added to the niceness of guests' and compilers' threads, so that the control plane's come first.
const NICE: i32 = 5;

/// Added once more to the niceness of a guest that spins, while it does.
const NICE_BEHIND: i32 = 5;

/// Makes the engine: pooled where the machine has the address space for it, on demand otherwise.
pub(crate) fn new(options: &Options) -> wasmtime::Result<Engine> {
    let mut config = base();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options.instances)));
    match Engine::new(&config) {
        Ok(engine) => Ok(engine),
        Err(error) => {
            tracing::warn!(%error, instances = options.instances, "no pool of Wasm instances: they are allocated on demand");
            let mut config = base();
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            Engine::new(&config)
        }
    }
}

fn base() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        // What WASI 0.3 is made of.
        .wasm_component_model_async(true)
        .memory_init_cow(true)
        .max_wasm_stack(1 << 20)
        .async_stack_size(2 << 20)
        // Registering unwind tables is quadratic in the number of modules; wasmtime's own backtraces don't need them.
        .native_unwind_info(false)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(32));
    config
}

fn pool(instances: u32) -> PoolingAllocationConfig {
    // A component is made of several core instances (with an adapter: five), but seldom of more than one memory. They are
    // counted only, not set aside.
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(2))
        .total_stacks(instances)
        .total_gc_heaps(0)
        .max_tables_per_module(4)
        .table_elements(TABLE_ELEMENTS)
        .max_unused_warm_slots(64)
        // An instance that goes has the few pages it wrote put back, where the kernel tells which ones (Linux 6.7). To unmap them would
        // interrupt every other processor, and fault each of them in again for the next instance.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(KEPT_BYTES)
        .table_keep_resident(4 << 10);
    pool
}

/// The runtime that every guest's code and I/O run on.
pub(crate) fn guest_threads(options: &Options) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.threads)
        .max_blocking_threads(64)
        .thread_name("wasm-guest")
        .on_thread_start(step_back)
        .enable_all()
        .build()
}

/// The threads that compile.
pub(crate) fn compiler_threads(options: &Options) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .thread_name(|index| format!("wasm-compile-{index}"))
        .start_handler(|_| step_back())
        .build()
}

/// Lowers the calling thread's priority.
fn step_back() {
    let _ = change_nice(NICE);
}

/// Does `work` at a lower priority than the guests' other threads have. Where the process may not raise it again afterwards (without
/// `CAP_SYS_NICE`), they compete as equals.
pub(crate) fn behind_others<T>(work: impl FnOnce() -> T) -> T {
    static MAY: LazyLock<bool> = LazyLock::new(may_raise);
    if !*MAY {
        return work();
    }
    let lowered = change_nice(NICE_BEHIND);
    let outcome = work();
    if let Some(by) = lowered {
        let _ = change_nice(-by);
    }
    outcome
}

/// Changes the calling thread's niceness (in Linux each thread has its own) by `by`, as far as there is room. By how much it changed; none
/// where it was refused.
fn change_nice(by: i32) -> Option<i32> {
    let nice = rustix::process::getpriority_process(None).ok()?;
    let wanted = (nice + by).clamp(-20, 19);
    rustix::process::setpriority_process(None, wanted).ok()?;
    Some(wanted - nice)
}

/// Whether a thread of this process may take a lowered priority back, tried by one that ends with it.
fn may_raise() -> bool {
    let tried = thread::spawn(|| change_nice(1).is_some_and(|by| change_nice(-by).is_some()));
    tried.join().unwrap_or(false)
}

/// Advances the engine's epoch every [`TICK`] while guests run; sleeps while none does.
pub(crate) struct Ticker {
    shared: Arc<Pulse>,
    thread: JoinHandle<()>,
}

/// What the ticker and those who run guests share.
#[derive(Default)]
pub(crate) struct Pulse {
    /// Polls of guests so far and polls going on: the ticker may park when neither moved.
    begun: AtomicU64,
    ended: AtomicU64,
    parked: AtomicBool,
    stop: AtomicBool,
    thread: std::sync::OnceLock<thread::Thread>,
}

impl Pulse {
    /// Guest code is about to run on this thread; it runs until the guard is dropped.
    pub(crate) fn beat(&self) -> Beat<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        Beat(self)
    }
}

/// Guest code runs on this thread.
pub(crate) struct Beat<'a>(&'a Pulse);

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Ticker {
    /// Starts ticking for `engine`.
    pub(crate) fn start(engine: Engine) -> io::Result<Self> {
        let shared = Arc::new(Pulse::default());
        let pulse = Arc::clone(&shared);
        let thread = thread::Builder::new().name("wasm-epoch".into()).spawn(move || tick(&engine, &pulse))?;
        // Filled before anyone can beat: `pulse()` is reached through the finished ticker alone.
        let _ = shared.thread.set(thread.thread().clone());
        Ok(Self { shared, thread })
    }

    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
    }
}

fn tick(engine: &Engine, pulse: &Pulse) {
    let mut seen = u64::MAX;
    while !pulse.stop.load(Ordering::SeqCst) {
        let begun = pulse.begun.load(Ordering::SeqCst);
        if begun == seen && pulse.ended.load(Ordering::SeqCst) == begun {
            pulse.parked.store(true, Ordering::SeqCst);
            // Looked at again after `parked` is seen by others: a beat between the two either moved `begun` or unparks.
            if pulse.begun.load(Ordering::SeqCst) == begun && !pulse.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            pulse.parked.store(false, Ordering::SeqCst);
        }
        seen = begun;
        thread::sleep(TICK);
        engine.increment_epoch();
    }
}
