//! The cluster's state: every object, its revision, and what happened to it lately.
//!
//! ```text
//! write --> committer: check, append to the log, one fdatasync a batch --> cache: publish --> acknowledge, wake watchers
//!                                   |                                        ^
//!                                   +--> checkpoints (backup format)         | reads, lists and watches: memory only
//!                                   +--> index (sled), trailing the log -----+ at start, when it proves sound
//! ```
//!
//! Guarantees:
//! - One revision a write, strictly increasing, never issued twice, over restarts too.
//! - A durable write is on disk before it is published or acknowledged. Writes marked not durable (leases, events)
//!   are in the log but may be lost to a power cut, never to the death of the process.
//! - A reader sees committed state only, at one revision; a watcher sees every change of its range once, in order.
//! - The objects that a [`Vault`] names are encrypted wherever they are written.
//! - Damaged files lead to recovery from a sound copy or to a refusal that names file, offset and remedy. Nothing is
//!   dropped in silence.
//!
//! This crate alone knows sled. [`Store`] is the seam: [`LogStore`] is the real one, [`MemoryStore`] the fake, and
//! [`conformance`] holds both to the same behaviour.

mod batch;
mod cache;
mod checkpoint;
mod codec;
mod committer;
pub mod conformance;
mod error;
mod files;
mod index;
mod keeper;
mod log;
mod log_store;
mod memory;
mod options;
mod recover;
mod seal;
mod store;
#[cfg(test)]
mod tests;
mod types;
mod vault;

pub use cache::{Watch, Window};
pub use codec::Describe;
pub use error::{OpenError, StoreError};
pub use log_store::{LogStore, open};
pub use memory::MemoryStore;
pub use options::Options;
pub use store::Store;
pub use types::{At, Entry, Event, Key, List, Op, Precondition, Range, Write};
pub use vault::Vault;
