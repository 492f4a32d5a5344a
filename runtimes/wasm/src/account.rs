//! All that a container's instances share: its memory account, its CPU budget, its output, its counts of bytes and requests.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::cpu::Cpu;
use crate::engine::Pulse;
use crate::memory::Memory;
use crate::stdio::Stdio;
use crate::traffic::Counter;

/// One container's share of the node.
pub(crate) struct Account {
    pub(crate) memory: Arc<Memory>,
    pub(crate) cpu: Arc<Cpu>,
    pub(crate) stdio: Arc<Stdio>,
    pub(crate) traffic: Arc<Counter>,
    /// HTTP requests that came to it, but for those of probes.
    pub(crate) requests: Arc<AtomicU64>,
    pub(crate) pulse: Arc<Pulse>,
}
