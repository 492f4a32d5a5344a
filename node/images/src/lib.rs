//! The images of a node: pulled once, verified, shared by both runtimes.
//!
//! One puller serves Wasm artifacts and container images. What it fetches lands in a content store of plain
//! files, every blob verified against its digest while it streams in; what it learns of an image is a small
//! record beside it.
//!
//! # Flow
//! reference → manifest (registry or mirror; an index is narrowed to this node's platform) → what kind it is
//! (media types and platform) → blobs in parallel → the record → [`wherry_runtime::Image`].
//!
//! # Guarantees
//! - A file under `blobs/` has the content its name says: it is written to a temporary file, hashed while it
//!   streams, synced, and only then given its name.
//! - No more is written than was announced, and nothing is announced that is over [`Limits`].
//! - Several processes may use one directory (the CLI's `image load` writes while `wherry up` runs): names
//!   appear by atomic rename, and no lock outlives a process.
//! - What is in use is never collected; an image is in use as long as somebody holds what [`Images`] gave out.
//! - Concurrent pulls of one image share the work; when every caller has gone, the work stops.

mod archive;
mod artifact;
mod auth;
mod collect;
mod compat;
mod error;
mod images;
mod kind;
mod load;
mod manifest;
mod media;
mod progress;
mod pull;
mod push;
mod record;
mod reference;
mod registries;
mod registry;
mod share;
mod spin;
mod store;
mod volume;

pub use auth::Auth;
pub use error::ImageError;
pub use images::{ImageSummary, Images, Limits, Missing, Options};
pub use progress::{Progress, Silent, Step};
pub use reference::Reference;
