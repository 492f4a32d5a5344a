//! Memory: what a container's instances hold together, bounded by `limits.memory` and by the node's budget.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

use crate::engine::TABLE_ELEMENTS;

/// Bytes held, and how many may be.
#[derive(Debug)]
struct Level {
    limit: AtomicU64,
    held: AtomicU64,
}

impl Level {
    fn new(limit: u64) -> Self {
        Self { limit: AtomicU64::new(limit), held: AtomicU64::new(0) }
    }

    fn limit(&self) -> u64 {
        self.limit.load(Ordering::Acquire)
    }

    fn take(&self, bytes: u64) -> bool {
        let more = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= self.limit());
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    fn give(&self, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// The memory of all guests of the node.
#[derive(Debug)]
pub(crate) struct NodeMemory(Level);

impl NodeMemory {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self(Level::new(limit)))
    }
}

/// The memory of one container.
#[derive(Debug)]
pub(crate) struct Memory {
    own: Level,
    node: Arc<NodeMemory>,
}

impl Memory {
    pub(crate) fn new(limit: Option<u64>, node: Arc<NodeMemory>) -> Arc<Self> {
        Arc::new(Self { own: Level::new(limit.unwrap_or(u64::MAX)), node })
    }

    /// Another limit. Refused where more is held already.
    pub(crate) fn limit(&self, limit: Option<u64>) -> Result<(), String> {
        let (limit, held) = (limit.unwrap_or(u64::MAX), self.held());
        if held > limit {
            return Err(format!("attempting to set a memory limit ({limit}) below current usage ({held})"));
        }
        self.own.limit.store(limit, Ordering::Release);
        Ok(())
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        self.own.held.load(Ordering::Acquire)
    }

    fn take(&self, bytes: u64) -> Result<(), OutOfMemory> {
        if !self.own.take(bytes) {
            return Err(OutOfMemory {
                wanted: self.held().saturating_add(bytes),
                limit: self.own.limit(),
                of: "the container's limit",
            });
        }
        if !self.node.0.take(bytes) {
            self.own.give(bytes);
            return Err(OutOfMemory { wanted: bytes, limit: self.node.0.limit(), of: "the node's memory for Wasm" });
        }
        Ok(())
    }

    fn give(&self, bytes: u64) {
        self.own.give(bytes);
        self.node.0.give(bytes);
    }
}

/// A container asked for more memory than it may have. It ends as OOMKilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) struct OutOfMemory {
    wanted: u64,
    limit: u64,
    of: &'static str,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of memory: {} bytes wanted, {} is {} bytes", self.wanted, self.of, self.limit)
    }
}

/// One store's claim on its container's memory; given back when the store is dropped.
pub(crate) struct Claim {
    memory: Arc<Memory>,
    held: u64,
    /// What the growth that is going on was charged, in case it fails after all.
    last: u64,
}

impl Claim {
    pub(crate) fn new(memory: Arc<Memory>) -> Self {
        Self { memory, held: 0, last: 0 }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), OutOfMemory> {
        let bytes = bytes as u64;
        self.memory.take(bytes)?;
        self.held += bytes;
        self.last = bytes;
        Ok(())
    }

    fn undo(&mut self) {
        let bytes = std::mem::take(&mut self.last);
        self.held -= bytes;
        self.memory.give(bytes);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.memory.give(self.held);
    }
}

impl ResourceLimiter for Claim {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.last = 0;
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current))?;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.last = 0;
        if desired > TABLE_ELEMENTS || maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current).saturating_mul(size_of::<usize>()))?;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_container_and_the_node_bound_every_claim() {
        let node = NodeMemory::new(100);
        let (first, second) = (Memory::new(Some(60), Arc::clone(&node)), Memory::new(None, Arc::clone(&node)));
        let mut a = Claim::new(Arc::clone(&first));
        assert!(a.memory_growing(0, 50, None).unwrap());
        assert!(!a.memory_growing(50, 90, Some(80)).unwrap(), "the memory's own maximum is not OOM");
        assert!(a.memory_growing(50, 70, None).unwrap_err().to_string().contains("the container's limit"));
        let mut b = Claim::new(Arc::clone(&second));
        assert!(b.memory_growing(0, 60, None).unwrap_err().to_string().contains("the node's memory"));
        assert!(b.memory_growing(0, 40, None).unwrap());
        b.memory_grow_failed(wasmtime::Error::msg("no")).unwrap();
        assert_eq!((first.held(), second.held()), (50, 0));
        drop(a);
        assert!(b.memory_growing(0, 100, None).unwrap());
        drop(b);
        assert_eq!(node.0.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn tables_are_bounded() {
        let mut claim = Claim::new(Memory::new(None, NodeMemory::new(u64::MAX)));
        assert!(claim.table_growing(0, TABLE_ELEMENTS, None).unwrap());
        assert!(!claim.table_growing(0, TABLE_ELEMENTS + 1, None).unwrap());
    }
}
