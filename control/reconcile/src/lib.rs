//! What every controller of Wherry shares: the scheduler, the controllers and the node agent are built from these parts.
//!
//! ```text
//!  API server ──watch──▶ Informers ──Arc<K>──▶ Subscription ──key──▶ Queue ──▶ Reconciler
//!       ▲                (one watch and one decode                               │
//!       │                 a kind and process)                                    │
//!       └──────── writes: ownership, status, Recorder (Events), LeaderElector ◀──┘
//! ```
//!
//! - [`Informers`] keep one cache a kind, fed by one watch; everyone in the process reads the same `Arc<K>`.
//! - [`Feeds`] joins caches, queue and reconciler: the shape of a controller.
//! - [`Queue`] holds keys, not objects: a reconciler reads the current state, so work that is queued twice is done once.
//! - [`ownership`], [`placement`], [`status`], [`expectations`] and [`hash`] are the small shared conventions of Kubernetes' own
//!   controllers, as pure functions with the I/O beside them.
//! - [`storage`] says which volume is for which claim, [`resources`] and [`host_ports`] what a Pod takes of its node.
//! - [`nodes`] reads what a Node says of itself.
//! - [`waking`]: what is scaled to zero, and for what somebody waits.
//! - [`Recorders`] write Events the way `kubectl describe` shows them.
//!
//! Nothing here polls: watches, notifications and one timer heap a queue drive everything. Every task is owned by what
//! started it and ends when its [`tokio_util::sync::CancellationToken`] is cancelled.

mod backoff;
pub mod events;
pub mod expectations;
mod feeds;
pub mod hash;
pub mod host_ports;
pub mod informer;
mod key;
pub mod leader;
pub mod nodes;
pub mod ownership;
pub mod placement;
pub mod queue;
pub mod resources;
pub mod status;
pub mod storage;
pub mod waking;
mod worker;

pub use backoff::Backoff;
pub use events::{EventType, Recorder, Recorders};
pub use expectations::Expectations;
pub use feeds::Feeds;
pub use informer::{Change, Filter, Informer, Informers, Metadata, Subscription};
pub use key::ObjectKey;
pub use queue::Queue;
pub use worker::{Outcome, Reconciler, rest, run};
