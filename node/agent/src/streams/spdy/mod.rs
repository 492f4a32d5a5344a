//! SPDY/3.1 as clients of Kubernetes speak it: one connection, streams that the client opens, a server that opens none.
//!
//! ```text
//!  client ─► Decoder ─► connection ─► Feeder ─► Inlet ─► a command, a forwarded port
//!  client ◄─ Encoder ◄─ queue ◄──────────────── Outlet ◄┘
//! ```
//!
//! # Guarantees
//! - Any bytes at all end in frames or in the connection's end; what they cost is bounded.
//!
//! # Deliberately absent
//! Windows: spdystream, which all clients here are made with, neither keeps nor tells them. A sender is held back by the
//! connection alone.

mod connection;
mod frame;
mod headers;

pub(super) use connection::{Stream, serve};

/// What the peer sent is not SPDY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed SPDY: {0}")]
struct Malformed(&'static str);
