//! All that a container's instances share: its memory account, its CPU budget, its output, its count of bytes.

use std::sync::Arc;

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
    pub(crate) pulse: Arc<Pulse>,
}
