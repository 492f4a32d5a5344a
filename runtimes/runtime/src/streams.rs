//! The standard streams of a command, and of whoever is attached to a container.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::{ContainerId, ExecOutput, Runtime, RuntimeError};

/// What a command reads.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;
/// What a command writes to.
pub type Sink = Box<dyn AsyncWrite + Send + Unpin>;

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// One caller's ends of the standard streams. Bytes are passed on as they come; a sink that is slow makes its command
/// wait, one that fails loses what it would have got.
#[derive(Default)]
pub struct Streams {
    /// Read to its end, which the command sees. Without it there is nothing to read.
    pub stdin: Option<Input>,
    /// Shut down when the command has written all. Without it, what the command writes is dropped.
    pub stdout: Option<Sink>,
    /// The same for the other stream; none with a terminal, which has one stream only.
    pub stderr: Option<Sink>,
    /// New sizes of the terminal.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish()
    }
}

/// Runs a command to its end and returns what it wrote, each stream cut at `limit` bytes; what is beyond is read and dropped, so
/// that the command can end. The caller limits the time by dropping.
///
/// # Errors
/// Those of [`Runtime::exec`].
pub async fn collect(
    runtime: &dyn Runtime,
    id: &ContainerId,
    command: &[String],
    limit: usize,
) -> Result<ExecOutput, RuntimeError> {
    let (stdout, stderr) = (Kept::new(limit), Kept::new(limit));
    let streams = Streams {
        stdout: Some(Box::new(stdout.clone())),
        stderr: Some(Box::new(stderr.clone())),
        ..Streams::default()
    };
    let code = runtime.exec(id, command, false, streams).await?;
    Ok(ExecOutput { code, stdout: stdout.take(), stderr: stderr.take() })
}

/// A sink that keeps what it is given up to a limit.
#[derive(Clone)]
struct Kept {
    limit: usize,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self { limit, bytes: Arc::default() }
    }

    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.bytes.lock()).into()
    }
}

impl AsyncWrite for Kept {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut kept = self.bytes.lock();
        let room = self.limit.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_beyond_the_limit_is_taken_and_dropped() {
        let mut kept = Kept::new(5);
        kept.write_all(b"abc").await.unwrap();
        kept.write_all(b"defgh").await.unwrap();
        assert_eq!(&*kept.take(), b"abcde");
    }
}
