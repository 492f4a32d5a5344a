//! Where a container's output goes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Which of a container's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The agent's end of a container's output. The agent frames, stamps and rotates; a runtime hands over
/// bytes as they come, in order per stream.
#[async_trait::async_trait]
pub trait Output: Send + Sync + 'static {
    /// Takes bytes. Waits while the log is behind (this is the back-pressure on a container that prints
    /// without end); never fails from the container's point of view.
    async fn write(&self, stream: Stream, bytes: Bytes);
}
