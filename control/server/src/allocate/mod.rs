//! What the server hands out: cluster IPs and node ports of Services, each exactly once.
//!
//! [`pool`] is a set of numbers with a reserve for explicit requests; [`services`] knows which fields of a Service
//! hold them and when they come and go.

pub(crate) mod pool;
pub(crate) mod services;
mod spec;
