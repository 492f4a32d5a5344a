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
//! - [`Queue`] holds keys, not objects: a reconciler reads the current state, so work that is queued twice is done once.
//! - [`ownership`], [`status`], [`expectations`] and [`hash`] are the small shared conventions of Kubernetes' own
//!   controllers, as pure functions with the I/O beside them.
//! - [`Recorders`] write Events the way `kubectl describe` shows them.
//!
//! Nothing here polls: watches, notifications and one timer heap a queue drive everything. Every task is owned by what
//! started it and ends when its [`tokio_util::sync::CancellationToken`] is cancelled.

mod backoff;
pub mod events;
pub mod expectations;
pub mod hash;
pub mod informer;
mod key;
pub mod leader;
pub mod ownership;
pub mod queue;
pub mod status;
mod worker;

pub use backoff::Backoff;
pub use events::{EventType, Recorder, Recorders};
pub use expectations::Expectations;
pub use informer::{Change, Filter, Informer, Informers, Metadata, Subscription};
pub use key::ObjectKey;
pub use queue::Queue;
pub use worker::{Outcome, Reconciler, run};
